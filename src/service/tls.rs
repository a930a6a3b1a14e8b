//! The TLS of all services: one [`Client`] for those whose settings are the same, and a look at the files of all
//! of them.

use std::sync::Arc;

use super::Services;
use crate::{
    config,
    net::tls::{Client, FileError},
    telemetry::Metrics,
};

/// Clients by their settings.
#[derive(Debug, Default)]
pub(super) struct Clients(Vec<Arc<Client>>);

impl Clients {
    /// The client for these settings: one that is there, one of `old`'s, or a new one.
    ///
    /// # Errors
    /// The certificates cannot be read.
    pub(super) fn get(&mut self, settings: &config::Tls, old: Option<&Self>) -> Result<Arc<Client>, FileError> {
        let find = |clients: &Self| clients.0.iter().find(|client| client.settings() == settings).cloned();
        if let Some(client) = find(self) {
            return Ok(client);
        }
        let client = match old.and_then(find) {
            Some(client) => client,
            None => Arc::new(Client::new(settings)?),
        };
        self.0.push(client.clone());
        Ok(client)
    }
}

/// An error with the key that it belongs to.
pub(super) fn at(key: &str, error: &FileError) -> FileError {
    FileError(format!("{key}: {error}"))
}

impl Services {
    /// Takes over certificates and keys that have changed on disk, for connections to come, and says so in the log.
    /// Tells the metrics when they expire. Opens files: for the control thread, once in a while.
    pub fn refresh_certificates(&self, metrics: &Metrics) {
        let told = |whose: &str, result: Result<(), FileError>| match result {
            Ok(()) => tracing::info!(whose, "took over new certificates"),
            Err(error) => tracing::warn!(whose, %error, "new certificates cannot be used, the old ones stay"),
        };
        for client in &self.clients.0 {
            if let Some(result) = client.refresh() {
                let same =
                    |service: &&Arc<super::Service>| service.tls.as_ref().is_some_and(|tls| Arc::ptr_eq(tls, client));
                let names: Vec<_> = self.list.iter().filter(same).map(|service| service.name().as_str()).collect();
                told(&names.join(", "), result);
            }
        }
        if let Some(result) = self.inbound.as_ref().and_then(|inbound| inbound.tls()?.refresh()) {
            told(config::Inbound::NAME, result);
        }
        let inbound = || Some((config::Inbound::NAME, self.inbound.as_ref()?.tls()?.not_after()?));
        let of_service = |service: &Arc<super::Service>| service.tls.as_ref().and_then(|tls| tls.not_after());
        let shown = self.list.iter().filter_map(|service| Some((service.name().as_str(), of_service(service)?)));
        shown.chain(inbound()).for_each(|(service, at)| metrics.certificate_expires(service, at));
    }
}
