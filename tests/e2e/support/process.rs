//! `outrigger run` as a process of its own: files, signals, exit codes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use outrigger::service::view::ServiceView;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::Instant,
};

use super::{Client, Held, Reply, eventually, within};

/// A running process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    folder: tempfile::TempDir,
    ip: IpAddr,
    pub(crate) http: SocketAddr,
    pub(crate) observe: SocketAddr,
}

impl Process {
    /// Starts with this YAML, which names no `listen` of its own, and waits for readiness.
    pub(crate) async fn start(yaml: &str) -> Self {
        let process = Self::start_unready(yaml).await;
        eventually("readiness", async || process.observe("/health/ready").await.status == 200).await;
        process
    }

    /// Starts, and waits until it answers at all.
    pub(crate) async fn start_unready(yaml: &str) -> Self {
        let mut process = Self::spawn(yaml, &[]);
        process.answers().await;
        process
    }

    /// Starts it with a shell script for an app, whose output goes to the file `out`, and waits for nothing.
    pub(crate) fn with_app(yaml: &str, script: &str) -> Self {
        Self::spawn(yaml, &["--", "sh", "-c", script])
    }

    /// Starts it with more arguments, and waits for nothing.
    pub(crate) fn spawn(yaml: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ip = address_of_its_own();
        let (http, observe) = (free_at(ip), free_at(ip));
        let text = Self::text(folder.path(), http, observe, yaml);
        std::fs::write(folder.path().join("outrigger.yaml"), text).unwrap();
        let child = Self::launch(folder.path(), more);
        Self { child, folder, ip, http, observe }
    }

    fn launch(folder: &Path, more: &[&str]) -> Child {
        let file = |name| std::fs::File::options().create(true).append(true).open(folder.join(name)).unwrap();
        Command::new(env!("CARGO_BIN_EXE_outrigger"))
            .args(["run", "-c", "outrigger.yaml"])
            .args(more)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("log"))
            .spawn()
            .unwrap()
    }

    /// Waits until it answers at all.
    pub(crate) async fn answers(&mut self) {
        within("the process to answer", async {
            while TcpStream::connect(self.observe).await.is_err() {
                let ended = self.child.try_wait().unwrap();
                assert!(ended.is_none(), "it ended with {ended:?}: {}", self.log());
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    fn text(folder: &Path, http: SocketAddr, observe: SocketAddr, yaml: &str) -> String {
        let admin = folder.join("admin.sock");
        format!("listen: {{http: '{http}', observe: '{observe}', admin: '{}'}}\n{yaml}", admin.display())
    }

    /// A port that is free right now, at an address that no other process uses.
    pub(crate) fn free(&self) -> SocketAddr {
        free_at(self.ip)
    }

    /// Replaces the configuration, at once as a whole.
    pub(crate) fn write(&self, yaml: &str) {
        self.write_text(&Self::text(self.folder.path(), self.http, self.observe, yaml));
    }

    /// Replaces all of the configuration's text.
    pub(crate) fn write_text(&self, text: &str) {
        let new = self.folder.path().join("new.yaml");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.config()).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("outrigger.yaml")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the configuration and has it read; the answer is the admin socket's.
    pub(crate) async fn reload(&self, yaml: &str) -> Reply {
        self.write(yaml);
        self.admin("/reload").await
    }

    /// Posts to the admin socket.
    pub(crate) async fn admin(&self, path: &str) -> Reply {
        admin(&self.file("admin.sock"), path).await
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.http).await
    }

    /// One GET on a connection of its own.
    pub(crate) async fn get(&self, host: &str, path: &str) -> Reply {
        self.client().await.get(host, path, "").await
    }

    pub(crate) async fn observe(&self, path: &str) -> Reply {
        Client::connect(self.observe).await.get("observe", path, "Connection: close\r\n").await
    }

    pub(crate) async fn view(&self, service: &str) -> ServiceView {
        serde_json::from_slice(&self.observe(&format!("/api/services/{service}")).await.body).unwrap()
    }

    /// Every sample of the metrics, by `name{labels}` as rendered.
    pub(crate) async fn metrics(&self) -> BTreeMap<String, f64> {
        let text = self.observe("/metrics").await.text();
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
    }

    /// Runs another command against this process; its exit code, stdout and stderr.
    pub(crate) async fn command(&self, line: &str) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
        command.args(line.split(' ')).arg("-c").arg(self.config()).env_remove("OUTRIGGER_ADMIN");
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// Sends a signal, `TERM` or `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Ends it by a signal and starts it anew, with the same ports; waits until it answers again.
    pub(crate) async fn restart(&mut self, signal: &str) {
        self.signal(signal);
        self.exit().await;
        self.child = Self::launch(self.folder.path(), &[]);
        self.answers().await;
    }

    /// Waits until a stop has begun.
    pub(crate) async fn is_draining(&self) {
        eventually("draining", async || {
            let ready = self.observe("/health/ready").await;
            ready.status == 503 && ready.text().contains("draining")
        })
        .await;
    }

    /// Asks it for so long how it is; it is there all the while, and takes connections.
    pub(crate) async fn stays(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            assert_eq!(self.observe("/health/live").await.status, 200);
            TcpStream::connect(self.http).await.unwrap();
        }
    }

    /// Sends a call to the service `a` that its origin holds back.
    pub(crate) async fn held_call(&self, origin: &Held) -> Client {
        let before = origin.requests();
        let mut call = self.client().await;
        call.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
        origin.has_read(before + 1).await;
        call
    }

    /// What its app has written.
    pub(crate) fn out(&self) -> String {
        std::fs::read_to_string(self.file("out")).unwrap()
    }

    /// Waits until its app has written this.
    pub(crate) async fn has_written(&self, what: &str) {
        eventually(what, async || self.out().contains(what)).await;
    }

    /// The folder that it runs in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap()
    }

    /// Waits until it has logged this.
    pub(crate) async fn has_logged(&self, what: &str) {
        eventually(what, async || self.log().contains(what)).await;
    }

    /// Waits for its end; the exit code, or `None` after a signal.
    pub(crate) async fn exit(&mut self) -> Option<i32> {
        within("the process to end", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status.code();
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the sidecar's log:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Posts to an admin socket.
pub(crate) async fn admin(socket: &Path, path: &str) -> Reply {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(format!("POST {path} HTTP/1.1\r\nHost: admin\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    within("the admin socket's answer", stream.read_to_string(&mut text)).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.as_bytes().to_vec(),
        trailers: String::new(),
        complete: true,
    }
}

/// A loopback address that no other process of the tests uses, so that a port that is free there stays so.
fn address_of_its_own() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 + high % 64, low, NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

/// A port that is free right now, at an address that nothing else uses.
pub(crate) fn free() -> SocketAddr {
    free_at(address_of_its_own())
}

fn free_at(ip: IpAddr) -> SocketAddr {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}
