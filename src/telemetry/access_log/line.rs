//! A record as one line of JSON (RFC 8259), always valid, whatever an app put into its request.
//!
//! Written straight into bytes: a `serde_json::Value` would allocate for each field of each call. The order
//! of the fields is fixed; fields without a value are left out.

use std::io::Write;

use super::Record;
use crate::telemetry::timestamp;

/// Bytes of a path that are kept.
const PATH_LIMIT: usize = 1024;
/// Bytes of any other text of the app that are kept.
const TEXT_LIMIT: usize = 256;

/// Appends the record and a line feed.
pub(super) fn write(out: &mut Vec<u8>, record: &Record<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(&timestamp::rfc3339(record.at));
    out.push(b'"');
    if let Some(service) = record.service {
        text(out, "service", service.as_bytes(), TEXT_LIMIT);
    }
    text(out, "method", record.method.as_str().as_bytes(), TEXT_LIMIT);
    text(out, "path", record.path.as_bytes(), PATH_LIMIT);
    text(out, "host", record.host, TEXT_LIMIT);
    if let Some(status) = record.status {
        plain(out, format_args!(",\"status\":{status}"));
    }
    text(out, "outcome", record.outcome.as_str().as_bytes(), TEXT_LIMIT);
    if let Some(details) = record.details {
        text(out, "details", details.as_bytes(), TEXT_LIMIT);
    }
    let micros = record.duration.as_micros();
    plain(out, format_args!(",\"duration_ms\":{}.{:03}", micros / 1000, micros % 1000));
    plain(out, format_args!(",\"attempts\":{}", record.attempts));
    if let Some(endpoint) = record.endpoint {
        plain(out, format_args!(",\"endpoint\":\"{endpoint}\""));
    }
    plain(out, format_args!(",\"bytes_in\":{},\"bytes_out\":{}", record.bytes_in, record.bytes_out));
    if let Some(peer) = record.peer {
        plain(out, format_args!(",\"peer\":\"{peer}\""));
    }
    if let Some(id) = record.request_id {
        text(out, "request_id", id, TEXT_LIMIT);
    }
    out.extend_from_slice(b"}\n");
}

/// What needs no escaping: numbers and addresses.
fn plain(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("writing to memory cannot fail");
}

/// A field with a text of unknown origin, cut at `limit` bytes with `…` in place of the rest.
fn text(out: &mut Vec<u8>, name: &str, value: &[u8], limit: usize) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    escape(out, kept(value, limit));
    if value.len() > limit {
        out.extend_from_slice("…".as_bytes());
    }
    out.push(b'"');
}

/// The first `limit` bytes, less a UTF-8 sequence that the cut would break: continuation bytes (10xxxxxx)
/// right behind the cut belong to a character that began before it, at most three bytes back.
fn kept(value: &[u8], limit: usize) -> &[u8] {
    if value.len() <= limit {
        return value;
    }
    let is_boundary = |&at: &usize| value[at] & 0b1100_0000 != 0b1000_0000;
    let end = (limit.saturating_sub(3)..=limit).rev().find(is_boundary).unwrap_or(limit);
    &value[..end]
}

