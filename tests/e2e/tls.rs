//! TLS to endpoints: who is believed, who we say that we are, and what changes on disk.

use std::sync::Arc;

use outrigger::{app, config::Config};
use tokio::sync::{Semaphore, mpsc};

use crate::support::{
    Origin, Process, Sidecar, eventually,
    http2::App,
    tls::{self, Authority, server},
    within,
};

const BOTH: &[&str] = &["h2", "http/1.1"];

fn at_once() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

/// One service, `a`, under TLS with these keys.
async fn before(origin: &Origin, tls: &str) -> Sidecar {
    Sidecar::before(origin, &format!(", tls: {{{tls}}}")).await
}

fn trusting(authority: &Authority) -> String {
    format!("ca: '{}', name: orders.internal", authority.ca().display())
}

/// The `detail` of a `tls_failed`.
async fn refusal(sidecar: &Sidecar) -> String {
    let reply = sidecar.get("a", "/").await;
    assert_eq!((reply.status, reply.reason().as_str()), (502, "tls_failed"), "{}", reply.text());
    let problem: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    problem["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_endpoint_that_is_believed_is_called_as_the_app_speaks() {
    let authority = Authority::new("ours");
    let (origin, _seen) = tls::origin(server(&authority.issue("orders.internal"), None, BOTH), at_once()).await;
    let sidecar = before(&origin, &trusting(&authority)).await;
    assert_eq!(sidecar.get("a", "/").await.text(), "http/1.1");
    let app = App::connect(sidecar.http()).await;
    assert_eq!(app.get("a", "/").await.text(), "h2");
    sidecar.settles("a", &[("ok", 2)]).await;
}

#[tokio::test]
async fn protocol_decides_what_is_offered() {
    let authority = Authority::new("ours");
    for (protocol, expected) in [("http1", "http/1.1"), ("http2", "h2")] {
        let (origin, _seen) = tls::origin(server(&authority.issue("orders.internal"), None, BOTH), at_once()).await;
        let tls = format!(", protocol: {protocol}, tls: {{{}}}", trusting(&authority));
        let sidecar = Sidecar::before(&origin, &tls).await;
        assert_eq!(sidecar.get("a", "/").await.text(), expected);
        assert_eq!(App::connect(sidecar.http()).await.get("a", "/").await.text(), expected);
        sidecar.settles("a", &[("ok", 2)]).await;
    }
}

#[tokio::test]
async fn who_is_not_believed_is_not_called() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    for (shown, words) in [
        (ours.issue("payments.internal"), "payments.internal"),
        (theirs.issue("orders.internal"), "ca.pem"),
        (ours.issue_expired("orders.internal"), "expired"),
    ] {
        let (origin, mut seen) = tls::origin(server(&shown, None, BOTH), at_once()).await;
        let sidecar = before(&origin, &trusting(&ours)).await;
        let detail = refusal(&sidecar).await;
        assert!(detail.contains(words), "{words} in {detail}");
        assert!(detail.contains(&origin.addr().to_string()), "{detail}");
        assert!(seen.try_recv().is_err(), "no handshake was finished");
        sidecar.settles("a", &[("tls_failed", 1)]).await;
    }
}

#[tokio::test]
async fn plain_text_is_never_spoken_instead() {
    let authority = Authority::new("ours");
    let (firsts, mut first) = mpsc::channel(8);
    let origin = Origin::scripted(move |mut exchange| {
        let firsts = firsts.clone();
        async move {
            firsts.send(exchange.some().await.unwrap()).await.unwrap();
            exchange.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        }
    })
    .await;
    let sidecar = before(&origin, &trusting(&authority)).await;
    let detail = refusal(&sidecar).await;
    assert!(detail.contains("does not speak TLS"), "{detail}");
    let first = within("bytes", first.recv()).await.unwrap();
    // A handshake record (RFC 8446 §5.1), and nothing of the request in it.
    assert_eq!(first[0], 22);
    assert!(!first.windows(4).any(|four| four == b"HTTP" || four == b"GET "));
    sidecar.settles("a", &[("tls_failed", 1)]).await;
}

