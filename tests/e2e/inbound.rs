//! The receiving side: who may call our own app, what it is told of them, and two sidecars back to back.

use std::net::SocketAddr;

use tokio::sync::mpsc;

use crate::support::{
    Client, Held, Origin, Process, Sidecar, free,
    http2::{self, App, Stream, answer, get},
    origin::ok,
    tls::Authority,
    within,
};

/// A sidecar before `app` that shows a certificate and asks for one; `rest` is more of its `inbound`.
async fn called(authority: &Authority, app: SocketAddr, rest: &str) -> (Sidecar, SocketAddr) {
    let at = free();
    (Sidecar::start(&called_yaml(authority, at, app, rest)).await, at)
}

fn called_yaml(authority: &Authority, at: SocketAddr, app: SocketAddr, rest: &str) -> String {
    let (pair, ca) = (authority.pair("orders", "orders.internal"), authority.ca());
    let tls = format!("{pair}, ca: '{}'", ca.display());
    format!("inbound: {{listen: '{at}', app: '{app}', tls: {{{tls}}}{rest}}}\nservices: {{x: {{static: ['{app}']}}}}")
}

/// A sidecar whose service `a` is behind that one, as `name`; `None` shows no certificate.
async fn calling(authority: &Authority, at: SocketAddr, name: Option<&str>, rest: &str) -> Sidecar {
    let me = name.map_or_else(String::new, |name| format!(", {}", authority.pair("me", name)));
    let tls = format!("ca: '{}', name: orders.internal{me}", authority.ca().display());
    Sidecar::start(&format!("services: {{a: {{static: ['{at}'], tls: {{{tls}}}{rest}}}}}")).await
}

/// Without TLS, on loopback.
async fn plain(app: SocketAddr, rest: &str) -> (Sidecar, SocketAddr) {
    let at = free();
    let yaml = format!("inbound: {{listen: '{at}', app: '{app}'{rest}}}\nservices: {{x: {{static: ['{app}']}}}}");
    (Sidecar::start(&yaml).await, at)
}

fn caller_in(head: &str) -> Vec<String> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(name, _)| name.eq_ignore_ascii_case("x-outrigger-caller")).map(|(_, v)| v.trim().into()).collect()
}

const FORGED: &str = "X-Outrigger-Caller: admin\r\nConnection: x-outrigger-caller\r\n";

#[tokio::test]
async fn two_sidecars_tell_the_app_who_calls_over_1() {
    let authority = Authority::new("ours");
    let (app, mut seen) = Origin::recording(ok("hello")).await;
    let (callee, at) = called(&authority, app.addr(), "").await;
    for name in ["web.internal", "spiffe://prod/web"] {
        let caller = calling(&authority, at, Some(name), ", protocol: http1").await;
        for lines in ["", FORGED, "X-Outrigger-Caller: admin\r\nX-Outrigger-Caller: root\r\n"] {
            let reply = caller.client().await.get("a", "/x", lines).await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "hello"), "{}", reply.text());
            let head = seen.recv().await.unwrap();
            assert_eq!(caller_in(&head), [name], "{head}");
        }
        caller.settles("a", &[("ok", 3)]).await;
    }
    callee.settles("inbound", &[("ok", 6)]).await;
}

#[tokio::test]
async fn two_sidecars_tell_the_app_who_calls_over_2() {
    let authority = Authority::new("ours");
    let (callers, mut seen) = mpsc::channel(8);
    let app = http2::origin(move |stream: Stream| {
        let callers = callers.clone();
        async move {
            let headers = stream.request.headers().get_all("x-outrigger-caller");
            let names: Vec<_> = headers.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
            callers.send(names).await.unwrap();
            http2::echo(stream).await;
        }
    })
    .await;
    let (callee, at) = called(&authority, app.addr(), "").await;
    let caller = calling(&authority, at, Some("web.internal"), "").await;
    let client = App::connect(caller.http()).await;
    let mut request = http2::post("a", "/");
    request.headers_mut().insert("x-outrigger-caller", "admin".parse().unwrap());
    let (response, mut upload) = client.open(request, false).await;
    upload.send_data("body".into(), false).unwrap();
    upload.send_trailers(crate::grpc::status("0")).unwrap();
    let reply = answer(response).await;
    assert_eq!((reply.text().as_str(), reply.trailer("grpc-status")), ("body", Some("0")));
    assert_eq!(seen.recv().await.unwrap(), ["web.internal"]);
    callee.settles("inbound", &[("ok", 1)]).await;
}

#[tokio::test]
async fn who_is_not_on_the_list_is_refused_in_his_own_words() {
    let authority = Authority::new("ours");
    let app = Origin::ok("hello").await;
    let (callee, at) = called(&authority, app.addr(), ", allow: [web.internal, 'spiffe://prod/web']").await;
    for name in ["web.internal", "spiffe://prod/web"] {
        let caller = calling(&authority, at, Some(name), "").await;
        assert_eq!(caller.get("a", "/").await.text(), "hello", "{name}");
    }
    let caller = calling(&authority, at, Some("batch.internal"), "").await;
    let reply = caller.client().await.get("a", "/", "X-Outrigger-Caller: web.internal\r\n").await;
    assert_eq!((reply.status, reply.reason().as_str()), (403, "not_allowed"));
    assert!(reply.text().contains("batch.internal"), "{}", reply.text());
    let client = App::connect(caller.http()).await;
    let mut request = http2::post("a", "/");
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let reply = client.call(request, "").await;
    assert_eq!((reply.status, reply.head_only, reply.header("grpc-status")), (200, true, Some("7")), "{reply:?}");
    assert_eq!(app.requests(), 2, "the app has seen no more");
    callee.settles("inbound", &[("ok", 2), ("not_allowed", 2)]).await;
    caller.settles("a", &[("ok", 2)]).await;
}

