//! Text for a terminal: columns that line up, times that a person reads, and nothing that a name or an error
//! message from elsewhere could do to the terminal.

/// The text with each control character replaced, so that no escape sequence passes.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A stretch of time in the unit that fits: `3.1 ms`, `12 s`, `5 min`, `3 h`, `2 days`.
pub(super) fn duration(ms: f64) -> String {
    let (limit, units) =
        (ms.max(0.0), [(1_000.0, 1.0, "ms"), (60_000.0, 1e3, "s"), (3.6e6, 6e4, "min"), (1.728e8, 3.6e6, "h")]);
    let (unit, word) =
        units.into_iter().find(|(below, ..)| limit < *below).map_or((8.64e7, "days"), |(_, unit, word)| (unit, word));
    let value = limit / unit;
    if value < 9.95 && value > 0.0 && unit <= 1e3 { format!("{value:.1} {word}") } else { format!("{value:.0} {word}") }
}

/// Rows of cells, each column as wide as its widest cell.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned).to_vec()] }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| printable(&cell)).to_vec());
    }

    /// The lines, without spaces at their ends.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(|n| self.widest(n)).collect();
        self.rows.iter().map(move |row| {
            let padded = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
    }

    fn widest(&self, column: usize) -> usize {
        self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_unit_that_fits() {
        let cases = [
            (-1.0, "0 ms"),
            (0.0, "0 ms"),
            (0.26, "0.3 ms"),
            (3.12, "3.1 ms"),
            (9.97, "10 ms"),
            (999.0, "999 ms"),
            (1_000.0, "1.0 s"),
            (12_345.0, "12 s"),
            (90_000.0, "2 min"),
            (3_600_000.0, "1 h"),
            (1e12, "11574 days"),
            (f64::NAN, "0 ms"),
            (f64::INFINITY, "inf days"),
        ];
        for (ms, text) in cases {
            assert_eq!(duration(ms), text, "{ms}");
        }
    }

    #[test]
    fn columns_line_up_and_nothing_escapes() {
        let mut table = Table::new(["A", "B"]);
        table.row(["ü\u{1b}[31m".into(), "x".into()]);
        table.row(["long cell here".into(), String::new()]);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines, ["A               B", "ü\u{fffd}[31m          x", "long cell here"]);
    }
}
