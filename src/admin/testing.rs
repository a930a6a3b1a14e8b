//! A sidecar made of fixed views, and a client of a few lines, for the tests of both doors and of the commands.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    task::JoinHandle,
};

use super::{ReloadRequest, Sidecar, observe, socket};
use crate::{
    policy::breaker::Forced,
    service::{ForceError, Readiness, view::*},
    telemetry::{Metrics, Mirror},
};

/// One service, `orders`, with the endpoint 10.0.0.1:80 and the alias `o`; another, `plain`, without a breaker.
#[derive(Clone, Default)]
pub(crate) struct Stand {
    pub(crate) metrics: Metrics,
    pub(crate) why_not_ready: Arc<Mutex<Vec<String>>>,
    pub(crate) done: Arc<Mutex<Vec<String>>>,
    /// As many services in all; the two named ones at least.
    pub(crate) many: usize,
}

pub(crate) fn view(name: &str) -> ServiceView {
    ServiceView {
        made: false,
        name: name.into(),
        entry: EntryView { hosts: vec![name.into()], shared: ([127, 0, 0, 1], 8470).into(), listen: None, vip: None },
        source: SourceView {
            kind: "static".into(),
            detail: "config".into(),
            revision: 1,
            age_ms: Some(5),
            problem: None,
            dropped_in_ms: None,
        },
        endpoints: vec![],
        policy: Default::default(),
        breaker: None,
        bulkhead: None,
        calls: Default::default(),
    }
}

impl Sidecar for Stand {
    fn views(&self) -> impl Iterator<Item = ServiceView> + Send + use<> {
        let more = (2..self.many).map(|n| view(&format!("service-{n}")));
        [view("orders"), view("plain")].into_iter().chain(more)
    }

    fn view(&self, name: &str) -> Option<ServiceView> {
        match name.to_ascii_lowercase().as_str() {
            "orders" | "o" => Some(view("orders")),
            "plain" => Some(view("plain")),
            _ => None,
        }
    }

    fn update_gauges(&self, metrics: &Metrics) {
        metrics.clear_mirrors();
        metrics.service("orders").mirror(&Mirror { limit: 100, ..Mirror::default() });
    }

    fn samples(&self) -> Vec<crate::service::Sample> {
        Vec::new()
    }

    fn readiness(&self) -> Readiness {
        let why = self.why_not_ready.lock().unwrap().clone();
        if why.is_empty() { Readiness::Ready } else { Readiness::NotReady(why) }
    }

    fn force_breaker(&self, name: &str, forced: Forced) -> Result<(), ForceError> {
        let view = self.view(name).ok_or(ForceError::UnknownService)?;
        if view.name == "plain" {
            return Err(ForceError::BreakerIsOff);
        }
        self.done.lock().unwrap().push(format!("{} {}", view.name, forced.as_str()));
        Ok(())
    }

    fn drain(&self, endpoint: SocketAddr) -> usize {
        self.done.lock().unwrap().push(format!("drain {endpoint}"));
        usize::from(endpoint == ([10, 0, 0, 1], 80).into())
    }

    fn start_draining(&self) {
        self.why_not_ready.lock().unwrap().push("draining".into());
    }

    fn stop(&self) {
        self.done.lock().unwrap().push("stop".into());
    }
}

impl Stand {
    /// Serves the observe port, for as long as the test's runtime lives.
    pub(crate) async fn observe(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(observe::serve_sidecar(listener, self.clone(), self.metrics.clone()));
        addr
    }

    /// Serves the admin socket, until the task is aborted; what is asked of the configuration's owner comes out.
    pub(crate) fn admin(&self, path: &Path) -> (JoinHandle<std::io::Result<()>>, mpsc::Receiver<ReloadRequest>) {
        let (reload, reloads) = mpsc::channel(1);
        let socket = socket::bind(path).unwrap();
        (tokio::spawn(socket::serve_sidecar(socket, self.clone(), reload)), reloads)
    }
}

/// Sends the text and reads to the end; `(status, whole head, body)`.
pub(crate) async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> (u16, String, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.into())
}
