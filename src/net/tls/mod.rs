//! TLS: our side of it as a client of endpoints ([`Client`]) and as a server of callers ([`Server`]).
//!
//! rustls does the protocol, with ring beneath. What is added here: files become configurations (`files`, `pem`,
//! `roots`), and become them anew when they change on disk; the peer is verified by a host name, or by a URI in its
//! certificate (`verify`); sessions are resumed, but never beyond the certificate that they stand on (`sessions`
//! with endpoints, `tickets` with callers, `validity`); a failure says in words what is wrong (`failure`), and the
//! caller learns of it too (`part`).
//!
//! Left out: revocation lists, OCSP and early data. Certificates that live for hours make the first two needless,
//! and early data can be replayed.

mod client;
mod failure;
mod files;
mod part;
mod pem;
mod roots;
mod server;
mod sessions;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tickets;
mod validity;
mod verify;

use std::sync::{Arc, LazyLock};

use rustls::{
    SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    version::{TLS12, TLS13},
};

pub use client::Client;
pub use failure::failure_of;
pub use server::{Accepted, Server};

use crate::config::TlsVersion;

/// What is to be spoken under TLS, as ALPN (RFC 7301) says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Offer {
    /// `http/1.1` alone.
    Http1,
    /// `h2` alone.
    Http2,
    /// `h2`, or else `http/1.1`.
    Either,
    /// Nothing: what is spoken is none of ours.
    Bytes,
}

/// What a peer chose of an [`Offer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// `http/1.1`.
    Http1,
    /// `h2`.
    Http2,
    /// It knows no ALPN.
    Nothing,
}

/// Why files do not make a configuration, in words that name the file.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct FileError(pub String);

/// Why a handshake failed, in words for an operator: "the certificate expired 3 days ago".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandshakeError(pub String);

/// Who the peer is: the URIs and then the DNS names of its certificate's subject alternative names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// In the order in which the certificate has them, URIs first, all in visible ASCII; none when it has shown no
    /// certificate.
    pub names: Arc<[Box<str>]>,
}

const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// The protocol names of an offer, the best first.
fn alpn(offer: Offer) -> Vec<Vec<u8>> {
    match offer {
        Offer::Http1 => vec![HTTP1.to_vec()],
        Offer::Http2 => vec![HTTP2.to_vec()],
        Offer::Either => vec![HTTP2.to_vec(), HTTP1.to_vec()],
        Offer::Bytes => vec![],
    }
}

/// What the peers have agreed on; rustls has seen to it that it was offered.
fn chosen(alpn: Option<&[u8]>) -> Chosen {
    match alpn {
        Some(HTTP1) => Chosen::Http1,
        Some(HTTP2) => Chosen::Http2,
        _ => Chosen::Nothing,
    }
}

fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static FROM_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
    match oldest {
        TlsVersion::V1_2 => &FROM_1_2,
        TlsVersion::V1_3 => &FROM_1_3,
    }
}

/// ring, passed wherever rustls would otherwise look for a default of the whole process, which belongs to
/// whoever's process it is. Of the ciphers the 128-bit ones come first, as in BoringSSL and Go: they cost a
/// quarter less, and nobody breaks either.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = ring::default_provider();
        provider.cipher_suites.sort_by_key(|suite| {
            let tls12 = suite.tls13().is_none();
            (tls12, !is_aes_128(suite))
        });
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

fn is_aes_128(suite: &SupportedCipherSuite) -> bool {
    suite.suite().as_str().is_some_and(|name| name.contains("AES_128"))
}
