//! An app that speaks HTTP/1.1 by hand, so that it can also speak it badly.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::within;

/// One connection of an app.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The whole head, as it came.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The lines after a chunked body.
    pub(crate) trailers: String,
    /// The body ended where its framing says, and not because the connection did.
    pub(crate) complete: bool,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::on(stream)
    }

    /// One on a connection that stands.
    pub(crate) fn on(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Writes bytes as they are.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// A GET, with whatever header lines (each ending in CRLF) are added.
    pub(crate) async fn get(&mut self, host: &str, path: &str, lines: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")).await;
        self.reply().await
    }

    /// A POST with a body of known length.
    pub(crate) async fn post(&mut self, host: &str, path: &str, body: &str) -> Reply {
        let length = body.len();
        self.send(format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}")).await;
        self.reply().await
    }

    /// Reads one answer to its end.
    pub(crate) async fn reply(&mut self) -> Reply {
        within("an answer", self.try_reply(false)).await.expect("an answer, not the end of the connection")
    }

    /// Reads the answer to a HEAD.
    pub(crate) async fn reply_to_head(&mut self) -> Reply {
        within("an answer", self.try_reply(true)).await.expect("an answer, not the end of the connection")
    }

    /// Reads one answer; `None` when the connection ends before a head.
    pub(crate) async fn try_reply(&mut self, to_head: bool) -> Option<Reply> {
        let head = self.head().await?;
        let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
        let mut reply = Reply { status, head, body: Vec::new(), trailers: String::new(), complete: true };
        if to_head || status == 204 || status == 304 || status < 200 {
            return Some(reply);
        }
        if reply.header("transfer-encoding").is_some_and(|te| te.eq_ignore_ascii_case("chunked")) {
            reply.complete = self.chunked(&mut reply).await.is_some();
        } else if let Some(length) = reply.header("content-length").and_then(|n| n.parse::<usize>().ok()) {
            while self.buffer.len() < length && self.more().await.is_some() {}
            reply.complete = self.buffer.len() >= length;
            let end = length.min(self.buffer.len());
            reply.body = self.buffer.drain(..end).collect();
        } else {
            while self.more().await.is_some() {}
            reply.body = std::mem::take(&mut self.buffer);
        }
        Some(reply)
    }

    /// Reads a head, interim ones too.
    pub(crate) async fn head(&mut self) -> Option<String> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        Some(String::from_utf8_lossy(&self.buffer.drain(..end).collect::<Vec<u8>>()).into_owned())
    }

    /// Reads until so many bytes are there.
    pub(crate) async fn exactly(&mut self, n: usize) -> Vec<u8> {
        within("bytes", async {
            while self.buffer.len() < n {
                self.more().await.expect("more bytes, not the end of the connection");
            }
        })
        .await;
        self.buffer.drain(..n).collect()
    }

    /// What has been read from the stream and not looked at.
    pub(crate) fn take_buffered(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Waits for the end of the connection; returns what came before it.
    pub(crate) async fn closed(&mut self) -> Vec<u8> {
        within("the end of the connection", async { while self.more().await.is_some() {} }).await;
        std::mem::take(&mut self.buffer)
    }

    /// One chunk of a chunked body, as text; `None` when the body or the connection ends.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let line = self.line().await?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok().filter(|size| *size > 0)?;
        while self.buffer.len() < size + 2 {
            self.more().await?;
        }
        let chunk = self.buffer.drain(..size + 2).take(size).collect();
        String::from_utf8(chunk).ok()
    }

    async fn chunked(&mut self, reply: &mut Reply) -> Option<()> {
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
            if size == 0 {
                loop {
                    match self.line().await?.as_str() {
                        "" => return Some(()),
                        line => reply.trailers += &format!("{line}\r\n"),
                    }
                }
            }
            while self.buffer.len() < size + 2 {
                if self.more().await.is_none() {
                    reply.body.append(&mut self.buffer);
                    return None;
                }
            }
            reply.body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
        }
    }

    async fn line(&mut self) -> Option<String> {
        let end = loop {
            if let Some(at) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                break at;
            }
            self.more().await?;
        };
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 2);
        Some(line)
    }

    async fn more(&mut self) -> Option<()> {
        let n = self.stream.read_buf(&mut self.buffer).await.ok()?;
        (n > 0).then_some(())
    }
}

impl Reply {
    /// The first header line of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then(|| value.trim()))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `reason` of a local reply; panics when it is none, or when its three ways to say so disagree.
    pub(crate) fn reason(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no problem document ({error}): {}{}", self.head, self.text()));
        let reason = problem["reason"].as_str().expect("a reason").to_owned();
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(problem["status"], self.status);
        let proxy_status = self.header("proxy-status").expect("a Proxy-Status");
        assert!(proxy_status.starts_with("outrigger; error="), "{proxy_status}");
        assert!(proxy_status.ends_with(&format!("details=\"{reason}\"")), "{proxy_status}");
        reason
    }
}
