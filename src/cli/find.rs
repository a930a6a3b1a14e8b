//! Where a running sidecar answers.
//!
//! An explicit `-c FILE` wins, then `OUTRIGGER_ADMIN=SOCKET`, then the file in its usual places. The file may have become
//! invalid since the sidecar read it, and a health check must not fail for that: then only the two addresses
//! are taken from it, as far as they can be read, and the default port is assumed for the rest.

use std::{
    fs::File,
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Failure, client::Door};
use crate::{
    config::{self, Config},
    model::ServiceName,
};

/// The variable that names the admin socket.
const ADMIN: &str = "OUTRIGGER_ADMIN";
/// `listen.observe`, unless the file says otherwise.
const OBSERVE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8471);

/// A file of more bytes is no configuration.
const LARGEST: u64 = 16 << 20;

/// Where to look for the sidecar.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// The configuration that the sidecar runs with; without it, the admin socket in $OUTRIGGER_ADMIN, or
    /// outrigger.yaml here, then /etc/outrigger/outrigger.yaml
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A service's name on the command line.
pub(super) fn name(text: &str) -> Result<ServiceName, String> {
    ServiceName::parse(text).map_err(|error| error.to_string())
}

impl Place {
    /// The file that is named.
    pub(super) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The door that answers questions: the observe port, or the admin socket where only that is known.
    pub(super) fn for_questions(&self) -> Result<Door, Failure> {
        if let Some(socket) = self.socket_in_environment() {
            return Ok(Door::Admin(socket));
        }
        let path = config::find(self.config.as_deref());
        if self.config.is_some() && !path.exists() {
            return Err(Failure::No(format!("there is no file {}", path.display())));
        }
        let observe = match Config::load(&path) {
            Ok(loaded) => loaded.config.listen.observe,
            Err(_) => Rough::read(&path).observe().unwrap_or(OBSERVE),
        };
        if observe.port() == 0 {
            return Err(Failure::No(format!(
                "{}: listen.observe has port 0, so the sidecar chose one that this command cannot know; \
                 name the admin socket instead, {ADMIN}=SOCKET",
                path.display()
            )));
        }
        Ok(Door::Observe(reachable(observe)))
    }

    /// The door that takes changes: the admin socket.
    pub(super) fn for_changes(&self) -> Result<Door, Failure> {
        if let Some(socket) = self.socket_in_environment() {
            return Ok(Door::Admin(socket));
        }
        let path = config::find(self.config.as_deref());
        match Config::load(&path) {
            Ok(loaded) => Ok(Door::Admin(loaded.config.listen.admin)),
            Err(problems) => Rough::read(&path).admin().map(Door::Admin).ok_or_else(|| {
                let problems = problems.to_string();
                Failure::No(format!(
                    "{}\n\nso the admin socket is not known; name it: {ADMIN}=SOCKET outrigger ...",
                    problems.trim_end()
                ))
            }),
        }
    }

    fn socket_in_environment(&self) -> Option<PathBuf> {
        if self.config.is_some() {
            return None;
        }
        std::env::var_os(ADMIN).filter(|value| !value.is_empty()).map(PathBuf::from)
    }
}

/// Where to connect for what is bound here: an unspecified address is every address, loopback among them.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// The two places in a file that is not valid as a whole.
#[derive(Debug, Default, Deserialize)]
struct Rough {
    #[serde(default)]
    listen: RoughListen,
}

#[derive(Debug, Default, Deserialize)]
struct RoughListen {
    #[serde(default)]
    observe: Option<String>,
    #[serde(default)]
    admin: Option<PathBuf>,
}

impl Rough {
    fn read(path: &Path) -> Self {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(LARGEST).read_to_string(&mut text));
        read.map(|_| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(text: &str) -> Self {
        serde_saphyr::from_str(text).unwrap_or_default()
    }

    /// An address, or a port alone.
    fn observe(&self) -> Option<SocketAddr> {
        let text = self.listen.observe.as_deref()?;
        text.parse().ok().or_else(|| Some(SocketAddr::new(OBSERVE.ip(), text.parse().ok()?)))
    }

    fn admin(self) -> Option<PathBuf> {
        // A variable that is not filled in is not a path.
        self.listen.admin.filter(|path| !path.to_string_lossy().contains("${"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_on_loopback() {
        let ask = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(ask("0.0.0.0:8471"), "127.0.0.1:8471");
        assert_eq!(ask("[::]:8471"), "[::1]:8471");
        assert_eq!(ask("10.1.2.3:99"), "10.1.2.3:99");
    }

    #[test]
    fn a_file_that_is_not_valid_still_says_where() {
        let rough = Rough::parse("listen: { observe: '0.0.0.0:9000', admin: /tmp/a.sock, nonsense: [1] }\nwrong: {}\n");
        assert_eq!(rough.observe(), Some("0.0.0.0:9000".parse().unwrap()));
        assert_eq!(rough.admin(), Some("/tmp/a.sock".into()));
        assert_eq!(Rough::parse("listen:\n  observe: 9001\n").observe(), Some("127.0.0.1:9001".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        for text in
            ["", "[", "services: {}", "listen: 3", "listen: {observe: '${OBSERVE}', admin: '${X}/a.sock'}", "\0"]
        {
            let rough = Rough::parse(text);
            assert_eq!(rough.observe(), None, "{text:?}");
            assert_eq!(rough.admin(), None, "{text:?}");
        }
    }

    #[test]
    fn a_socket_named_for_the_command_stands_for_the_file() {
        let named = Place { config: Some("x.yaml".into()) };
        assert_eq!(named.socket_in_environment(), None, "an explicit file wins");
    }
}
