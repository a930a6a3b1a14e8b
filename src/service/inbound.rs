//! The receiving side: our own app, as a service, and who may call it.

use std::sync::Arc;

use super::{Service, tls};
use crate::{
    config,
    net::tls::{FileError, Identity, Server},
};

/// What stands before our own app.
#[derive(Debug)]
pub struct Inbound {
    service: Arc<Service>,
    tls: Option<Arc<Server>>,
    allow: Option<Vec<Arc<str>>>,
}

impl Inbound {
    /// What a configuration says, with what `old` has of it already.
    ///
    /// # Errors
    /// The certificates cannot be read.
    pub(super) fn new(
        settings: &config::Inbound,
        service: Arc<Service>,
        old: Option<&Self>,
    ) -> Result<Self, FileError> {
        let tls = match &settings.tls {
            None => None,
            Some(wanted) => {
                let known = old.and_then(|old| old.tls.as_ref()).filter(|tls| tls.settings() == wanted);
                Some(match known {
                    Some(tls) => tls.clone(),
                    None => Arc::new(Server::new(wanted).map_err(|error| tls::at("inbound.tls", &error))?),
                })
            }
        };
        Ok(Self { service, tls, allow: settings.allow.clone() })
    }

    /// Our app, and the rules of calls to it.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// TLS with the callers, unless they speak in plain text.
    pub fn tls(&self) -> Option<&Arc<Server>> {
        self.tls.as_ref()
    }

    /// The name by which a caller may call; `None` when it may not. The empty name is of a caller that has none and
    /// needs none.
    pub fn admits<'a>(&self, identity: &'a Identity) -> Option<&'a str> {
        match &self.allow {
            None => Some(identity.names.first().map_or("", |name| name)),
            Some(allow) => {
                let known = |name: &&str| allow.iter().any(|allowed| is_same(allowed, name));
                identity.names.iter().map(|name| &**name).find(known)
            }
        }
    }
}

/// URIs are the same when they are equal, DNS names in whatever case (RFC 4343).
fn is_same(allowed: &str, name: &str) -> bool {
    if allowed.contains("://") { allowed == name } else { allowed.eq_ignore_ascii_case(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_what_they_are() {
        for (allowed, name, same) in [
            ("web.internal", "Web.Internal", true),
            ("web.internal", "web.internal.example", false),
            ("spiffe://prod/orders", "spiffe://prod/orders", true),
            ("spiffe://prod/orders", "spiffe://prod/Orders", false),
        ] {
            assert_eq!(is_same(allowed, name), same, "{allowed} {name}");
        }
    }
}
