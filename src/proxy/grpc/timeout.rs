//! `grpc-timeout`: how long the app still waits (grpc/grpc, `doc/PROTOCOL-HTTP2.md`).
//!
//! It says a time that is left, not a moment, so each hop writes its own: what came in, less what the call
//! has taken here. Written anew, a time is never longer than it is, or the next hop would work for an app
//! that has gone.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// The header.
pub(in crate::proxy) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// "At most 8 digits."
const DIGITS: usize = 8;
const LARGEST: u128 = 99_999_999;

/// The units, finest first, each with its length in nanoseconds.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// Reads 1 to 8 digits and a unit; `None` for anything else, which then bounds nothing.
///
/// The grammar wants a positive number. 0 is read all the same, since grpc-go writes `0n` for a deadline that
/// is over.
pub(in crate::proxy) fn parse(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'n' => Some(Duration::from_nanos(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'S' => Some(Duration::from_secs(number)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'H' => Some(Duration::from_secs(number * 3600)),
        _ => None,
    }
}

/// Writes a time in the finest unit in which it has at most 8 digits, rounded down: less than one part in a
/// hundred thousand is lost. What is over 99,999,999 hours is cut to that.
///
/// A time that is over is `1n`, the least that the grammar has (as gRPC's C core writes it).
pub(in crate::proxy) fn format(time: Duration) -> HeaderValue {
    let nanos = time.as_nanos().max(1);
    let coarsest = UNITS[UNITS.len() - 1];
    let (unit, length) = UNITS.into_iter().find(|(_, length)| nanos / length <= LARGEST).unwrap_or(coarsest);
    let mut number = (nanos / length).min(LARGEST) as u32;
    let mut text = [0; DIGITS + 1];
    let mut at = DIGITS;
    text[at] = unit;
    while number > 0 {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    HeaderValue::from_bytes(&text[at..]).expect("digits and a letter are a header's value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Random;

    fn read(text: &str) -> Option<Duration> {
        parse(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn each_unit_is_read() {
        for (text, expected) in [
            ("1n", Duration::from_nanos(1)),
            ("20u", Duration::from_micros(20)),
            ("300m", Duration::from_millis(300)),
            ("4S", Duration::from_secs(4)),
            ("5M", Duration::from_secs(300)),
            ("6H", Duration::from_secs(21_600)),
            ("99999999H", Duration::from_secs(359_999_996_400)),
            ("00000001S", Duration::from_secs(1)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_bounds_nothing() {
        for text in ["", "S", "1", "10", "1s", "1h", "100000000n", "-1S", "+1S", "1.5S", " 1S", "1 S", "1SS", "1S "] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(parse(&HeaderValue::from_bytes(b"1\xff").unwrap()), None);
        assert_eq!(parse(&HeaderValue::from_bytes("٣S".as_bytes()).unwrap()), None);
    }

    #[test]
    fn a_time_is_written_in_the_finest_unit_that_fits() {
        for (nanos, expected) in [
            (0, "1n"),
            (1, "1n"),
            (99_999_999, "99999999n"),
            (100_000_000, "100000u"),
            (100_000_999, "100000u"),
            (99_999_999_999, "99999999u"),
            (100_000_000_000, "100000m"),
            (99_999_999_999_999, "99999999m"),
            (100_000_000_000_000, "100000S"),
            (100_000_000_000_000_000, "1666666M"),
        ] {
            assert_eq!(format(Duration::from_nanos(nanos)), expected, "{nanos}");
        }
        assert_eq!(format(Duration::from_secs(5_999_999_940)), "99999999M");
        assert_eq!(format(Duration::from_secs(6_000_000_000)), "1666666H");
        assert_eq!(format(Duration::MAX), "99999999H");
    }

    #[test]
    fn a_written_time_is_never_longer_and_hardly_shorter() {
        let mut random = Random::seeded(2);
        for _ in 0..50_000 {
            let time = Duration::from_nanos(random.bits() >> random.below(64)).max(Duration::from_nanos(1));
            let read = parse(&format(time)).unwrap();
            assert!(read <= time, "{time:?} became {read:?}");
            assert!(time - read <= time / 100_000, "{time:?} became {read:?}");
            assert_eq!(format(read), format(time), "to write it again changes nothing");
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let mut random = Random::seeded(3);
        let mut good = 0;
        for _ in 0..50_000 {
            let len = random.below(11);
            let bytes: Vec<u8> = (0..len)
                .map(|at| match random.below(8) {
                    0 => random.bits() as u8,
                    1 => b"numSMH"[random.below(6) as usize],
                    _ if at + 1 == len => b"numSMH"[random.below(6) as usize],
                    _ => b'0' + random.below(10) as u8,
                })
                .collect();
            if let Ok(value) = HeaderValue::from_bytes(&bytes)
                && let Some(time) = parse(&value)
            {
                good += 1;
                assert!(time <= Duration::from_secs(359_999_996_400));
            }
        }
        assert!(good > 1_000, "{good}");
    }
}
