//! A sidecar made of fixed views, and a client of a few lines, for the tests of both doors.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Sidecar;
use crate::{
    policy::breaker::Forced,
    service::{ForceError, Readiness, view::*},
    telemetry::Metrics,
};

/// One service, `orders`, with the endpoint 10.0.0.1:80 and the alias `o`; another, `plain`, without a breaker.
#[derive(Clone, Default)]
pub(super) struct Stand {
    pub(super) metrics: Metrics,
    pub(super) why_not_ready: Arc<Mutex<Vec<String>>>,
    pub(super) done: Arc<Mutex<Vec<String>>>,
}

pub(super) fn view(name: &str) -> ServiceView {
    ServiceView {
        name: name.into(),
        entry: EntryView { hosts: vec![name.into()], shared: ([127, 0, 0, 1], 8470).into(), listen: None },
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
    fn views(&self) -> Vec<ServiceView> {
        vec![view("orders"), view("plain")]
    }

    fn view(&self, name: &str) -> Option<ServiceView> {
        match name.to_ascii_lowercase().as_str() {
            "orders" | "o" => Some(view("orders")),
            "plain" => Some(view("plain")),
            _ => None,
        }
    }

    fn update_gauges(&self) {
        self.metrics.service("orders").bulkhead_limit.set(100);
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
}

/// Sends the text and reads to the end; `(status, whole head, body)`.
pub(super) async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> (u16, String, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.into())
}
