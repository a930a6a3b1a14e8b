//! Heads and bodies both ways; the codec against its own inverse, in random pieces.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use super::*;
use crate::model::Random;

fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair =
        |(name, value): &(&'static str, &'static str)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    headers.iter().map(pair).collect()
}

fn call(headers: &[(&'static str, &'static str)]) -> WebCall {
    WebCall::translate(&mut map(headers)).unwrap()
}

fn answer(headers: &[(&'static str, &'static str)]) -> response::Parts {
    let mut answer = Response::new(()).into_parts().0;
    answer.headers = map(headers);
    answer
}

/// The frames of a body: what each flag byte says, and its payload.
fn frames(mut body: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = Vec::new();
    while !body.is_empty() {
        let len = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        frames.push((body[0], &body[5..5 + len]));
        body = &body[5 + len..];
    }
    frames
}

fn random_bytes(random: &mut Random, most: u32) -> Bytes {
    (0..random.below(most + 1)).map(|_| random.bits() as u8).collect()
}

#[test]
fn a_binary_request_becomes_grpc() {
    let mut headers = map(&[
        ("content-type", "Application/gRPC-Web+Proto; charset=utf-8"),
        ("content-length", "17"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, br"),
        ("x-grpc-web", "1"),
        ("x-user-agent", "connect-es/2"),
        ("grpc-timeout", "1S"),
        ("key-bin", "AAEC"),
        ("host", "orders"),
    ]);
    let call = WebCall::translate(&mut headers).unwrap();
    let expected = map(&[
        ("content-type", "application/grpc+proto"),
        ("content-length", "17"),
        ("accept", "*/*"),
        ("te", "trailers"),
        ("x-user-agent", "connect-es/2"),
        ("grpc-timeout", "1S"),
        ("key-bin", "AAEC"),
        ("host", "orders"),
    ]);
    assert_eq!(headers, expected);
    assert!(call.decoder().is_none(), "the body is gRPC's already");
}

#[test]
fn a_text_request_loses_its_length() {
    let mut headers = map(&[("content-type", "application/grpc-web-text"), ("content-length", "24"), ("te", "gzip")]);
    let call = WebCall::translate(&mut headers).unwrap();
    assert_eq!(headers, map(&[("content-type", "application/grpc"), ("te", "trailers")]));
    assert!(call.decoder().is_some());
}

#[test]
fn what_is_not_grpc_web_is_left_alone() {
    for content_type in ["application/grpc", "application/grpc+proto", "application/json", "application/grpc-webby"] {
        let mut headers = map(&[("content-type", content_type), ("content-length", "1"), ("accept-encoding", "br")]);
        let before = headers.clone();
        assert_eq!(WebCall::translate(&mut headers), None);
        assert_eq!(headers, before);
    }
    assert_eq!(WebCall::translate(&mut map(&[("host", "orders")])), None);
}

#[test]
fn an_answer_is_what_the_app_accepts_or_else_what_it_sent() {
    for (content_type, accept, expected) in [
        ("application/grpc-web", "*/*", "application/grpc-web"),
        ("application/grpc-web+proto", "*/*", "application/grpc-web+proto"),
        ("application/grpc-web+JSON", "", "application/grpc-web+json"),
        ("application/grpc-web-text", "", "application/grpc-web-text"),
        ("application/grpc-web-text+proto", "application/grpc-web-text", "application/grpc-web-text+proto"),
        (
            "application/grpc-web+proto",
            "application/json, application/grpc-web-text;q=1",
            "application/grpc-web-text+proto",
        ),
        ("application/grpc-web-text", "application/grpc-web, */*", "application/grpc-web"),
        ("application/grpc-web-text", "application/grpc, text/html", "application/grpc-web-text"),
    ] {
        let call = call(&[("content-type", content_type), ("accept", accept)]);
        assert_eq!(call.answer_content_type(), expected, "{content_type}, {accept}");
        let mut head = answer(&[("content-type", "application/grpc+proto")]);
        assert!(call.translate_answer(&mut head, false).is_some());
        assert_eq!(head.headers[CONTENT_TYPE], expected);
    }
}

#[test]
fn an_answer_with_a_body_gets_its_trailers_there() {
    let call = call(&[("content-type", "application/grpc-web+proto")]);
    let mut head = answer(&[
        ("content-type", "application/grpc+proto"),
        ("content-length", "7"),
        ("trailer", "grpc-status"),
        ("grpc-encoding", "gzip"),
        ("key", "value"),
    ]);
    let encoder = call.translate_answer(&mut head, false).unwrap();
    assert_eq!(
        head.headers,
        map(&[("content-type", "application/grpc-web+proto"), ("grpc-encoding", "gzip"), ("key", "value")])
    );
    let message = Bytes::from_static(&[1, 0, 0, 0, 2, 8, 1]);
    assert_eq!(encoder.data(message.clone()), message, "compressed or not, a message is the app's");
    let trailers = map(&[("grpc-status", "0"), ("grpc-message", "")]);
    let end = encoder.finish(Some(&trailers));
    assert_eq!(frames(&end), [(0x80, &b"grpc-status: 0\r\ngrpc-message: \r\n"[..])]);
}

#[test]
fn trailers_only_stay_in_the_head() {
    let call = call(&[("content-type", "application/grpc-web-text")]);
    for without in [false, true] {
        let mut head = answer(&[("content-type", "application/grpc"), ("grpc-status", "5"), ("grpc-message", "no")]);
        if without {
            head.headers.remove(CONTENT_TYPE);
        }
        assert!(call.translate_answer(&mut head, true).is_none());
        let expected = [("content-type", "application/grpc-web-text"), ("grpc-status", "5"), ("grpc-message", "no")];
        assert_eq!(head.headers, map(&expected));
    }
}

#[test]
fn an_answer_that_is_no_grpc_is_left_alone() {
    let call = call(&[("content-type", "application/grpc-web")]);
    for headers in [
        &[("content-type", "text/html"), ("content-length", "9")][..],
        &[("content-type", "application/grpc-web+proto")],
        &[("content-type", "application/grpc"), ("content-encoding", "gzip"), ("content-length", "9")],
        &[],
    ] {
        for ended in [false, true] {
            let mut head = answer(headers);
            assert!(call.translate_answer(&mut head, ended).is_none());
            assert_eq!(head.headers, map(headers));
        }
    }
}

/// The text of the trailers that end a body.
fn end(head: &mut response::Parts, ended: bool, trailers: Option<&HeaderMap>) -> String {
    let call = call(&[("content-type", "application/grpc-web")]);
    let body = call.translate_answer(head, ended).unwrap().finish(trailers);
    let frames = frames(&body);
    assert_eq!((frames.len(), frames[0].0), (1, 0x80));
    String::from_utf8(frames[0].1.to_vec()).unwrap()
}

#[test]
fn an_app_always_learns_how_its_call_went() {
    const UNSAID: &str = "grpc-message: the answer ended without a grpc-status\r\n";
    let grpc = &[("content-type", "application/grpc")][..];
    assert_eq!(end(&mut answer(grpc), false, None), format!("grpc-status: 2\r\n{UNSAID}"));
    assert_eq!(end(&mut answer(grpc), true, None), format!("grpc-status: 2\r\n{UNSAID}"));
    let beside = map(&[("key", "value")]);
    assert_eq!(end(&mut answer(grpc), false, Some(&beside)), format!("key: value\r\ngrpc-status: 2\r\n{UNSAID}"));
    let mut unavailable = answer(grpc);
    unavailable.status = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(end(&mut unavailable, false, None), format!("grpc-status: 14\r\n{UNSAID}"));
    // The status came early, and the body all the same.
    let mut early = answer(&[("content-type", "application/grpc"), ("grpc-status", "0")]);
    assert_eq!(end(&mut early, false, None), "grpc-status: 0\r\n");
}

#[test]
fn trailers_of_all_kinds_arrive() {
    let mut trailers = map(&[("grpc-status", "13"), ("trace-bin", "AAEC/w"), ("many", "one"), ("many", "two, three")]);
    trailers.append("odd", HeaderValue::from_bytes(b"\xfftab\there: \"%\"").unwrap());
    let call = call(&[("content-type", "application/grpc-web-text")]);
    let mut head = answer(&[("content-type", "application/grpc")]);
    let text = call.translate_answer(&mut head, false).unwrap().finish(Some(&trailers));
    let body = STANDARD.decode(&text).unwrap();
    let expected = b"grpc-status: 13\r\ntrace-bin: AAEC/w\r\nmany: one, two, three\r\nodd: \xfftab\there: \"%\"\r\n";
    assert_eq!(frames(&body), [(0x80, &expected[..])]);

    let many: HeaderMap = (0..2_000)
        .map(|at| (HeaderName::from_bytes(format!("k{}", at / 2).as_bytes()).unwrap(), HeaderValue::from(at)))
        .chain([(status::GRPC_STATUS, HeaderValue::from(0))])
        .collect();
    assert_eq!(end(&mut answer(&[("content-type", "application/grpc")]), false, Some(&many)).lines().count(), 1_001);
}

#[test]
fn each_piece_of_a_text_answer_can_be_read_at_once() {
    let encoder = Encoder::new(true, 0);
    let mut decoder = Decoder::default();
    let mut random = Random::seeded(5);
    for _ in 0..2_000 {
        let piece = random_bytes(&mut random, 40);
        let text = encoder.data(piece.clone());
        assert_eq!(text.len() % 4, 0);
        assert_eq!(decoder.feed(&text), Ok(piece), "nothing of a message waits for the next one");
    }
    assert_eq!(decoder.end(), Ok(()));
}
