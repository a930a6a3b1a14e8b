//! `outrigger intercept`: the firewall rules that redirect an app's outgoing connections to the sidecar.
//!
//! Which they are is decided here, from the configuration and the command line, and is one [`Redirect`] to all three:
//! printing needs no right at all, applying and removing need CAP_NET_ADMIN, which the sidecar itself never does.

use std::{fs, path::PathBuf};

use super::{Failure, print};
use crate::{
    config::{self, Config, Intercept},
    net::nft::{self, MOST_PORTS, Redirect},
};

/// What to do about the rules.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["print", "apply", "remove"])))]
pub(super) struct Args {
    /// Print them as a script for `nft -f -`; needs no rights
    #[arg(long)]
    print: bool,
    /// Put them in place, instead of what an earlier time has put there; needs CAP_NET_ADMIN
    #[arg(long)]
    apply: bool,
    /// Take them away; needs CAP_NET_ADMIN
    #[arg(long, conflicts_with_all = ["ports", "user", "mark"])]
    remove: bool,
    /// The ports whose connections are redirected [default: `intercept.ports`]
    #[arg(long, value_name = "PORT,…", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// The sidecar's user, whose connections are left alone [default: `intercept.user`, else who runs this, unless a
    /// mark is given]
    #[arg(long, value_name = "NAME|UID")]
    user: Option<String>,
    /// A mark whose connections are left alone [default: `intercept.mark`]
    #[arg(long, value_name = "MARK", value_parser = clap::value_parser!(u32).range(1..))]
    mark: Option<u32>,
    /// The configuration [default: outrigger.yaml here, then /etc/outrigger/outrigger.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let no = |error: nft::Error| Failure::No(error.to_string());
    if args.remove {
        let was_there = nft::remove().map_err(no)?;
        return print(if was_there { "connections are no longer redirected\n" } else { "there were no rules\n" });
    }
    let path = config::find(args.config.as_deref());
    let config = Config::load(&path).map_err(|problems| Failure::No(problems.to_string()))?.config;
    let Some(settings) = &config.intercept else {
        return Err(Failure::No(format!(
            "{} has no section `intercept`: nobody would listen where connections are redirected to\n\
             \n\
             add one, with the sidecar's user:\n\
             \n\
             intercept: {{ user: outrigger }}",
            path.display()
        )));
    };
    let passwd = || fs::read_to_string("/etc/passwd").unwrap_or_default();
    let redirect = redirect(args, settings, &passwd, config::user()).map_err(Failure::No)?;
    if args.print {
        return print(&redirect.script());
    }
    nft::apply(&redirect).map_err(no)?;
    print(&told(&redirect))
}

/// The rules, in a line.
fn told(redirect: &Redirect) -> String {
    let ports: Vec<_> = redirect.ports.iter().map(ToString::to_string).collect();
    let plural = if ports.len() == 1 { "" } else { "s" };
    let user = redirect.but_user.map(|user| format!("of user {user}"));
    let mark = redirect.but_mark.map(|mark| format!("with mark {mark}"));
    let but: Vec<_> = user.into_iter().chain(mark).collect();
    let (ports, but, to) = (ports.join(", "), but.join(" and those "), redirect.to);
    format!("connections to port{plural} {ports} go to 127.0.0.1:{to}, but not those {but}\n")
}

/// What the command line and the configuration ask for together; `us` is who runs this.
fn redirect(
    args: &Args,
    settings: &Intercept,
    passwd: &dyn Fn() -> String,
    us: Option<u32>,
) -> Result<Redirect, String> {
    let mut ports = if args.ports.is_empty() { settings.ports.clone() } else { args.ports.clone() };
    ports.sort_unstable();
    ports.dedup();
    if ports.len() > MOST_PORTS {
        return Err(format!("{} ports are more than the {MOST_PORTS} that can be redirected", ports.len()));
    }
    let to = settings.listen;
    if to.port() == 0 {
        return Err("`intercept.listen` has port 0, any free one: rules need to know which".to_owned());
    }
    let but_mark = args.mark.or(settings.mark);
    let named = args.user.as_deref().or(settings.user.as_deref());
    let but_user = match (named, us) {
        (Some(named), _) => Some(user(named, passwd)?),
        (None, _) if but_mark.is_some() => None,
        (None, Some(us)) if us != 0 => Some(us),
        (None, _) => {
            return Err("it has to be said which connections are the sidecar's own, so that they do not come back to \
                 it: by its user (`intercept.user`, or --user NAME|UID), or by a mark (`intercept.mark`)\n\
                 \n\
                 who runs this is root, and to take that for the sidecar's user would leave every app alone that \
                 runs as root"
                .to_owned());
        }
    };
    Ok(Redirect { ports, to: to.port(), but_user, but_mark })
}

