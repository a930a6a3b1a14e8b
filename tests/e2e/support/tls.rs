//! Authorities, certificates in files, and an upstream under TLS that is not ours.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{Origin, http2, origin::ok};

/// Somebody who signs certificates, and a folder for them.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate and its key, in PEM.
pub(crate) struct Pair {
    cert: String,
    key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// Where its own certificate lies.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a DNS name or a URI.
    pub(crate) fn issue(&self, name: &str) -> Pair {
        self.issue_as(name, |_| ())
    }

    /// One that ended in 1999.
    pub(crate) fn issue_expired(&self, name: &str) -> Pair {
        self.issue_as(name, |params| {
            params.not_before = rcgen::date_time_ymd(1998, 1, 1);
            params.not_after = rcgen::date_time_ymd(1999, 1, 1);
        })
    }

    fn issue_as(&self, name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match name.contains("://") {
            true => SanType::URI(name.try_into().unwrap()),
            false => SanType::DnsName(name.try_into().unwrap()),
        }];
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// Writes a pair as `NAME.pem` and `NAME.key`, each at once as a whole; as YAML, `cert: FILE, key: FILE`.
    pub(crate) fn put(&self, name: &str, pair: &Pair) -> String {
        let put = |ending: &str, content: &str| {
            let (path, fresh) = (self.path(&format!("{name}.{ending}")), self.path("fresh"));
            std::fs::write(&fresh, content).unwrap();
            std::fs::rename(&fresh, &path).unwrap();
            path
        };
        format!("cert: '{}', key: '{}'", put("pem", &pair.cert).display(), put("key", &pair.key).display())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Issues and writes.
    pub(crate) fn pair(&self, file: &str, name: &str) -> String {
        self.put(file, &self.issue(name))
    }
}

impl Pair {
    /// The certificate as it is shown.
    pub(crate) fn shown(&self) -> Vec<u8> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap().to_vec()
    }
}

/// A server with this certificate that speaks these protocols, and wants callers' certificates if it has a `ca`.
pub(crate) fn server(shown: &Pair, ca: Option<&Path>, alpn: &[&str]) -> TlsAcceptor {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates([CertificateDer::from_pem_file(ca).unwrap()]);
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap(),
            )
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(shown.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// An upstream that answers with the protocol that was agreed, and tells the certificate that each connection's
/// caller showed (empty without one). `/close` also ends an HTTP/1.1 connection; `/hold` waits for `go`.
pub(crate) async fn origin(
    acceptor: TlsAcceptor,
    go: Arc<tokio::sync::Semaphore>,
) -> (Origin, mpsc::Receiver<Vec<u8>>) {
    let (callers, seen) = mpsc::channel(1024);
    let origin = Origin::scripted(move |exchange| {
        let (acceptor, callers, go) = (acceptor.clone(), callers.clone(), go.clone());
        async move {
            let Ok(stream) = acceptor.accept(exchange.stream).await else { return };
            let connection = stream.get_ref().1;
            let caller = connection.peer_certificates().map_or_else(Vec::new, |chain| chain[0].to_vec());
            let _ = callers.try_send(caller);
            match connection.alpn_protocol() {
                Some(b"h2") => http2::serve(stream, Arc::new(|mut s: http2::Stream| async move { s.ok("h2") })).await,
                _ => http1(stream, &go).await,
            }
        }
    })
    .await;
    (origin, seen)
}

async fn http1(mut stream: TlsStream<TcpStream>, go: &tokio::sync::Semaphore) {
    let mut buffer = Vec::new();
    while stream.read_buf(&mut buffer).await.is_ok_and(|n| n > 0) {
        if !buffer.ends_with(b"\r\n\r\n") {
            continue;
        }
        let head = String::from_utf8_lossy(&std::mem::take(&mut buffer)).into_owned();
        if head.starts_with("GET /hold ") {
            go.acquire().await.unwrap().forget();
        }
        if stream.write_all(ok("http/1.1").as_bytes()).await.is_err() || head.starts_with("GET /close ") {
            let _ = stream.shutdown().await;
            return;
        }
    }
}