/// The bytes as the inside of a JSON string: RFC 8259 §7's escapes, and U+FFFD for what is not UTF-8.
fn escape(out: &mut Vec<u8>, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut rest = valid;
        while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || matches!(byte, b'"' | b'\\' | 0x7f)) {
            out.extend_from_slice(&rest[..at]);
            match rest[at] {
                quoted @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', quoted]),
                // DEL too, so that a line is harmless on a terminal.
                control => plain(out, format_args!("\\u{control:04x}")),
            }
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::Method;

    use super::*;
    use crate::model::{Outcome, Random, Reason};

    fn record() -> Record<'static> {
        Record {
            at: UNIX_EPOCH + Duration::from_millis(1_709_164_800_042),
            service: Some("orders"),
            method: &Method::GET,
            path: "/x?y=1",
            host: b"orders:8080",
            status: Some(503),
            outcome: Outcome::Failed(Reason::BreakerOpen),
            details: Some("open for 3 s more"),
            duration: Duration::from_micros(12_345),
            attempts: 2,
            endpoint: Some(([10, 0, 0, 1], 8080).into()),
            bytes_in: 0,
            bytes_out: 217,
            peer: Some(([127, 0, 0, 1], 40_000).into()),
            request_id: Some(b"abc"),
        }
    }

    fn line(record: &Record<'_>) -> String {
        let mut out = Vec::new();
        write(&mut out, record);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_whole_line() {
        assert_eq!(
            line(&record()),
            concat!(
                r#"{"time":"2024-02-29T00:00:00.042Z","service":"orders","method":"GET","path":"/x?y=1","#,
                r#""host":"orders:8080","status":503,"outcome":"breaker_open","details":"open for 3 s more","#,
                r#""duration_ms":12.345,"attempts":2,"endpoint":"10.0.0.1:8080","bytes_in":0,"bytes_out":217,"#,
                r#""peer":"127.0.0.1:40000","request_id":"abc"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn what_has_no_value_is_left_out() {
        let bare = Record {
            service: None,
            status: None,
            details: None,
            endpoint: None,
            peer: None,
            request_id: None,
            outcome: Outcome::Cancelled,
            ..record()
        };
        let value: serde_json::Value = serde_json::from_str(&line(&bare)).unwrap();
        let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            ["attempts", "bytes_in", "bytes_out", "duration_ms", "host", "method", "outcome", "path", "time"]
        );
    }

    #[test]
    fn a_hostile_text_cannot_end_its_field_or_its_line() {
        let hostile = Record { host: b"a\",\"status\":200,\"x\":\"\\\n\x00\x1b[31m\x7f\xff\xc3(", ..record() };
        let text = line(&hostile);
        assert_eq!(text.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["status"], 503);
        assert_eq!(value["host"], "a\",\"status\":200,\"x\":\"\\\n\0\u{1b}[31m\u{7f}\u{fffd}\u{fffd}(");
        assert!(text.bytes().all(|byte| byte == b'\n' || !byte.is_ascii_control()));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        for shift in 0..4 {
            let path = format!("/{}{}", "a".repeat(shift), "é€😀".repeat(500));
            let value: serde_json::Value = serde_json::from_str(&line(&Record { path: &path, ..record() })).unwrap();
            let got = value["path"].as_str().unwrap();
            let kept = got.strip_suffix('…').unwrap();
            assert!(path.starts_with(kept), "{got}");
            assert!((PATH_LIMIT - 3..=PATH_LIMIT).contains(&kept.len()), "{}", kept.len());
        }
    }

    /// Whatever the bytes, the line parses, and the text reads back as Rust's own lossy conversion has it.
    #[test]
    fn random_bytes_survive() {
        let seed = std::env::var("OUTRIGGER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_122);
        println!("replay with OUTRIGGER_SEED={seed}");
        let mut random = Random::seeded(seed);
        // Mostly what matters: quotes, escapes, controls, and the lead and tail bytes of UTF-8.
        const PICKS: [u8; 16] =
            [b'"', b'\\', 0, b'\n', 0x1f, 0x7f, 0x80, 0xbf, 0xc3, 0xe2, 0xed, 0xf0, 0xf4, 0xff, b'a', b'/'];
        for round in 0..20_000 {
            let bytes: Vec<u8> = (0..random.below(40))
                .map(|_| if random.below(4) == 0 { random.below(256) as u8 } else { PICKS[random.below(16) as usize] })
                .collect();
            let text = line(&Record { host: &bytes, request_id: Some(&bytes), ..record() });
            let value: serde_json::Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("seed {seed} round {round}: {e}: {text}"));
            let expected = String::from_utf8_lossy(&bytes);
            assert_eq!(value["host"], *expected, "seed {seed} round {round}");
            assert_eq!(value["request_id"], *expected, "seed {seed} round {round}");
            assert_eq!(value["bytes_out"], 217, "seed {seed} round {round}");
        }
    }
}
