//! A sidecar inside the test's process, on free ports.

use std::{collections::BTreeMap, net::SocketAddr};

use outrigger::{app, config::Config, model::ServiceName, service::view::ServiceView};

use super::{Client, Origin, Reply, eventually};

/// Without what is on by default and goes round a failure, where the test's YAML does not speak of it: most tests want
/// to see the failure itself.
fn plain(mut config: Config, yaml: &str) -> Config {
    for service in config.services.values_mut() {
        let policy = &mut std::sync::Arc::make_mut(service).policy;
        policy.retry.take_if(|_| !yaml.contains("retry") && !yaml.contains("protocol: tcp"));
        policy.ejection.take_if(|_| !yaml.contains("ejection"));
    }
    config
}

/// A running sidecar; it stops when dropped.
pub(crate) struct Sidecar {
    running: Option<app::Sidecar>,
    addresses: app::Addresses,
    admin: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Sidecar {
    /// Starts with this YAML, which names no `listen.http`, `listen.observe` or `listen.admin`, and waits
    /// until every service has endpoints.
    pub(crate) async fn start(yaml: &str) -> Self {
        let sidecar = Self::start_unready(yaml);
        eventually("readiness", async || sidecar.observe("/health/ready").await.status == 200).await;
        sidecar
    }

    /// Starts with one service, `a`, at this origin; `rest` is more of its YAML, as `, key: value`.
    pub(crate) async fn before(origin: &Origin, rest: &str) -> Self {
        Self::start(&format!("services: {{a: {{static: ['{}']{rest}}}}}", origin.addr())).await
    }

    /// Waits until nothing is held for `service`, and its calls have ended so: `ended` lists outcome and number.
    pub(crate) async fn settles(&self, service: &str, ended: &[(&str, u64)]) {
        eventually("everything to be given back", async || self.is_quiet(service).await).await;
        for (outcome, number) in ended {
            eventually(&format!("{number} calls to count as {outcome}"), async || {
                self.calls(service, outcome).await == *number
            })
            .await;
        }
        let total = self
            .metrics()
            .await
            .iter()
            .filter(|(name, _)| {
                name.starts_with("outrigger_calls_total{") && name.contains(&format!("service=\"{service}\""))
            })
            .map(|(_, value)| *value as u64)
            .sum::<u64>();
        assert_eq!(total, ended.iter().map(|(_, number)| number).sum::<u64>(), "no call counts twice");
    }

    /// Connections that are open on a side.
    pub(crate) async fn open(&self, service: &str, side: &str) -> u64 {
        let name = format!("outrigger_connections{{service=\"{service}\",side=\"{side}\"}}");
        self.metrics().await.get(&name).copied().unwrap_or(0.0) as u64
    }

    /// Starts, and does not wait for readiness.
    pub(crate) fn start_unready(yaml: &str) -> Self {
        Self::listening("", yaml)
    }

    /// Starts with more keys of `listen`, and waits for readiness.
    pub(crate) async fn start_listening(keys: &str, yaml: &str) -> Self {
        let sidecar = Self::listening(&format!(", {keys}"), yaml);
        eventually("readiness", async || sidecar.observe("/health/ready").await.status == 200).await;
        sidecar
    }

    fn listening(keys: &str, yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let admin = folder.path().join("admin.sock");
        let listen =
            format!("listen: {{http: '127.0.0.1:0', observe: '127.0.0.1:0', admin: '{}'{keys}}}\n", admin.display());
        let loaded =
            Config::parse("test.yaml", &(listen + yaml), &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        let running = app::Sidecar::start(plain(loaded.config, yaml)).unwrap();
        Self { addresses: running.addresses().clone(), running: Some(running), admin, _folder: folder }
    }

    /// The shared port.
    pub(crate) fn http(&self) -> SocketAddr {
        self.addresses.http
    }

    /// A service's own port.
    pub(crate) fn port_of(&self, service: &str) -> SocketAddr {
        self.addresses.services[&ServiceName::parse(service).unwrap()]
    }

    /// Where redirected connections come in.
    pub(crate) fn intercepted(&self) -> SocketAddr {
        self.addresses.intercepted.unwrap()
    }

    /// The admin socket.
    pub(crate) fn admin(&self) -> &std::path::Path {
        &self.admin
    }

    /// A connection to the shared port.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.http()).await
    }

    /// One GET on a connection of its own.
    pub(crate) async fn get(&self, host: &str, path: &str) -> Reply {
        self.client().await.get(host, path, "").await
    }

    /// A connection to the observe port.
    pub(crate) async fn observer(&self) -> Client {
        Client::connect(self.addresses.observe).await
    }

    /// Where the observe port is.
    pub(crate) fn observer_addr(&self) -> SocketAddr {
        self.addresses.observe
    }

    /// What the observe port says.
    pub(crate) async fn observe(&self, path: &str) -> Reply {
        Client::connect(self.addresses.observe).await.get("observe", path, "Connection: close\r\n").await
    }

    /// A service's picture.
    pub(crate) async fn view(&self, service: &str) -> ServiceView {
        let reply = self.observe(&format!("/api/services/{service}")).await;
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// Every sample of the metrics, by `name{labels}` as rendered.
    pub(crate) async fn metrics(&self) -> BTreeMap<String, f64> {
        let text = self.observe("/metrics").await.text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect()
    }

    /// Calls of a service that ended with this outcome.
    pub(crate) async fn calls(&self, service: &str, outcome: &str) -> u64 {
        let name = format!("outrigger_calls_total{{outcome=\"{outcome}\",service=\"{service}\"}}");
        self.metrics().await.get(&name).copied().unwrap_or(0.0) as u64
    }

    /// Attempts of a service that ended with this outcome.
    pub(crate) async fn attempts(&self, service: &str, outcome: &str) -> u64 {
        let name = format!("outrigger_attempts_total{{outcome=\"{outcome}\",service=\"{service}\"}}");
        self.metrics().await.get(&name).copied().unwrap_or(0.0) as u64
    }

    /// Nothing is held any more: no call in a bulkhead, no attempt at an endpoint.
    pub(crate) async fn is_quiet(&self, service: &str) -> bool {
        let view = self.view(service).await;
        view.bulkhead.is_none_or(|bulkhead| bulkhead.in_flight == 0 && bulkhead.queued == 0)
            && view.endpoints.iter().all(|endpoint| endpoint.in_flight == 0)
    }

    /// Waits until no app's connection is open.
    pub(crate) async fn drained(&self) {
        eventually("all connections of apps to be closed", async || self.open("", "downstream").await == 0).await;
    }

    /// Stops gracefully, off this runtime.
    pub(crate) async fn stop(mut self) {
        let running = self.running.take().unwrap();
        tokio::task::spawn_blocking(|| running.stop()).await.unwrap();
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Stopping waits for calls in flight, and this thread may be the one that plays their upstream.
        if let Some(running) = self.running.take() {
            std::thread::spawn(|| drop(running));
        }
    }
}
