//! `Expect: 100-continue`: nobody sends a body that nobody wants.

use crate::support::{Origin, Sidecar, eventually, origin::ok, within};

const ASK: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";

#[tokio::test]
async fn an_endpoint_that_wants_the_body_gets_it() {
    let origin = Origin::scripted(|mut exchange| async move {
        while let Some(head) = exchange.head().await {
            assert!(head.to_ascii_lowercase().contains("expect: 100-continue\r\n"), "{head}");
            exchange.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            let body = exchange.exactly(4).await.unwrap();
            exchange.send(ok(&String::from_utf8(body).unwrap())).await;
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    for body in ["abcd", "efgh"] {
        client.send(ASK).await;
        let interim = within("an interim answer", client.head()).await.unwrap();
        assert!(interim.starts_with("HTTP/1.1 100 Continue\r\n"), "{interim}");
        client.send(body).await;
        assert_eq!(client.reply().await.text(), body);
    }
    sidecar.settles("a", &[("ok", 2)]).await;
}

#[tokio::test]
async fn an_endpoint_that_does_not_spares_the_app() {
    for (answer, status) in [
        ("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n", 417),
        ("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno", 413),
        ("HTTP/1.1 401 Unauthorized\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 401),
    ] {
        let origin = Origin::scripted(move |mut exchange| async move {
            exchange.head().await;
            exchange.send(answer).await;
            exchange.closed().await;
        })
        .await;
        let sidecar = Sidecar::before(&origin, "").await;
        let mut client = sidecar.client().await;
        client.send(ASK).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, status, "no 100 before it: {}", reply.head);
        sidecar.settles("a", &[("ok", 1)]).await;
        // The app sends no body now, so nobody can tell where the next request begins: the connection ends.
        client.closed().await;
        drop(client);
        eventually("every connection to go", async || sidecar.open("a", "upstream").await == 0).await;
        eventually("every connection to go", async || sidecar.open("", "downstream").await == 0).await;
    }
}

#[tokio::test]
async fn a_silent_endpoint_gets_the_body_after_a_second() {
    let origin = Origin::scripted(|mut exchange| async move {
        while let Some(request) = exchange.request().await {
            exchange.send(ok(request.rsplit('\n').next().unwrap())).await;
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send(ASK).await;
    let interim = within("an interim answer", client.head()).await.unwrap();
    assert!(interim.starts_with("HTTP/1.1 100 Continue\r\n"), "{interim}");
    client.send("abcd").await;
    assert_eq!(client.reply().await.text(), "abcd");
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn an_app_that_does_not_wait_loses_nothing() {
    let origin = Origin::scripted(|mut exchange| async move {
        while let Some(request) = exchange.request().await {
            exchange.send(ok(request.rsplit('\n').next().unwrap())).await;
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send(format!("{ASK}abcd")).await;
    let mut reply = client.reply().await;
    if reply.status == 100 {
        reply = client.reply().await;
    }
    assert_eq!(reply.text(), "abcd");
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn refusals_of_our_own_spare_the_app_too() {
    let sidecar = Sidecar::start("services: {}").await;
    let mut client = sidecar.client().await;
    client.send(ASK).await;
    let reply = client.reply().await;
    assert_eq!(reply.reason(), "unknown_service", "no 100 before it: {}", reply.head);
    client.closed().await;
}