/// A user's number, by number or by name.
fn user(text: &str, passwd: &dyn Fn() -> String) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    // name:password:UID:…; whatever is no such line names nobody.
    let number = |line: &str| {
        let mut fields = line.split(':');
        (fields.next()? == text).then_some(())?;
        fields.nth(1)?.parse().ok()
    };
    passwd().lines().find_map(number).ok_or_else(|| {
        format!("/etc/passwd here has no user {text:?}: write the number of the sidecar's user instead (`id -u` tells)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\noutrigger:x:990:990::/:/bin/false\nodd:x:many:0::/:\n";

    fn args(line: &str) -> Args {
        use clap::{Args as _, FromArgMatches};
        let command = Args::augment_args(clap::Command::new("intercept"));
        let matches = command.try_get_matches_from(["intercept"].into_iter().chain(line.split_whitespace()));
        Args::from_arg_matches(&matches.unwrap()).unwrap()
    }

    fn asked(line: &str, yaml: &str, us: u32) -> Result<Redirect, String> {
        let yaml = format!("intercept: {yaml}\nservices: {{}}\n");
        let config = Config::parse("test", &yaml, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).config;
        redirect(&args(line), config.intercept.as_ref().unwrap(), &|| PASSWD.to_owned(), Some(us))
    }

    #[test]
    fn the_file_tells_and_the_command_line_wins() {
        let file = "{ listen: 9000, ports: [8080, 80], user: outrigger }";
        let of_file = Redirect { ports: vec![80, 8080], to: 9000, but_user: Some(990), but_mark: None };
        assert_eq!(asked("--print", file, 0), Ok(of_file.clone()));
        let other = Redirect { ports: vec![81, 443], but_user: Some(7), but_mark: Some(9), ..of_file };
        assert_eq!(asked("--apply --ports 443,81,443 --user 7 --mark 9", file, 0), Ok(other));
    }

    #[test]
    fn who_runs_it_is_the_sidecar_unless_that_is_root() {
        let by_default = asked("--print", "{}", 1000).unwrap();
        assert_eq!((by_default.ports, by_default.to, by_default.but_user), (vec![80], 8472, Some(1000)));
        let refused = asked("--print", "{}", 0).unwrap_err();
        assert!(refused.contains("--user NAME|UID") && refused.contains("root"), "{refused}");
        assert_eq!(asked("--print --user root", "{}", 0).unwrap().but_user, Some(0), "who says so means it");
        let by_mark = asked("--print", "{ mark: 7 }", 0).unwrap();
        assert_eq!((by_mark.but_user, by_mark.but_mark), (None, Some(7)));
    }

    #[test]
    fn a_user_is_a_number_or_a_name_that_is_known() {
        let passwd = || PASSWD.to_owned();
        assert_eq!(user("65532", &passwd), Ok(65532));
        assert_eq!(user("outrigger", &passwd), Ok(990));
        for nobody in ["", "out", "broken", "odd", "-1", "x"] {
            assert!(user(nobody, &passwd).is_err(), "{nobody:?}");
        }
    }

    #[test]
    fn what_no_rules_can_be_made_of_is_refused() {
        let ports: Vec<_> = (1..=501).map(|port: u16| port.to_string()).collect();
        assert!(asked(&format!("--print --ports {}", ports.join(",")), "{ user: 1 }", 0).is_err());
        assert!(asked("--print", "{ listen: '127.0.0.1:0', user: 1 }", 0).is_err());
    }
}
