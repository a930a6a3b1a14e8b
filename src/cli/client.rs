//! One question to a running sidecar: HTTP/1.0 over a blocking socket, an answer that ends with the connection.
//!
//! A runtime and an HTTP client would be more code than this, and `health` runs every few seconds beside each
//! app. Every step has a time limit, and the answer a size limit.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Failure, layout::printable};

/// For the connection to stand.
const CONNECT: Duration = Duration::from_secs(2);
/// For each read and write.
const STEP: Duration = Duration::from_secs(5);
/// Bytes of an answer: some ten thousand services.
const ANSWER: u64 = 64 * 1024 * 1024;

/// Where a sidecar answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Door {
    /// The observe port.
    Observe(SocketAddr),
    /// The admin socket.
    Admin(PathBuf),
}

/// What it answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Door {
    /// Asks for a page.
    pub(super) fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.ask("GET", path)
    }

    /// Asks for a change.
    pub(super) fn post(&self, path: &str) -> Result<Answer, Failure> {
        self.ask("POST", path)
    }

    fn ask(&self, method: &str, path: &str) -> Result<Answer, Failure> {
        let bytes = self.exchange(method, path).map_err(|error| self.unreachable(&error))?;
        parse(&bytes)
            .ok_or_else(|| Failure::No(format!("what answers at {self} is not outrigger, or broke off its answer")))
    }

    fn exchange(&self, method: &str, path: &str) -> io::Result<Vec<u8>> {
        let (domain, address) = match self {
            Self::Observe(addr) => (Domain::for_address(*addr), SockAddr::from(*addr)),
            Self::Admin(path) => (Domain::UNIX, SockAddr::unix(path)?),
        };
        let mut socket = Socket::new(domain, Type::STREAM, None)?;
        socket.connect_timeout(&address, CONNECT)?;
        socket.set_read_timeout(Some(STEP))?;
        socket.set_write_timeout(Some(STEP))?;
        socket.write_all(format!("{method} {path} HTTP/1.0\r\nhost: outrigger\r\n\r\n").as_bytes())?;
        let mut bytes = Vec::new();
        socket.take(ANSWER).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        use io::ErrorKind as Kind;
        let hint = match (error.kind(), self) {
            (Kind::PermissionDenied, Self::Admin(_)) => "run this as the user that the sidecar runs as, or as root",
            (Kind::TimedOut | Kind::WouldBlock, _) => "it is too busy, or stands still",
            _ => "is `outrigger run` running, with this configuration?",
        };
        Failure::No(format!("no sidecar answers at {self} ({error}): {hint}"))
    }
}

impl std::fmt::Display for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Observe(addr) => write!(f, "{addr}"),
            Self::Admin(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Answer {
    /// This answer, if it is a yes; its `detail` as a failure, if not.
    pub(super) fn accepted(self) -> Result<Self, Failure> {
        if self.status == 200 { Ok(self) } else { Err(Failure::No(self.detail())) }
    }

    /// The body, read as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::No(format!("the sidecar speaks otherwise than this command, is it another version? ({error})"))
        })
    }

    /// What a problem document says, or the status where there is none; fit for a terminal.
    pub(super) fn detail(&self) -> String {
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        match value["detail"].as_str() {
            Some(detail) => printable(detail),
            None => format!("the sidecar answered {}", self.status),
        }
    }
}

/// Reads a whole answer: status line, head, and a body of the length that the head declares.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let body = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let declared =
        lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if let Some((_, length)) = declared
        && length.trim().parse() != Ok(body.len())
    {
        return None;
    }
    Some(Answer { status, body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let whole = b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nx: y\r\n\r\nabc";
        assert_eq!(parse(whole), Some(Answer { status: 200, body: b"abc".to_vec() }));
        assert_eq!(parse(b"HTTP/1.1 503 \r\n\r\n"), Some(Answer { status: 503, body: vec![] }));
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_an_answer_is_none() {
        for bytes in [
            &b""[..],
            b"\r\n\r\n",
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.0\r\n\r\n",
            b"HTTP/1.0 abc\r\n\r\n",
            b"HTTP/1.0 20\r\n\r\n",
            b"HTTP/1.0 200 \xff\r\n\r\n",
            "HTTP/1.é00\r\n\r\n".as_bytes(),
            b"HTTP/1.0 200 OK\r\ncontent-length: many\r\n\r\n",
        ] {
            assert_eq!(parse(bytes), None, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_port_where_nobody_listens_is_told_with_the_remedy() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let Err(Failure::No(text)) = Door::Observe(free).get("/") else { panic!("somebody answered") };
        assert!(text.contains(&free.to_string()) && text.contains("is `outrigger run` running"), "{text}");
        let Err(Failure::No(text)) = Door::Admin("/no/such.sock".into()).get("/") else { panic!("somebody answered") };
        assert!(text.contains("/no/such.sock"), "{text}");
    }

    #[test]
    fn a_stranger_is_not_taken_for_outrigger() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let stranger = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        });
        let Err(Failure::No(text)) = Door::Observe(addr).get("/") else { panic!("taken for outrigger") };
        assert!(text.contains("not outrigger"), "{text}");
        stranger.join().unwrap();
    }

    #[test]
    fn a_refusal_is_told_in_the_sidecars_words() {
        let answer = |body: &str| Answer { status: 409, body: body.into() };
        let Err(Failure::No(text)) = answer(r#"{"detail":"the breaker\u001b[2J is off"}"#).accepted() else { panic!() };
        assert_eq!(text, "the breaker\u{fffd}[2J is off");
        let Err(Failure::No(text)) = answer("<html>").accepted() else { panic!() };
        assert_eq!(text, "the sidecar answered 409");
    }
}
