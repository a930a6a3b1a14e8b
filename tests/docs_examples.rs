//! The examples of the pages on gRPC, TLS and the receiving side, run as they stand there.
//!
//! Each is taken out of its page; names that only a real network resolves become addresses of this test, the folder of
//! certificates becomes a temporary one, and ports become free ones. What is replaced has to be there: a page that
//! changes takes its test along.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{future::Future, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use outrigger::{app, config::Config, model::ServiceName};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// How long anything may take before a test calls it lost. Generous: it only ever passes on failure.
const PATIENCE: Duration = Duration::from_secs(20);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// The `number`th block (from 0) marked `yaml` of a page, with each first text replaced by the second.
fn example(page: &str, number: usize, replacements: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let block = text.split("```yaml\n").nth(number + 1).unwrap_or_else(|| panic!("{page} has no block {number}"));
    let mut yaml = block.split("```").next().unwrap().to_owned();
    for (from, to) in replacements {
        assert!(yaml.contains(from), "block {number} of {page} has no {from:?} any more:\n{yaml}");
        yaml = yaml.replace(from, to);
    }
    yaml
}

/// A sidecar on free ports; it stops when dropped.
struct Sidecar {
    running: Option<app::Sidecar>,
    addresses: app::Addresses,
    _folder: TempDir,
}

impl Sidecar {
    /// Starts, and waits until it is ready.
    async fn start(yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let admin = folder.path().join("admin.sock");
        let listen = format!(
            "workers: 1\nlisten: {{ http: '127.0.0.1:0', observe: '127.0.0.1:0', admin: '{}' }}\n",
            admin.display()
        );
        let loaded = Config::parse("docs", &(listen + yaml), &|_| None).unwrap_or_else(|error| panic!("{error}"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let running = app::Sidecar::start(loaded.config).unwrap();
        let sidecar = Self { addresses: running.addresses().clone(), running: Some(running), _folder: folder };
        within("readiness", async {
            while !get(sidecar.addresses.observe, "/health/ready", "").await.starts_with("HTTP/1.1 200 ") {}
        })
        .await;
        sidecar
    }

    fn own_port(&self, service: &str) -> SocketAddr {
        self.addresses.services[&ServiceName::parse(service).unwrap()]
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Stopping waits for calls in flight, whose other end may be this thread.
        if let Some(running) = self.running.take() {
            std::thread::spawn(|| drop(running));
        }
    }
}

/// An authority, and a folder with its certificate (`ca.pem`) and those that it has signed (`NAME.pem`, `NAME.key`).
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "our own authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// Signs a certificate for this URI.
    fn issue(&self, name: &str, uri: &str) -> &Self {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.folder.path().join(format!("{name}.pem")), cert.pem()).unwrap();
        std::fs::write(self.folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        self
    }

    /// What stands in the place of /etc/tls.
    fn folder(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// A server of another make, which asks its callers for a certificate of this authority.
    fn server(&self, name: &str) -> TlsAcceptor {
        let read = |file: String| std::fs::read(self.folder.path().join(file)).unwrap();
        let chain = |pem: Vec<u8>| CertificateDer::pem_slice_iter(&pem).map(Result::unwrap).collect::<Vec<_>>();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(chain(read("ca.pem".into())));
        let provider = Arc::new(ring::default_provider());
        let callers = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let key = PrivateKeyDer::from_pem_slice(&read(format!("{name}.key"))).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(callers)
            .with_single_cert(chain(read(format!("{name}.pem"))), key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Reads one request without a body, and answers with its head.
async fn echo_head(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", head.len());
    let _ = stream.write_all(&[answer.as_bytes(), &head].concat()).await;
    let _ = stream.shutdown().await;
}

/// A plain app of HTTP/1.1 that answers with the head of each request.
async fn app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo_head(stream));
        }
    });
    addr
}

/// A call as a plain app makes it: the whole answer.
async fn get(via: SocketAddr, path: &str, lines: &str) -> String {
    within("an answer", async {
        let mut stream = TcpStream::connect(via).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: payments\r\nconnection: close\r\n{lines}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    })
    .await
}

/// One message of gRPC without compression: a flag, its length, itself.
fn framed(message: &[u8]) -> Bytes {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat().into()
}

/// Reads a body to its end, and gives back the room that it took.
async fn collect(body: &mut h2::RecvStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    bytes
}

/// A gRPC server that sends each message back, and says NOT_FOUND of the method Missing.
async fn grpc_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(answer(request, respond));
                }
            });
        }
    });
    addr
}

async fn answer(mut request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    assert_eq!(request.headers()["te"], "trailers");
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let message = collect(request.body_mut()).await;
    let mut body = respond.send_response(head, false).unwrap();
    let mut trailers = HeaderMap::new();
    if request.uri().path().ends_with("/Missing") {
        trailers.insert("grpc-status", "5".parse().unwrap());
    } else {
        body.send_data(message.into(), false).unwrap();
        trailers.insert("grpc-status", "0".parse().unwrap());
    }
    body.send_trailers(trailers).unwrap();
}

