//! Until when a certificate is good.
//!
//! The verifier of certificates knows, but keeps it to itself unless the certificate has expired; a metric must
//! warn before that, and a session must not outlive the certificate that it stands on. So this walks the few DER
//! fields that come before the end of the validity (RFC 5280 §4.1), and refuses what it does not know.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// DER tags (X.690 §8).
mod tag {
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const GENERALIZED_TIME: u8 = 0x18;
    pub(super) const SEQUENCE: u8 = 0x30;
    /// `[0]`, constructed: what the version stands in.
    pub(super) const VERSION: u8 = 0xa0;
}

/// The last moment at which the certificate (DER) is valid; a moment before 1970 is 1970. `None` when that
/// cannot be read from it.
pub(super) fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let seconds = u64::try_from(not_after_seconds(certificate)?).unwrap_or(0);
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn not_after_seconds(certificate: &[u8]) -> Option<i64> {
    let (certificate, _) = expect(certificate, tag::SEQUENCE)?;
    let (fields, _) = expect(certificate, tag::SEQUENCE)?;
    let fields = match expect(fields, tag::VERSION) {
        Some((_version, rest)) => rest,
        None => fields,
    };
    let (_serial, fields) = expect(fields, tag::INTEGER)?;
    let (_algorithm, fields) = expect(fields, tag::SEQUENCE)?;
    let (_issuer, fields) = expect(fields, tag::SEQUENCE)?;
    let (validity, _) = expect(fields, tag::SEQUENCE)?;
    let (_tag, _not_before, validity) = element(validity)?;
    match element(validity)? {
        // RFC 5280 §4.1.2.5.1: two digits from 50 on are of the last century.
        (tag::UTC_TIME, text, []) => {
            let (year, rest) = number(text, 2)?;
            moment(if year >= 50 { 1900 + year } else { 2000 + year }, rest)
        }
        (tag::GENERALIZED_TIME, text, []) => {
            let (year, rest) = number(text, 4)?;
            moment(year, rest)
        }
        _ => None,
    }
}

/// The content of the first element, which must have this tag, and what follows it.
fn expect(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(der)?;
    (found == tag).then_some((content, rest))
}

/// The first element: tag, content, and what follows it. Lengths of up to four bytes (X.690 §8.1.3).
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// A number of so many decimal digits, and what follows it.
fn number(text: &[u8], digits: usize) -> Option<(i64, &[u8])> {
    let (digits, rest) = text.split_at_checked(digits)?;
    let add = |sum, c: &u8| c.is_ascii_digit().then(|| sum * 10 + i64::from(c - b'0'));
    Some((digits.iter().try_fold(0, add)?, rest))
}

/// Seconds since 1970 of `MMDDhhmmssZ` in a year; RFC 5280 allows no other form.
fn moment(year: i64, text: &[u8]) -> Option<i64> {
    let (month, text) = number(text, 2)?;
    let (day, text) = number(text, 2)?;
    let (hour, text) = number(text, 2)?;
    let (minute, text) = number(text, 2)?;
    let (second, text) = number(text, 2)?;
    let sane = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    (sane && text == b"Z").then(|| day_number(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// The number of a day, where 0 is 1970-01-01, in the Gregorian calendar.
///
/// Years are taken to begin in March, so that the leap day is a year's last and the lengths of the months repeat
/// every five. The scheme is Howard Hinnant's `days_from_civil`.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use rcgen::date_time_ymd;

    use super::{
        super::testing::{Authority, chain_of},
        *,
    };

    fn certificate(adjust: impl FnOnce(&mut rcgen::CertificateParams)) -> Vec<u8> {
        chain_of(&Authority::new("us").issue_as(&["me"], adjust).cert)[0].to_vec()
    }

    fn end(year: i32, month: u8, day: u8) -> Option<SystemTime> {
        not_after(&certificate(|params| params.not_after = date_time_ymd(year, month, day)))
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(end(2024, 2, 29), at(1_709_164_800));
        assert_eq!(end(2000, 3, 1), at(951_868_800));
        assert_eq!(end(2049, 12, 31), at(2_524_521_600));
        assert_eq!(end(2050, 1, 1), at(2_524_608_000));
        assert_eq!(end(2100, 3, 1), at(4_107_542_400));
        assert_eq!(end(9999, 12, 31), at(253_402_214_400));
        assert_eq!(end(1970, 1, 1), at(0));
        assert_eq!(end(1960, 1, 1), at(0), "before 1970 is 1970");
        let second = certificate(|params| params.not_after = date_time_ymd(2030, 6, 15) + Duration::from_secs(47_107));
        assert_eq!(not_after(&second), at(1_907_712_000 + 47_107));
    }

    #[test]
    fn every_day_of_eight_centuries_has_the_next_number() {
        let mut expected = day_number(1600, 1, 1);
        for year in 1600..2400 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            for (month, days) in
                [31, 28 + i64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate()
            {
                for day in 1..=days {
                    assert_eq!(day_number(year, month as i64 + 1, day), expected, "{year}-{}-{day}", month + 1);
                    expected += 1;
                }
            }
        }
        assert_eq!(day_number(1970, 1, 1), 0);
    }

    #[test]
    fn nothing_that_is_cut_or_changed_is_a_panic() {
        let certificate = certificate(|_| ());
        assert!(not_after(&certificate).is_some());
        for end in 0..certificate.len() {
            assert_eq!(not_after(&certificate[..end]), None, "cut at {end}");
        }
        for at in 0..certificate.len() {
            for byte in [0, 0x7f, 0x80, 0x84, 0x85, 0xff] {
                let mut changed = certificate.clone();
                changed[at] = byte;
                let _ = not_after(&changed);
            }
        }
        assert_eq!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(moment(2030, b"0230000000+0100"), None);
        assert_eq!(moment(2030, b"1330000000Z"), None);
    }
}
