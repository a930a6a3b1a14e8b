//! The tables, held against those that they are taken from; encoding against a decoder of its own.

use super::*;
use crate::model::Random;

fn carrying(value: &[u8]) -> HeaderMap {
    HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_bytes(value).unwrap())])
}

/// The other way round, as RFC 3986 §2.1 has it.
fn decode(value: &HeaderValue) -> Vec<u8> {
    let (mut bytes, mut decoded) = (value.as_bytes(), Vec::new());
    while let [first, rest @ ..] = bytes {
        if *first == b'%' {
            decoded.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
            bytes = &rest[2..];
        } else {
            decoded.push(*first);
            bytes = rest;
        }
    }
    decoded
}

#[test]
fn a_code_is_read() {
    assert_eq!(of(&HeaderMap::new()), None);
    for (value, expected) in [
        (&b"0"[..], 0),
        (b"14", 14),
        (b"00", 0),
        (b"17", 17),
        (b"65535", 65535),
        (b"65536", 2),
        (b"99999999999999999999", 2),
        (b"", 2),
        (b"-1", 2),
        (b"+1", 2),
        (b"1 ", 2),
        (b"OK", 2),
        (b"0x0", 2),
        (b"\xff", 2),
    ] {
        assert_eq!(of(&carrying(value)), Some(expected), "{value:?}");
    }
}

#[test]
fn what_we_write_we_read() {
    for code in 0..=u16::MAX {
        assert_eq!(of(&trailers(code, "")), Some(code));
    }
}

#[test]
fn an_http_answer_means_what_the_table_says() {
    for (status, expected) in [
        (200, 2),
        (204, 2),
        (302, 2),
        (400, 13),
        (401, 16),
        (403, 7),
        (404, 12),
        (408, 2),
        (415, 2),
        (429, 14),
        (431, 13),
        (499, 2),
        (500, 2),
        (501, 2),
        (502, 14),
        (503, 14),
        (504, 14),
        (505, 2),
    ] {
        assert_eq!(of_http(StatusCode::from_u16(status).unwrap()), expected, "{status}");
    }
}

#[test]
fn a_reset_means_what_the_table_says() {
    for (reason, expected) in
        [(0, 13), (1, 13), (2, 13), (3, 13), (4, 13), (6, 13), (7, 14), (8, 1), (9, 13), (10, 13), (11, 8), (12, 7)]
    {
        assert_eq!(of_reset(Reason::from(reason)), expected, "{reason}");
    }
    for beside in [5, 13, 14, u32::MAX] {
        assert_eq!(of_reset(Reason::from(beside)), code::INTERNAL, "{beside}");
    }
}

#[test]
fn a_message_is_percent_encoded() {
    for (text, expected) in [
        ("", ""),
        ("the service's breaker is open", "the service's breaker is open"),
        ("100% of ~all! $#\"", "100%25 of ~all! $#\""),
        ("a\r\nb\tc\0d\x7f", "a%0D%0Ab%09c%00d%7F"),
        ("grüße 🌍", "gr%C3%BC%C3%9Fe %F0%9F%8C%8D"),
        (" both ends ", "%20both ends%20"),
        (" ", "%20"),
    ] {
        assert_eq!(message(text), expected, "{text}");
        assert_eq!(decode(&message(text)), text.as_bytes());
    }
}

#[test]
fn a_long_message_is_cut_between_two_characters() {
    assert_eq!(message(&"x".repeat(5000)).len(), 1024);
    let cut = decode(&message(&format!("x{}", "ü".repeat(5000))));
    assert_eq!(cut.len(), 1023);
    assert!(String::from_utf8(cut).unwrap().ends_with('ü'));
}

#[test]
fn any_text_comes_back() {
    let mut random = Random::seeded(4);
    for _ in 0..5_000 {
        let text: String = (0..random.below(40))
            .map(|_| {
                let range = if random.below(2) == 0 { 0x80 } else { 0x11_0000 };
                char::from_u32(random.below(range)).unwrap_or('%')
            })
            .collect();
        let encoded = message(&text);
        assert_eq!(decode(&encoded), text.as_bytes());
        assert_eq!(encoded.as_bytes().trim_ascii(), encoded.as_bytes());
        assert!(encoded.as_bytes().iter().all(|byte| (0x20..=0x7e).contains(byte)));
    }
}

#[test]
fn an_end_has_a_message_only_if_there_is_something_to_say() {
    let end = trailers(14, "no endpoints");
    assert_eq!(
        (end.len(), &end[GRPC_STATUS], &end[GRPC_MESSAGE]),
        (2, &"14".parse().unwrap(), &message("no endpoints"))
    );
    assert_eq!(trailers(0, "").len(), 1);
}
