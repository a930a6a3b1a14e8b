//! A moment as both logs write it: `2026-02-28T23:59:59.042Z` (RFC 3339 §5.6, UTC, milliseconds).
//!
//! Written by hand because it is one page, stands on the path of every logged call, and the date crates
//! bring time zones and parsing that nobody here needs. Leap seconds do not exist in Unix time, and so
//! not here.

use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a timestamp.
pub(crate) const LEN: usize = 24;

/// The moment in ASCII; what lies before 1970 or after 9999 is written as the nearest end.
pub(crate) fn rfc3339(at: SystemTime) -> [u8; LEN] {
    /// 9999-12-31T23:59:59 UTC.
    const LAST: u64 = 253_402_300_799;
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = if since.as_secs() > LAST { (LAST, 999) } else { (since.as_secs(), since.subsec_millis()) };
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;

    let mut text = *b"0000-00-00T00:00:00.000Z";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], of_day / 3600);
    digits(&mut text[14..16], of_day / 60 % 60);
    digits(&mut text[17..19], of_day % 60);
    digits(&mut text[20..23], u64::from(millis));
    text
}

/// Year, month and day of the day with this number, where 0 is 1970-01-01, in the Gregorian calendar.
///
/// Years are taken to begin in March, so that the leap day is a year's last and the lengths of the months
/// repeat every five (31, 30, 31, 30, 31: 153 days). The scheme is Howard Hinnant's `civil_from_days`.
fn civil(day: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097; // days in 400 years
    let day = day + 719_468; // from 0000-03-01
    let of_era = day % ERA;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / (ERA - 1)) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = day / ERA * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day_of_month)
}

/// Writes `number` right-aligned into `place`, which holds zeros.
fn digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64, millis: u64) -> String {
        let moment = UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis);
        String::from_utf8(rfc3339(moment).to_vec()).unwrap()
    }

    #[test]
    fn known_moments() {
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399, 999), "2000-02-28T23:59:59.999Z");
        assert_eq!(at(951_782_400, 1), "2000-02-29T00:00:00.001Z");
        assert_eq!(at(1_709_164_800, 0), "2024-02-29T00:00:00.000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
        assert_eq!(at(253_402_300_799, 999), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn what_does_not_fit_is_the_nearest_end() {
        assert_eq!(at(253_402_300_800, 5), "9999-12-31T23:59:59.999Z");
        let before = rfc3339(UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(&before, b"1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let length = |year: u64, month: u64| match month {
            2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut expected = (1970, 1, 1);
        for day in 0..200_000 {
            assert_eq!(civil(day), expected, "day {day}");
            let (year, month, of_month) = expected;
            expected = match (month, of_month) {
                (12, 31) => (year + 1, 1, 1),
                (_, last) if last == length(year, month) => (year, month + 1, 1),
                _ => (year, month, of_month + 1),
            };
        }
    }
}
