//! gRPC-Web over HTTP/1.1, binary and text, and the questions of browsers.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    grpc::{MESSAGE, serve},
    support::{Client, Origin, Reply, Sidecar, http2},
};

async fn call(client: &mut Client, path: &str, content_type: &str, lines: &str, body: &[u8]) -> Reply {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{lines}\r\n"
    );
    client.send([head.as_bytes(), body].concat()).await;
    client.reply().await
}

/// Takes the frame with the trailers off the end of a body (`doc/PROTOCOL-WEB.md`): the messages, and its text.
fn apart(body: &[u8]) -> (&[u8], String) {
    let mut rest = body;
    loop {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        if rest[0] & 0x80 != 0 {
            assert_eq!(rest.len(), 5 + length, "nothing comes after the trailers");
            let text = String::from_utf8(rest[5..].to_vec()).unwrap();
            return (&body[..body.len() - rest.len()], text.replace(": ", ":").to_ascii_lowercase());
        }
        rest = &rest[5 + length..];
    }
}

/// Base64 in pieces, each padded by itself.
fn decoded(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|four| STANDARD.decode(four).unwrap()).collect()
}

#[tokio::test]
async fn binary_answers_end_with_a_frame_of_trailers() {
    let origin = http2::origin(serve).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    for code in [0, 5, 14] {
        let path = format!("/trailers/{code}");
        let reply = call(&mut client, &path, "application/grpc-web+proto", "X-Grpc-Web: 1\r\n", MESSAGE).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/grpc-web+proto")));
        assert!(reply.complete, "{}", reply.head);
        let (messages, trailers) = apart(&reply.body);
        assert_eq!(messages, MESSAGE);
        assert!(trailers.contains(&format!("grpc-status:{code}\r\n")), "{trailers}");
    }
    sidecar.settles("a", &[("ok", 2), ("upstream_error", 1)]).await;
}

#[tokio::test]
async fn text_is_base64_both_ways() {
    let origin = http2::origin(serve).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    let body = STANDARD.encode(MESSAGE);
    let reply = call(&mut client, "/trailers/0", "application/grpc-web-text", "", body.as_bytes()).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/grpc-web-text")));
    let decoded = decoded(&reply.body);
    let (messages, trailers) = apart(&decoded);
    assert_eq!(messages, MESSAGE);
    assert!(trailers.contains("grpc-status:0\r\n"), "{trailers}");
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn local_replies_and_trailers_only_answers_have_the_status_in_their_head() {
    let origin = http2::origin(serve).await;
    let sidecar = Sidecar::before(&origin, ", timeout: 2s").await;
    let mut client = sidecar.client().await;
    let reply = call(&mut client, "/only/5", "application/grpc-web", "", MESSAGE).await;
    assert_eq!((reply.status, reply.header("grpc-status"), reply.body.len()), (200, Some("5"), 0), "{}", reply.head);
    let reply = call(&mut client, "/hang", "application/grpc-web", "", MESSAGE).await;
    assert_eq!((reply.status, reply.header("grpc-status"), reply.body.len()), (200, Some("4"), 0), "{}", reply.head);
    assert_eq!(reply.header("content-type"), Some("application/grpc-web"));
    assert_eq!(call(&mut client, "/only/0", "application/grpc-web", "", MESSAGE).await.status, 200, "it goes on");
    sidecar.settles("a", &[("ok", 2), ("request_timeout", 1)]).await;
}

#[tokio::test]
async fn a_stream_that_breaks_still_ends_with_trailers() {
    let origin = http2::origin(serve).await;
    let sidecar = Sidecar::before(&origin, ", timeout: {total: 1500ms}").await;
    let reply = call(&mut sidecar.client().await, "/begin", "application/grpc-web", "", MESSAGE).await;
    assert!(reply.complete);
    let (messages, trailers) = apart(&reply.body);
    assert_eq!(messages, MESSAGE);
    assert!(trailers.contains("grpc-status:4\r\n"), "{trailers}");
    sidecar.settles("a", &[("request_timeout", 1)]).await;
}

#[tokio::test]
async fn browsers_are_answered_where_cors_is_on() {
    let lines = "Origin: https://page.example\r\nAccess-Control-Request-Method: POST\r\n\
                 Access-Control-Request-Headers: content-type,x-grpc-web\r\n";
    let preflight = format!("OPTIONS /trailers/0 HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let origin = http2::origin(serve).await;
    let sidecar = Sidecar::before(&origin, ", cors: {origins: ['https://page.example']}").await;
    let mut client = sidecar.client().await;
    client.send(&preflight).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, Some("https://page.example")));
    assert_eq!(reply.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(reply.header("access-control-allow-headers"), Some("content-type,x-grpc-web"));
    let reply =
        call(&mut client, "/trailers/0", "application/grpc-web", "Origin: https://page.example\r\n", MESSAGE).await;
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://page.example"));
    let reply = call(&mut client, "/trailers/0", "application/grpc-web", "Origin: https://other\r\n", MESSAGE).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, None));

    // Without it the question goes to the service.
    let (origin, mut seen) = Origin::recording("HTTP/1.1 405 x\r\ncontent-length: 0\r\n\r\n").await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send(&preflight).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (405, None));
    assert!(seen.recv().await.unwrap().starts_with("OPTIONS "));
}
