//! An upstream that does what a test says, byte by byte.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

/// A listening upstream; it stops listening when dropped, with every connection cut.
pub(crate) struct Origin {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Origin {
    /// Runs `script` once a connection.
    pub(crate) async fn scripted<F, Fut>(script: F) -> Self
    where
        F: Fn(Exchange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::scripted_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    /// The same, at an address (one that was free a moment ago, say).
    pub(crate) async fn scripted_at<F, Fut>(addr: SocketAddr, script: F) -> Self
    where
        F: Fn(Exchange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let accepting = tokio::spawn({
            let (connections, requests) = (connections.clone(), requests.clone());
            async move {
                let mut serving = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::SeqCst);
                    serving.spawn(script(Exchange { stream, buffer: Vec::new(), requests: requests.clone() }));
                }
            }
        });
        Self { addr, connections, requests, accepting }
    }

    /// Answers every request on every connection with these bytes (a head and a body that it frames).
    pub(crate) async fn answering(answer: impl Into<String>) -> Self {
        let answer: Arc<str> = answer.into().into();
        Self::scripted(move |mut exchange| {
            let answer = answer.clone();
            async move {
                while exchange.request().await.is_some() {
                    exchange.send(answer.as_bytes()).await;
                }
            }
        })
        .await
    }

    /// The same, and hands on every request as it was read.
    pub(crate) async fn recording(answer: impl Into<String>) -> (Self, mpsc::Receiver<String>) {
        let (requests, received) = mpsc::channel(1024);
        let answer: Arc<str> = answer.into().into();
        let origin = Self::scripted(move |mut exchange| {
            let (answer, requests) = (answer.clone(), requests.clone());
            async move {
                while let Some(request) = exchange.request().await {
                    let _ = requests.try_send(request);
                    exchange.send(answer.as_bytes()).await;
                }
            }
        })
        .await;
        (origin, received)
    }

    /// Answers every request with 200 and this body.
    pub(crate) async fn ok(body: &str) -> Self {
        Self::answering(ok(body)).await
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Requests whose heads were read so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// 200 with a body.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// One connection, from the upstream's side.
pub(crate) struct Exchange {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    requests: Arc<AtomicUsize>,
}

impl Exchange {
    /// Reads a request's head, and its body if it has a Content-Length; `None` when the connection ends.
    /// The text is head and body together.
    pub(crate) async fn request(&mut self) -> Option<String> {
        let head = self.head().await?;
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok())
            .unwrap_or(0);
        let body = self.exactly(length).await?;
        Some(head + &String::from_utf8_lossy(&body))
    }

    /// Reads a request's head and no more.
    pub(crate) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                self.requests.fetch_add(1, Ordering::SeqCst);
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            self.more().await?;
        }
    }

    /// Reads so many bytes.
    pub(crate) async fn exactly(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < n {
            self.more().await?;
        }
        Some(self.buffer.drain(..n).collect())
    }

    /// Whatever comes next; `None` when the connection ends.
    pub(crate) async fn some(&mut self) -> Option<Vec<u8>> {
        if self.buffer.is_empty() {
            self.more().await?;
        }
        Some(std::mem::take(&mut self.buffer))
    }

    /// Reads until what has been read ends with `end`.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        while !self.buffer.ends_with(end) {
            self.more().await?;
        }
        Some(std::mem::take(&mut self.buffer))
    }

    /// What has been read from the stream and not looked at.
    pub(crate) fn take_buffered(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Reads until the peer closes.
    pub(crate) async fn closed(&mut self) {
        while self.more().await.is_some() {}
    }

    /// Writes; a peer that is gone is the test's business, not an error.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Closes with a reset instead of an end.
    pub(crate) fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
    }

    async fn more(&mut self) -> Option<()> {
        let n = self.stream.read_buf(&mut self.buffer).await.ok()?;
        (n > 0).then_some(())
    }
}