#[tokio::test]
async fn who_shows_no_certificate_or_a_strangers_is_turned_away() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let app = Origin::ok("hello").await;
    let (callee, at) = called(&ours, app.addr(), "").await;
    let caller = calling(&ours, at, None, "").await;
    let reply = caller.get("a", "/").await;
    assert_eq!((reply.status, reply.reason().as_str()), (502, "tls_failed"), "{}", reply.text());
    assert!(reply.text().contains("asks for our certificate"), "{}", reply.text());

    let stranger = theirs.pair("me", "web.internal");
    let tls = format!("ca: '{}', name: orders.internal, {stranger}", ours.ca().display());
    let caller = Sidecar::start(&format!("services: {{a: {{static: ['{at}'], tls: {{{tls}}}}}}}")).await;
    assert_eq!(caller.get("a", "/").await.reason(), "tls_failed");

    // Plain text does not get through either.
    let mut client = Client::connect(at).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let said = client.closed().await;
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    assert_eq!(app.requests(), 0);
    callee.settles("inbound", &[("tls_failed", 3)]).await;
}

#[tokio::test]
async fn without_tls_nobody_is_named_and_nothing_forged_gets_in() {
    let (app, mut seen) = Origin::recording(ok("hello")).await;
    let (callee, at) = plain(app.addr(), "").await;
    let reply = Client::connect(at).await.get("whatever", "/x?y", FORGED).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    let head = seen.recv().await.unwrap();
    assert!(head.starts_with("GET /x?y HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("\r\nhost: whatever\r\n"), "what the caller asked for: {head}");
    assert!(caller_in(&head).is_empty(), "{head}");
    callee.settles("inbound", &[("ok", 1)]).await;
}

#[tokio::test]
async fn http_2_gets_in_without_tls() {
    let app = http2::origin(http2::echo).await;
    let (callee, at) = plain(app.addr(), "").await;
    let client = App::connect(at).await;
    assert_eq!(client.call(http2::post("orders", "/"), "body").await.text(), "body");
    assert_eq!(client.call(get("orders", "/"), "").await.status, 200);
    callee.settles("inbound", &[("ok", 2)]).await;
}

#[tokio::test]
async fn its_bulkhead_and_its_time_are_its_own() {
    let app = Held::start().await;
    let (callee, at) = plain(app.addr(), ", bulkhead: 1").await;
    let mut first = Client::connect(at).await;
    first.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await;
    app.has_read(1).await;
    let reply = Client::connect(at).await.get("a", "/second", "").await;
    assert_eq!((reply.status, reply.reason().as_str()), (503, "bulkhead_full"));
    app.release(1);
    assert_eq!(first.reply().await.text(), "/first");
    callee.settles("inbound", &[("ok", 1), ("bulkhead_full", 1)]).await;

    let (callee, at) = plain(app.addr(), ", timeout: 1s").await;
    let reply = Client::connect(at).await.get("a", "/late", "").await;
    assert_eq!((reply.status, reply.reason().as_str()), (504, "request_timeout"));
    callee.settles("inbound", &[("request_timeout", 1)]).await;
}

#[tokio::test]
async fn an_app_that_is_not_there_is_said_to_be_so() {
    let gone = free();
    let (callee, at) = plain(gone, "").await;
    for _ in 0..30 {
        // There is no breaker before our own app.
        let reply = Client::connect(at).await.get("a", "/", "").await;
        assert_eq!((reply.status, reply.reason().as_str()), (502, "connect_refused"));
    }
    callee.settles("inbound", &[("connect_refused", 30)]).await;
}

#[tokio::test]
async fn a_service_may_call_itself_through_its_own_sidecar() {
    let app = Origin::ok("hello").await;
    let at = free();
    let yaml = format!("inbound: {{listen: '{at}', app: '{}'}}\nservices: {{a: {{static: ['{at}']}}}}", app.addr());
    let sidecar = Sidecar::start(&yaml).await;
    let reply = sidecar.get("a", "/").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"), "this is no loop");
    sidecar.settles("a", &[("ok", 1)]).await;
    sidecar.settles("inbound", &[("ok", 1)]).await;

    // This is one: an app that leads back to the receiving side before it.
    let at = free();
    let relay = Origin::scripted(move |mut exchange| async move {
        let mut back = tokio::net::TcpStream::connect(at).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut exchange.stream, &mut back).await;
    })
    .await;
    let yaml = format!("inbound: {{listen: '{at}', app: '{0}'}}\nservices: {{x: {{static: ['{0}']}}}}", relay.addr());
    let _sidecar = Sidecar::start(&yaml).await;
    let reply = Client::connect(at).await.get("a", "/", "").await;
    assert_eq!((reply.status, reply.reason().as_str()), (508, "loop"));
}

#[tokio::test]
async fn a_reload_changes_who_may_call() {
    let authority = Authority::new("ours");
    let app = Origin::ok("hello").await;
    let at = free();
    let yaml = |allow: &str| called_yaml(&authority, at, app.addr(), allow);
    let process = Process::start(&yaml("")).await;
    let caller = calling(&authority, at, Some("web.internal"), "").await;
    let mut client = caller.client().await;
    assert_eq!(client.get("a", "/", "").await.text(), "hello");
    for (allow, status) in [(", allow: [other.internal]", 403), (", allow: [web.internal]", 200)] {
        let reply = process.reload(&yaml(allow)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        within("the new list", async { while client.get("a", "/", "").await.status != status {} }).await;
    }
}
