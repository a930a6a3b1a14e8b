//! Sessions with endpoints that can be resumed, so that a new connection costs neither side a signature.
//!
//! rustls keeps sessions by the name of the server. Here the instances of a service all bear one name, and a
//! session of one is of no use to another, so each address has its own. What is offered to be spoken is part of
//! the key as well: a session that was agreed on for HTTP/2 is not offered where bytes are wanted.
//!
//! A resumed session stands on a certificate that nobody looks at again, so sessions are thrown away when it
//! expires. When the files change, all are: whom we trust and who we are have changed with them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::{ClientConfig, client::Resumption};

use super::{Offer, alpn, validity};

/// How many addresses are remembered, each for each offer. When there are more, all are forgotten: that costs
/// each endpoint one full handshake, and hardly any service has so many.
const MAX_ADDRESSES: usize = 1024;
/// The least that rustls takes for one server: eight TLS 1.3 tickets or one TLS 1.2 session.
const SESSIONS: usize = 8;

/// The configurations towards all endpoints of a service.
#[derive(Debug)]
pub(super) struct Sessions {
    base: ClientConfig,
    known: Mutex<HashMap<(SocketAddr, Offer), Arc<Known>>>,
}

/// The configuration towards one endpoint: like any other's, but with its own sessions.
#[derive(Debug)]
pub(super) struct Known {
    /// The configuration.
    pub(super) config: Arc<ClientConfig>,
    /// When the first of the certificates that its sessions stand on expires, in seconds since 1970.
    until: AtomicU64,
}

impl Sessions {
    pub(super) fn new(base: ClientConfig) -> Self {
        Self { base, known: Mutex::default() }
    }

    /// What there is towards an endpoint.
    pub(super) fn with(&self, addr: SocketAddr, offer: Offer) -> Arc<Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&(addr, offer))
            && seconds(SystemTime::now()) <= known.until.load(Ordering::Relaxed)
        {
            return Arc::clone(known);
        }
        if known.len() >= MAX_ADDRESSES {
            known.clear();
        }
        let mut config = self.base.clone();
        config.alpn_protocols = alpn(offer);
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        let fresh = Arc::new(Known { config: Arc::new(config), until: AtomicU64::new(u64::MAX) });
        known.insert((addr, offer), Arc::clone(&fresh));
        fresh
    }
}

impl Known {
    /// Takes note of the certificate that the endpoint has shown.
    pub(super) fn has_shown(&self, certificate: &[u8]) {
        if let Some(not_after) = validity::not_after(certificate) {
            self.until.fetch_min(seconds(not_after), Ordering::Relaxed);
        }
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rustls::version::TLS13;

    use super::{
        super::testing::{Authority, DAY, chain_of, raw_client, valid},
        *,
    };

    fn sessions() -> (Authority, Sessions) {
        let us = Authority::new("us");
        let base = raw_client(&[&TLS13], &us, None);
        (us, Sessions::new(base))
    }

    #[test]
    fn sessions_go_when_a_certificate_that_they_stand_on_has_expired() {
        let (us, sessions) = sessions();
        let addr = (Ipv4Addr::LOCALHOST, 1).into();
        let first = sessions.with(addr, Offer::Http1);
        for (ends, stays) in [(DAY, true), (1, true), (-1, false)] {
            first.has_shown(&chain_of(&us.issue_as(&["x"], valid(-DAY, ends)).cert)[0]);
            first.has_shown(&chain_of(&us.issue_as(&["x"], valid(-DAY, DAY)).cert)[0]);
            assert_eq!(Arc::ptr_eq(&first, &sessions.with(addr, Offer::Http1)), stays, "{ends}");
        }
    }

    #[test]
    fn addresses_without_end_take_no_memory_without_end() {
        let (_, sessions) = sessions();
        for port in 0..u16::MAX {
            sessions.with((Ipv4Addr::LOCALHOST, port).into(), Offer::Http2);
            assert!(sessions.known.lock().unwrap().len() <= MAX_ADDRESSES);
        }
    }
}