#[tokio::test]
async fn who_asks_for_a_certificate_gets_ours_or_says_what_is_missing() {
    let authority = Authority::new("ours");
    let me = authority.issue("web.internal");
    let shown = authority.issue("orders.internal");
    let (origin, mut seen) = tls::origin(server(&shown, Some(&authority.ca()), BOTH), at_once()).await;
    let with = format!("{}, {}", trusting(&authority), authority.put("me", &me));
    let sidecar = before(&origin, &with).await;
    assert_eq!(sidecar.get("a", "/").await.text(), "http/1.1");
    assert_eq!(within("a caller", seen.recv()).await.unwrap(), me.shown());

    let sidecar = before(&origin, &trusting(&authority)).await;
    let detail = refusal(&sidecar).await;
    assert!(detail.contains("asks for our certificate"), "{detail}");
    let app = App::connect(sidecar.http()).await;
    assert_eq!(app.get("a", "/").await.reason(), "tls_failed");
    sidecar.settles("a", &[("tls_failed", 2)]).await;
}

#[tokio::test]
async fn a_certificate_that_is_replaced_on_disk_is_shown_from_then_on() {
    let authority = Authority::new("ours");
    let (old, new) = (authority.issue("web.internal"), authority.issue("web.internal"));
    let go = at_once();
    let shown = authority.issue("orders.internal");
    let (origin, mut seen) = tls::origin(server(&shown, Some(&authority.ca()), BOTH), go.clone()).await;
    let with = format!("{}, {}", trusting(&authority), authority.put("me", &old));
    let sidecar = before(&origin, &with).await;
    let mut kept = sidecar.client().await;
    kept.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(within("a caller", seen.recv()).await.unwrap(), old.shown());

    authority.put("me", &new);
    let mut fresh = old.shown();
    within("the new certificate", async {
        while fresh != new.shown() {
            assert_eq!(sidecar.get("a", "/close").await.status, 200, "whole or half replaced, calls go on");
            fresh = seen.recv().await.unwrap();
        }
    })
    .await;
    go.add_permits(1);
    assert_eq!(kept.reply().await.text(), "http/1.1", "a connection that there is goes on");
}

#[tokio::test]
async fn a_reload_brings_tls_to_a_service() {
    let authority = Authority::new("ours");
    let plain = Origin::ok("plain").await;
    let (secure, _seen) = tls::origin(server(&authority.issue("orders.internal"), None, BOTH), at_once()).await;
    let process = Process::start(&format!("services: {{a: {{static: ['{}']}}}}", plain.addr())).await;
    let mut kept = process.client().await;
    assert_eq!(kept.get("a", "/", "").await.text(), "plain");
    let tls = format!("services: {{a: {{static: ['{}'], tls: {{{}}}}}}}", secure.addr(), trusting(&authority));
    let reply = process.reload(&tls).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    eventually("TLS", async || process.get("a", "/").await.text() == "http/1.1").await;
    assert_eq!(kept.get("a", "/", "").await.text(), "http/1.1", "also on a connection that there was");

    // The same endpoint, first under TLS and then as plain text: no connection may serve both.
    let reply = process.reload(&format!("services: {{a: {{static: ['{}']}}}}", secure.addr())).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    eventually("plain text", async || process.get("a", "/").await.status == 502).await;
}

#[tokio::test]
async fn a_file_that_is_missing_at_the_start_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere.pem");
    let yaml = format!(
        "listen: {{http: '127.0.0.1:0', observe: '127.0.0.1:0', admin: '{}'}}\n\
         services: {{a: {{static: ['127.0.0.1:1'], tls: {{ca: '{}'}}}}}}",
        folder.path().join("admin.sock").display(),
        missing.display()
    );
    let error = match Config::parse("test.yaml", &yaml, &|_| None) {
        Ok(loaded) => app::Sidecar::start(loaded.config).expect_err("it cannot start").to_string(),
        Err(problems) => problems.to_string(),
    };
    assert!(error.contains(missing.to_str().unwrap()), "{error}");
}
