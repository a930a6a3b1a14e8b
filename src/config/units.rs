//! Times, shares and sizes as config text: read and written.
//!
//! A number without a unit is refused everywhere: `timeout: 5` means seconds to one reader and
//! milliseconds to the next. What is written here reads back as the same value, so that `explain` can
//! be pasted into a file.

use std::time::Duration;

use crate::policy::Share;

/// The longest time that can be written: a year, far from where arithmetic on clocks ends.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Units of time, from the longest, in nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads `250ms`, `1.5s`, `1h30m`; up to a year.
///
/// # Errors
/// What is wrong, and what to write instead where that can be guessed.
pub(super) fn duration(text: &str) -> Result<Duration, (String, Option<String>)> {
    let expected = || {
        (
            format!("{} is not a time", super::problem::quoted(text)),
            Some("write it like `250ms`, `1.5s` or `5m`".into()),
        )
    };
    let mut nanos: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        if unit.is_empty() && tail.is_empty() && rest == text && number.parse::<f64>().is_ok() {
            return Err((format!("`{text}` has no unit"), Some(format!("write `{text}ms` or `{text}s`"))));
        }
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(expected)?;
        let part = decimal(number, *size).ok_or_else(expected)?;
        nanos = nanos.checked_add(part).ok_or_else(expected)?;
        rest = tail;
    }
    let time = Duration::from_nanos(nanos);
    if time > LONGEST {
        Err((format!("`{text}` is longer than a year"), Some("at most `365d`".into())))
    } else {
        Ok(time)
    }
}

/// `number` times `size`, rounded down, without the detour over floating point.
fn decimal(number: &str, size: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Eighteen digits are more than a day has nanoseconds, and leave room in the product.
    let fraction = fraction.get(..18).unwrap_or(fraction);
    let part = fraction.parse::<u128>().ok()? * u128::from(size) / 10u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.parse::<u64>().ok()?.checked_mul(size)?.checked_add(u64::try_from(part).ok()?)
}

/// Writes a time in the longest unit that leaves no fraction.
pub(super) fn show_duration(time: Duration) -> String {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0s".to_owned();
    }
    // Days are read but not written: nobody says `1d` for a tunnel's silence.
    let exact = UNITS[1..].iter().find(|(_, size)| nanos.is_multiple_of(*size));
    exact.map_or_else(|| format!("{nanos}ns"), |(unit, size)| format!("{}{unit}", nanos / size))
}

/// Reads `50%` or `0.5%`: 0 to 100.
///
/// # Errors
/// As [`duration`].
pub(super) fn share(text: &str) -> Result<Share, (String, Option<String>)> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let Some(number) = text.strip_suffix('%').map(str::trim_end) else {
        let hint = match text.parse::<f64>() {
            Ok(value) if is_number(text) && value <= 1.0 => format!("write `{}%`", value * 100.0),
            Ok(_) if is_number(text) => format!("write `{text}%`"),
            _ => "write it like `50%`".to_owned(),
        };
        return Err((format!("{} is not a share", super::problem::quoted(text)), Some(hint)));
    };
    let value = number.parse::<f64>().ok().filter(|_| is_number(number));
    let value = value.ok_or_else(|| {
        (format!("{} is not a share", super::problem::quoted(text)), Some("write it like `50%`".into()))
    })?;
    Share::percent(value).ok_or_else(|| (format!("`{text}` is over 100%"), None))
}

/// Writes a share.
pub(super) fn show_share(share: Share) -> String {
    format!("{}%", share.as_percent())
}

/// Units of size, from the largest, in bytes.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads `64KiB`, in bytes.
///
/// # Errors
/// As [`duration`].
pub(super) fn size(text: &str) -> Result<u64, (String, Option<String>)> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    let found = SIZES.iter().find(|(name, _)| *name == unit).and_then(|(_, size)| decimal(number, *size));
    found.ok_or_else(|| {
        let hint = if number.parse::<f64>().is_err() {
            "write it like `64KiB`".to_owned()
        } else if unit.is_empty() {
            format!("write `{number}B` or `{number}KiB`")
        } else {
            let near = SIZES.iter().find(|(name, _)| name[..1].eq_ignore_ascii_case(unit.get(..1).unwrap_or("B")));
            format!("units are B, KiB, MiB, GiB: write `{number}{}`", near.map_or("KiB", |(name, _)| name))
        };
        (format!("{} is not a size", super::problem::quoted(text)), Some(hint))
    })
}

/// Writes a size in the largest unit that leaves no fraction.
pub(super) fn show_size(bytes: u64) -> String {
    let exact = SIZES.iter().find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size));
    exact.map_or_else(|| format!("{bytes}B"), |(unit, size)| format!("{}{unit}", bytes / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, millis) in
            [("250ms", 250), ("1s", 1000), ("1.5s", 1500), ("1h30m", 5_400_000), ("0s", 0), ("2d", 172_800_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("0.000000001s"), Ok(Duration::from_nanos(1)));
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1 s",
            "1.s",
            ".5s",
            "1e3s",
            "5S",
            "1ss",
            "1s5",
            "99999999999999999999s",
            "366d",
            "1..5s",
            "1s-1s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("5").unwrap_err().1.as_deref(), Some("write `5ms` or `5s`"));
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut random = crate::model::Random::seeded(7);
        for _ in 0..10_000 {
            let time = Duration::from_nanos(random.bits() % 10u64.pow(1 + (random.bits() % 15) as u32));
            assert_eq!(duration(&show_duration(time)), Ok(time));
            let bytes = random.bits() >> (24 + random.bits() % 40);
            assert_eq!(size(&show_size(bytes)), Ok(bytes));
            let part = Share::percent((random.bits() % 1001) as f64 / 10.0).unwrap();
            assert_eq!(share(&show_share(part)), Ok(part));
        }
        assert_eq!(show_duration(Duration::from_secs(60)), "1m");
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
        assert_eq!(show_size(65536), "64KiB");
    }

    #[test]
    fn shares_are_in_percent() {
        assert_eq!(share("50%").map(Share::as_percent), Ok(50.0));
        assert_eq!(share("0.5%").map(Share::as_percent), Ok(0.5));
        for text in ["", "%", "50", "0.5", "101%", "-1%", "NaN%", "inf%", "1e1%", "+5%", "5%%"] {
            assert!(share(text).is_err(), "{text}");
        }
        assert_eq!(share("0.5").unwrap_err().1.as_deref(), Some("write `50%`"));
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("1.5MiB"), Ok(1_572_864));
        for text in ["", "64", "KiB", "64KB", "64kb", "-1B", "99999999999GiB", "64 é"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size("64k").unwrap_err().1.as_deref(), Some("units are B, KiB, MiB, GiB: write `64KiB`"));
    }
}
