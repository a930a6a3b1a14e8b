//! The responder as a part of a sidecar.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use hickory_resolver::proto::rr::RecordType;
use outrigger::{app, config::Config, vip::dns};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    loops::mirror,
    server::Server,
    support::{PATIENCE, Udp, query, short},
};

/// A port that is free at every address.
fn free() -> u16 {
    std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

/// A sidecar's configuration with its responder there.
fn config(folder: &tempfile::TempDir, dns: &str) -> Config {
    let admin = folder.path().join("admin.sock");
    let yaml = format!(
        "listen: {{ http: 0, observe: 0, admin: '{}', dns: '{dns}' }}\nvip: {{ state: off, ports: [{}] }}\ndns: {{ forward: off }}\n\
         services: {{ hidden: {{ static: ['127.0.0.1:9'], vip: off }} }}",
        admin.display(),
        free()
    );
    Config::parse("t.yaml", &yaml, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).config
}

#[tokio::test]
async fn a_sidecar_answers_names_until_it_has_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = app::Sidecar::start(config(&folder, "127.0.0.1:0")).unwrap();
    let address = sidecar.addresses().dns.unwrap();
    let udp = Udp::to(address).await;
    assert_eq!(short(&udp.ask(&query("hidden.vip.internal.", RecordType::A)).await), "NOERROR");
    assert_eq!(short(&udp.ask(&query("users.vip.internal.", RecordType::A)).await), "NXDOMAIN");
    assert_eq!(short(&udp.ask(&query("www.example.com.", RecordType::A)).await), "REFUSED");
    tokio::task::spawn_blocking(|| sidecar.stop()).await.unwrap();
    assert!(dns::bind(address).is_ok(), "its port is free again");
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let taken = dns::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let error = app::Sidecar::start(config(&folder, &taken.address().to_string())).unwrap_err().to_string();
    assert!(error.contains(&taken.address().to_string()) && error.contains("listen.dns"), "{error}");
    // UDP alone is enough to be in the way: systemd-resolved has both.
    let (udp, config) = (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), |dns: &str| config(&folder, dns));
    let error = app::Sidecar::start(config(&udp.local_addr().unwrap().to_string())).unwrap_err().to_string();
    assert!(error.contains("listen.dns") && error.contains("another process has it"), "{error}");
}

/// What the observe port says of a service.
async fn view(observe: SocketAddr, service: &str) -> String {
    let mut stream = TcpStream::connect(observe).await.unwrap();
    let request = format!("GET /api/services/{service} HTTP/1.1\r\nHost: observe\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

/// As in compose with `dns: 127.0.0.1`: the resolver that the sidecar asks knows containers, and asks the sidecar for the
/// rest. A service without containers must not find itself, and the rest of the world is found behind the sidecar.
#[tokio::test]
async fn a_service_never_becomes_an_endpoint_of_itself() {
    let back = Arc::new(OnceLock::new());
    let docker = mirror(false, back.clone());
    let world = Server::start().await;
    world.a("far.example", &["192.0.2.7"]);
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!(
        "listen: {{ http: 0, observe: 0, admin: '{}', dns: '127.0.0.1:0' }}\nvip: {{ state: off, ports: [{}] }}\n\
         resolver: {{ servers: ['{}'], ttl: {{ min: 10ms, max: 50ms }} }}\ndns: {{ bare: on, forward: ['{}'] }}\n\
         services: {{ gone: {{ dns: 'gone:80' }}, far: {{ dns: 'far.example:80' }}, known: {{ dns: 'known:80' }} }}",
        folder.path().join("admin.sock").display(),
        free(),
        docker.addr,
        world.addr
    );
    let config = Config::parse("t.yaml", &yaml, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).config;
    let sidecar = app::Sidecar::start(config).unwrap();
    back.set(sidecar.addresses().dns.unwrap()).unwrap();
    let observe = sidecar.addresses().observe;
    let shows = |service: &'static str, text: &'static str| async move {
        let wait = async {
            while !view(observe, service).await.contains(text) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{service} shows no {text}"));
    };
    shows("known", "10.0.0.1:80").await;
    shows("far", "192.0.2.7:80").await;
    shows("gone", "NXDOMAIN").await;
    let gone = view(observe, "gone").await;
    assert!(gone.contains(r#""endpoints":[]"#), "{gone}");
    let asked: Vec<_> = world.log().into_iter().map(|asked| asked.name).collect();
    assert!(asked.contains(&"gone".to_owned()), "{asked:?}");
    tokio::task::spawn_blocking(|| sidecar.stop()).await.unwrap();
}

/// From a name to an answer: what the responder says leads to the service, also to one that is made by the question.
#[tokio::test]
async fn the_address_that_is_answered_serves() {
    let resolver = Server::start().await;
    resolver.a("made.test", &["127.0.0.1"]);
    let origin = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = origin.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut app, _)) = origin.accept().await {
            let mut head = [0; 1024];
            let _ = app.read(&mut head).await;
            let _ = app.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi").await;
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let port = free();
    let yaml = format!(
        "listen: {{ http: 0, observe: 0, admin: '{}', dns: '127.0.0.1:0' }}\nvip: {{ state: off, ports: [{port}] }}\n\
         resolver: {{ servers: ['{}'] }}\ndns: {{ forward: off }}\n\
         services: {{ named: {{ static: ['{endpoint}'], aliases: [other.name] }}, '*': {{ dns: '{{name}}.test:{}' }} }}",
        folder.path().join("admin.sock").display(),
        resolver.addr,
        endpoint.port()
    );
    let config = Config::parse("t.yaml", &yaml, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).config;
    let sidecar = app::Sidecar::start(config).unwrap();
    let udp = Udp::to(sidecar.addresses().dns.unwrap()).await;
    for name in ["named.vip.internal.", "OTHER.name.vip.internal.", "made.vip.internal."] {
        let answer = udp.ask(&query(name, RecordType::A)).await;
        let address = answer.answers.first().unwrap_or_else(|| panic!("{name}: {answer:?}")).data.ip_addr().unwrap();
        let mut app = TcpStream::connect((address, port)).await.unwrap();
        app.write_all(b"GET / HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut reply = String::new();
        app.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("hi"), "{name}: {reply}");
        // And the other way: for `named` and its alias it is one name.
        if name.starts_with("made") {
            assert_eq!(short(&udp.ask(&query("made.vip.internal.", RecordType::AAAA)).await), "NOERROR");
        }
    }
    assert_eq!(short(&udp.ask(&query("nobody.vip.internal.", RecordType::A)).await), "NXDOMAIN");
    tokio::task::spawn_blocking(|| sidecar.stop()).await.unwrap();
}
