//! Sessions with callers that can be resumed, without a memory of them: the caller keeps a ticket that only we can
//! read (RFC 5077, RFC 8446 §4.6.1).
//!
//! What is added to rustls's tickets is their end. A resumed session brings the caller's identity back without
//! looking at a certificate again, and a renewed ticket would bring it back for ever; so a ticket says when the
//! certificate expires that it stands on, and past that it is no longer read: the handshake is a full one, and the
//! caller shows what it has by now. That moment travels from the verifier, or from the old ticket, to the new
//! ticket by way of the task, the one thing that they have in common.

use std::{
    cell::Cell,
    future::Future,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::ring::Ticketer,
    pki_types::{CertificateDer, UnixTime},
    server::{
        ProducesTickets,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::validity;

tokio::task_local! {
    /// When the identity of the caller expires whose handshake is under way: seconds since 1970.
    static UNTIL: Cell<u64>;
}

/// Runs a handshake whose tickets end when the caller's certificate does.
pub(super) fn bounded<F: Future>(handshake: F) -> impl Future<Output = F::Output> {
    UNTIL.scope(Cell::new(u64::MAX), handshake)
}

/// Remembers how long the identity lasts of the caller whose handshake this is.
fn remember(until: u64) {
    let _ = UNTIL.try_with(|cell| cell.set(until));
}

/// Tickets that say when they end.
#[derive(Debug)]
pub(super) struct Tickets(Arc<dyn ProducesTickets>);

impl Tickets {
    /// Tickets that nobody else's are taken for: the keys are new, and change every six hours.
    pub(super) fn new() -> Result<Self, Error> {
        Ticketer::new().map(Self)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let until = UNTIL.try_with(Cell::get).ok()?;
        self.0.encrypt(&[&until.to_be_bytes(), plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let mut plain = self.0.decrypt(cipher)?;
        let until = u64::from_be_bytes(*plain.first_chunk()?);
        if until < UnixTime::now().as_secs() {
            return None;
        }
        remember(until);
        plain.drain(..size_of::<u64>());
        Some(plain)
    }
}

/// A verifier of callers that remembers until when the one that it has verified is good.
#[derive(Debug)]
pub(super) struct Witness(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Witness {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        // What cannot be read must not last.
        let until = validity::not_after(end_entity).unwrap_or(UNIX_EPOCH);
        remember(until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rustls::{
        ServerConfig,
        server::WebPkiClientVerifier,
        version::{TLS12, TLS13},
    };
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::{
        super::{
            provider,
            testing::{Authority, DAY, chain_of, key_of, raw_client, roots_of, sockets, valid},
        },
        *,
    };

    /// Writes down until when the identity lasts that each ticket brings back.
    #[derive(Debug)]
    struct Spy(Tickets, Mutex<Vec<u64>>);

    impl ProducesTickets for Spy {
        fn enabled(&self) -> bool {
            true
        }

        fn lifetime(&self) -> u32 {
            self.0.lifetime()
        }

        fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
            self.1.lock().unwrap().push(UNTIL.with(Cell::get));
            self.0.encrypt(plain)
        }

        fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
            self.0.decrypt(cipher)
        }
    }

    #[tokio::test]
    async fn a_ticket_and_each_that_renews_it_end_with_the_certificate() {
        let us = Authority::new("us");
        let (me, web) = (us.issue(&["me"]), us.issue_as(&["web"], valid(-DAY, DAY)));
        let end = validity::not_after(&chain_of(&web.cert)[0]).unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
        for version in [&TLS12, &TLS13] {
            let spy = Arc::new(Spy(Tickets::new().unwrap(), Mutex::default()));
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots_of(&us.pem()), provider()).build().unwrap();
            let mut config = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_client_cert_verifier(Arc::new(Witness(verifier)))
                .with_single_cert(chain_of(&me.cert), key_of(&me.key))
                .unwrap();
            config.ticketer = Arc::<Spy>::clone(&spy);
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let connector = TlsConnector::from(Arc::new(raw_client(&[version], &us, Some(&web))));
            for resumed in [false, true, true] {
                let (near, far) = sockets().await;
                let connect = async {
                    let mut stream = connector.connect("me".try_into().unwrap(), near).await.unwrap();
                    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut [0]).await.unwrap();
                };
                let accept = async {
                    let mut stream = bounded(acceptor.accept(far)).await.unwrap();
                    tokio::io::AsyncWriteExt::write_all(&mut stream, b"!").await.unwrap();
                    stream.get_ref().1.handshake_kind().unwrap() == rustls::HandshakeKind::Resumed
                };
                assert_eq!(tokio::join!(connect, accept).1, resumed, "{version:?}");
            }
            let ends = spy.1.lock().unwrap();
            assert!(ends.len() >= 3 && ends.iter().all(|until| *until == end), "{version:?}: {ends:?}, not {end}");
        }
    }

    #[tokio::test]
    async fn a_ticket_past_its_end_is_not_read() {
        let tickets = Tickets::new().unwrap();
        let now = UnixTime::now().as_secs();
        for (until, good) in [(now - 1, false), (0, false), (now + 60, true), (u64::MAX, true)] {
            let ticket = bounded(async {
                remember(until);
                tickets.encrypt(b"session").unwrap()
            });
            let ticket = ticket.await;
            let read = bounded(async { (tickets.decrypt(&ticket), UNTIL.with(Cell::get)) }).await;
            let expected = if good { (Some(b"session".to_vec()), until) } else { (None, u64::MAX) };
            assert_eq!(read, expected);
            assert_eq!(Tickets::new().unwrap().decrypt(&ticket), None, "a ticket of somebody else");
            assert_eq!(tickets.decrypt(&ticket[..ticket.len() - 1]), None, "a damaged ticket");
        }
        assert_eq!(tickets.encrypt(b"session"), None, "outside of a handshake nothing is known of an end");
    }
}