/// A unary call: the message that came back, and the grpc-status wherever it stood.
async fn call(via: SocketAddr, authority: &str, method: &str, message: &[u8]) -> (Vec<u8>, String) {
    within("the end of a gRPC call", async {
        let stream = TcpStream::connect(via).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(format!("http://{authority}/docs.Orders/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (answer, mut upload) = client.ready().await.unwrap().send_request(request, false).unwrap();
        upload.send_data(framed(message), true).unwrap();
        let (head, mut body) = answer.await.unwrap().into_parts();
        assert_eq!(head.status, 200);
        let bytes = collect(&mut body).await;
        let trailers = body.trailers().await.unwrap();
        let status = trailers.as_ref().unwrap_or(&head.headers)["grpc-status"].to_str().unwrap().to_owned();
        (bytes, status)
    })
    .await
}

#[tokio::test]
async fn grpc_on_the_shared_port_and_on_one_of_its_own() {
    let server = format!("static: ['{}']", grpc_server().await);
    let sidecar = Sidecar::start(&example(
        "grpc.md",
        0,
        &[
            ("dns: orders:50051", &server),
            ("srv: _grpc._tcp.payments.internal", &server),
            ("127.0.0.1:7001", "127.0.0.1:0"),
        ],
    ))
    .await;
    let (shared, own) = (sidecar.addresses.http, sidecar.own_port("payments"));
    let echoed = (framed(b"hello").to_vec(), "0".to_owned());
    assert_eq!(call(shared, "orders", "Echo", b"hello").await, echoed);
    assert_eq!(call(own, "whatever.example", "Echo", b"hello").await, echoed);
    assert_eq!(call(own, "payments", "Missing", b"").await, (Vec::new(), "5".to_owned()));
    assert_eq!(call(shared, "nobody", "Echo", b"").await, (Vec::new(), "12".to_owned()), "no service bears the name");
}

/// An endpoint under TLS that asks for a certificate, and a sidecar before it as docs/tls.md has it.
async fn before_tls(authority: &Authority) -> Sidecar {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("static: ['{}']", listener.local_addr().unwrap());
    let acceptor = authority.server("payments");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let accepting = acceptor.accept(stream);
            tokio::spawn(async move {
                if let Ok(stream) = accepting.await {
                    echo_head(stream).await;
                }
            });
        }
    });
    let replacements = [("dns: payments.internal:8443", server.as_str()), ("/etc/tls", authority.folder())];
    Sidecar::start(&example("tls.md", 0, &replacements)).await
}

#[tokio::test]
async fn tls_with_an_endpoint_that_asks_who_calls() {
    let authority = Authority::new();
    authority.issue("orders", "spiffe://prod/orders").issue("payments", "spiffe://prod/payments");
    let sidecar = before_tls(&authority).await;
    let answer = get(sidecar.addresses.http, "/x", "").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("GET /x HTTP/1.1\r\n"), "{answer}");
}

#[tokio::test]
async fn an_endpoint_with_another_name_is_not_called() {
    let authority = Authority::new();
    authority.issue("orders", "spiffe://prod/orders").issue("payments", "spiffe://prod/ledger");
    let sidecar = before_tls(&authority).await;
    let answer = get(sidecar.addresses.http, "/x", "").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(answer.contains(r#"details="tls_failed""#), "{answer}");
    assert!(answer.contains("its certificate is for spiffe://prod/ledger, not for spiffe://prod/payments"), "{answer}");
}

/// Both sidecars as docs/inbound.md has them: the called one's, then the caller's.
async fn back_to_back(authority: &Authority) -> (Sidecar, Sidecar) {
    let app = app().await.to_string();
    let tls = ("/etc/tls", authority.folder());
    let called = [tls, ("0.0.0.0:8480", "127.0.0.1:0"), ("127.0.0.1:8080", app.as_str())];
    let called = Sidecar::start(&example("inbound.md", 1, &called)).await;
    let there = format!("static: ['{}']", called.addresses.inbound.unwrap());
    let caller = Sidecar::start(&example("inbound.md", 0, &[tls, ("dns: payments.internal:8480", &there)])).await;
    (called, caller)
}

#[tokio::test]
async fn two_sidecars_back_to_back() {
    let authority = Authority::new();
    authority.issue("orders", "spiffe://prod/orders").issue("payments", "spiffe://prod/payments");
    let (_called, caller) = back_to_back(&authority).await;
    let answer = get(caller.addresses.http, "/x", "x-outrigger-caller: spiffe://prod/root\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let told: Vec<_> = answer.lines().filter(|line| line.starts_with("x-outrigger-caller:")).collect();
    assert_eq!(told, ["x-outrigger-caller: spiffe://prod/orders"], "{answer}");
}

#[tokio::test]
async fn a_caller_whom_the_file_does_not_name_is_refused() {
    let authority = Authority::new();
    authority.issue("orders", "spiffe://prod/curious").issue("payments", "spiffe://prod/payments");
    let (_called, caller) = back_to_back(&authority).await;
    let answer = get(caller.addresses.http, "/x", "").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains(r#"details="not_allowed""#), "{answer}");
}

#[tokio::test]
async fn a_caller_of_another_authority_fails_at_the_handshake() {
    let (ours, another) = (Authority::new(), Authority::new());
    ours.issue("payments", "spiffe://prod/payments");
    another.issue("orders", "spiffe://prod/orders");
    for file in ["orders.pem", "orders.key"] {
        std::fs::copy(another.folder.path().join(file), ours.folder.path().join(file)).unwrap();
    }
    let (_called, caller) = back_to_back(&ours).await;
    let answer = get(caller.addresses.http, "/x", "").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(answer.contains(r#"details="tls_failed""#), "{answer}");
}
