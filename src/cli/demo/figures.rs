//! How figures are spelt: for the picture, the lines and the summary alike.

use std::time::Duration;

/// A count with its thousands apart: `4,812`.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun, which takes an `s` unless it is one.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

/// Milliseconds as a bare number of about three digits: `0.14`, `2.3`, `251`; `-` for none.
pub(crate) fn millis(time: Option<Duration>) -> String {
    let Some(time) = time else { return "-".to_owned() };
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ..1.0 => format!("{ms:.2}"),
        ..100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

/// A time in the unit that suits it: `0.14 ms`, `251 ms`, `2.5 s`, `20 s`, `3.1 min`.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        ..1.0 => format!("{} ms", millis(Some(time))),
        ..100.0 if (seconds - seconds.round()).abs() < 0.05 => format!("{seconds:.0} s"),
        ..100.0 => format!("{seconds:.1} s"),
        _ => format!("{:.1} min", seconds / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        let spelt: Vec<_> = [0, 7, 999, 1_000, 12_345, 1_000_000].map(grouped).into();
        assert_eq!(spelt, ["0", "7", "999", "1,000", "12,345", "1,000,000"]);
        assert_eq!((counted(1, "call"), counted(2_000, "call")), ("1 call".into(), "2,000 calls".into()));
    }

    #[test]
    fn times_are_told_in_a_unit_that_suits_them() {
        let spelt: Vec<_> = [140, 2_300, 251_000, 2_500_000, 20_010_000, 186_000_000]
            .map(|micros| time(Duration::from_micros(micros)))
            .into();
        assert_eq!(spelt, ["0.14 ms", "2.3 ms", "251 ms", "2.5 s", "20 s", "3.1 min"]);
        assert_eq!(millis(None), "-");
    }
}
