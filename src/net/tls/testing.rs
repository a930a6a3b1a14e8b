//! What the tests share: authorities, their certificates in files, and peers of other makes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{Accepted, Chosen, Client, HandshakeError, Offer, Server, provider};
use crate::{
    config::{self, InboundTls, PeerName, Tls, TlsVersion},
    net::stream::Stream,
};

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) cert: String,
    pub(super) key: String,
}

/// Somebody who signs certificates.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(Self::params(name), KeyPair::generate().unwrap()).unwrap())
    }

    /// One that this one vouches for.
    pub(super) fn intermediate(&self, name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = Self::params(name);
        adjust(&mut params);
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names: URIs, IP addresses, DNS names.
    pub(super) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_as(names, |_| ())
    }

    pub(super) fn issue_as(&self, names: &[&str], adjust: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(|name| san(name)).collect();
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }
}

fn san(name: &str) -> SanType {
    match name.parse() {
        Ok(ip) => SanType::IpAddress(ip),
        Err(_) if name.contains("://") => SanType::URI(name.try_into().unwrap()),
        Err(_) => SanType::DnsName(name.try_into().unwrap()),
    }
}

/// Makes a certificate valid from so many seconds from now, to so many.
pub(super) fn valid(from: i64, to: i64) -> impl FnOnce(&mut CertificateParams) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = move |offset: i64| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now.checked_add_signed(offset).unwrap())
    };
    move |params| {
        params.not_before = at(from);
        params.not_after = at(to);
    }
}

pub(super) const DAY: i64 = 86_400;

/// A folder with files, gone after the test.
pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub(super) fn pair(&self, name: &str, pair: &Pair) -> config::KeyPair {
        let cert = self.write(&format!("{name}.pem"), &pair.cert);
        config::KeyPair { cert, key: self.write(&format!("{name}.key"), &pair.key) }
    }
}

/// The settings of a client that trusts a file, and is nobody.
pub(super) fn tls(ca: &Path) -> Tls {
    Tls { ca: Some(ca.into()), identity: None, name: None, min_version: TlsVersion::V1_2, unverified: false }
}

pub(super) fn named(ca: &Path, name: PeerName) -> Tls {
    Tls { name: Some(name), ..tls(ca) }
}

pub(super) fn inbound(identity: config::KeyPair, ca: Option<&Path>) -> InboundTls {
    InboundTls { identity, ca: ca.map(Into::into), min_version: TlsVersion::V1_2 }
}

/// A connection of TCP, both ends.
pub(super) async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    sockets_of(&listener).await
}

/// One more connection to the same listener.
pub(super) async fn sockets_of(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

pub(super) type Connected = Result<(Stream, Chosen), HandshakeError>;

/// A handshake between both of ours. Whoever fails closes.
pub(super) async fn shake(
    client: &Client,
    host: &str,
    offer: Offer,
    server: &Server,
) -> (Connected, Result<Accepted, HandshakeError>) {
    let (near, far) = sockets().await;
    tokio::join!(client.connect(near, host, offer), server.accept(far))
}

/// What the client learns of a peer that shows this certificate.
pub(super) async fn verdict(settings: &Tls, host: &str, shown: &Pair) -> Result<(), String> {
    let client = Client::new(settings).unwrap();
    let (near, far) = sockets().await;
    let server = TlsAcceptor::from(Arc::new(raw_server(rustls::ALL_VERSIONS, shown, None)));
    let (connected, accepted) = tokio::join!(client.connect(near, host, Offer::Either), server.accept(far));
    assert_eq!(connected.is_ok(), accepted.is_ok(), "{connected:?}, {accepted:?}");
    connected.map(|_| ()).map_err(|error| error.0)
}

/// One byte from the server to the client: the tickets of TLS 1.3 come before it.
pub(super) async fn byte(client: &mut Stream, server: &mut Stream) {
    let mut taken = [0];
    let (read, written) = tokio::join!(client.read_exact(&mut taken), async {
        server.write_all(b"!").await?;
        server.flush().await
    });
    read.unwrap();
    written.unwrap();
}

/// How a handshake was done.
pub(super) fn kind(stream: &Stream) -> HandshakeKind {
    let Stream::Secure(stream) = stream else { panic!("this is not secure") };
    match &**stream {
        TlsStream::Client(stream) => stream.get_ref().1.handshake_kind().unwrap(),
        TlsStream::Server(stream) => stream.get_ref().1.handshake_kind().unwrap(),
    }
}

pub(super) fn chain_of(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

pub(super) fn key_of(pem: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap()
}

pub(super) fn roots_of(pem: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain_of(pem));
    Arc::new(roots)
}

/// A server that is not ours.
pub(super) fn raw_server(
    versions: &[&'static SupportedProtocolVersion],
    shown: &Pair,
    callers: Option<&Authority>,
) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let builder = match callers {
        Some(authority) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots_of(&authority.pem()), provider()).build().unwrap(),
        ),
        None => builder.with_no_client_auth(),
    };
    builder.with_single_cert(chain_of(&shown.cert), key_of(&shown.key)).unwrap()
}

/// A client that is not ours.
pub(super) fn raw_client(
    versions: &[&'static SupportedProtocolVersion],
    trusted: &Authority,
    shown: Option<&Pair>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(roots_of(&trusted.pem()));
    match shown {
        Some(shown) => builder.with_client_auth_cert(chain_of(&shown.cert), key_of(&shown.key)).unwrap(),
        None => builder.with_no_client_auth(),
    }
}

/// Connects to a server of ours with a client that is not: both ends, or both failures.
pub(super) async fn call(
    config: &Arc<ClientConfig>,
    server: &Server,
) -> (std::io::Result<Stream>, Result<Accepted, HandshakeError>) {
    let (near, far) = sockets().await;
    let connector = TlsConnector::from(Arc::clone(config));
    let connect = async {
        let stream = connector.connect("me".try_into().unwrap(), near).await?;
        Ok(Stream::Secure(Box::new(TlsStream::Client(stream))))
    };
    tokio::join!(connect, server.accept(far))
}
