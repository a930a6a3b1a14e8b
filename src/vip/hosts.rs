//! The lines of a hosts file for the VIPs: a way in that needs no DNS.
//!
//! The lines stand in a block of their own between two marks, so that they can be written again and again and taken
//! away, whatever else the file holds. The file is written in place: containers have theirs bind-mounted, and a file
//! that is mounted cannot be replaced. What stands before the block is never touched, not even for a moment.

use std::{
    fs::OpenOptions,
    io::{self, Read, Seek, Write},
    net::Ipv4Addr,
    path::Path,
};

/// The first line of the block.
const BEGIN: &str = "# BEGIN outrigger (kept by outrigger: what is changed here is lost)";
/// How a first line is known, whatever it says behind that.
const BEGINS: &str = "# BEGIN outrigger";
/// The last line of the block.
const END: &str = "# END outrigger";

/// A hosts file of more bytes is none.
const LARGEST: u64 = 64 << 20;

/// Names on a line at most: resolvers have limits on a line's length.
const NAMES: usize = 8;

/// The lines for these addresses, each with its names.
pub fn lines(vips: impl IntoIterator<Item = (Ipv4Addr, Vec<String>)>) -> String {
    let mut text = String::new();
    for (address, names) in vips {
        for names in names.chunks(NAMES) {
            text += &format!("{address}\t{}\n", names.join(" "));
        }
    }
    text
}

/// Brings the block in a hosts file up to date; no lines take it away. Returns whether anything has changed.
///
/// # Errors
/// The file cannot be read or written, is larger than 64 MiB, or its marks are not as they should be.
pub fn write(path: &Path, lines: &str) -> io::Result<bool> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let mut bytes = Vec::new();
    if Read::by_ref(&mut file).take(LARGEST + 1).read_to_end(&mut bytes)? as u64 > LARGEST {
        // What was not read would be lost.
        return Err(io::Error::other("it is too large for a hosts file"));
    }
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("it is not text"))?;
    let after = with_block(&text, lines).map_err(io::Error::other)?;
    if after == text {
        return Ok(false);
    }
    let same = text.bytes().zip(after.bytes()).take_while(|(a, b)| a == b).count();
    file.seek(io::SeekFrom::Start(same as u64))?;
    file.write_all(&after.as_bytes()[same..])?;
    file.set_len(after.len() as u64)?;
    Ok(true)
}

/// A hosts file's text with these lines as its block: in the place of the old one, or at the end.
fn with_block(text: &str, lines: &str) -> Result<String, String> {
    let block = if lines.is_empty() { String::new() } else { format!("{BEGIN}\n{lines}{END}\n") };
    let (mut before, mut after, mut inside, mut found) = (String::new(), String::new(), None, false);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        match (inside, line.trim_end()) {
            (None, begin) if begin.starts_with(BEGINS) && found => {
                return Err(format!(
                    "line {}: a second block of outrigger's begins; take one of them away",
                    number + 1
                ));
            }
            (None, begin) if begin.starts_with(BEGINS) => (inside, found) = (Some(number + 1), true),
            (None, END) => return Err(format!("line {}: a block of outrigger's ends that has not begun", number + 1)),
            (Some(_), END) => inside = None,
            (Some(_), _) => {}
            (None, _) if found => after += line,
            (None, _) => before += line,
        }
    }
    if let Some(line) = inside {
        return Err(format!("line {line}: a block of outrigger's begins and has no end (`{END}`)"));
    }
    if !block.is_empty() && !before.is_empty() && !before.ends_with('\n') {
        before.push('\n');
    }
    Ok(before + &block + &after)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HOSTS: &str = "127.0.0.1 localhost\n172.18.0.3 app\n";

    fn some() -> String {
        lines([([127, 84, 0, 1].into(), vec!["orders.vip.internal".into(), "orders".into()])])
    }

    #[test]
    fn a_block_is_added_replaced_and_taken_away() {
        let with = with_block(HOSTS, &some()).unwrap();
        assert_eq!(with, format!("{HOSTS}{BEGIN}\n127.84.0.1\torders.vip.internal orders\n# END outrigger\n"));
        assert_eq!(with_block(&with, &some()).unwrap(), with, "once is as good as twice");
        let behind = with + "10.0.0.1 added-by-docker\n";
        let other = with_block(&behind, "127.84.0.2\tusers\n").unwrap();
        assert_eq!(other, format!("{HOSTS}{BEGIN}\n127.84.0.2\tusers\n# END outrigger\n10.0.0.1 added-by-docker\n"));
        assert_eq!(with_block(&other, "").unwrap(), format!("{HOSTS}10.0.0.1 added-by-docker\n"));
        assert_eq!(with_block("", "").unwrap(), "");
        assert_eq!(with_block("no newline", &some()).unwrap().lines().next(), Some("no newline"));
    }

    #[test]
    fn marks_that_do_not_fit_are_not_guessed_at() {
        for (text, said) in [
            (format!("{BEGIN}\n1.2.3.4 x\n"), "line 1"),
            (format!("x\n{END}\n"), "line 2"),
            (format!("{BEGIN}\n{END}\n{BEGIN}\n{END}\n"), "line 3"),
        ] {
            let error = with_block(&text, &some()).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_file_is_written_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        fs::write(&path, HOSTS).unwrap();
        let link = folder.path().join("link");
        fs::hard_link(&path, &link).unwrap();
        assert!(write(&path, &some()).unwrap());
        assert!(!write(&path, &some()).unwrap(), "nothing to do");
        assert_eq!(fs::read_to_string(&link).unwrap(), with_block(HOSTS, &some()).unwrap());
        assert!(write(&path, "").unwrap());
        assert_eq!(fs::read_to_string(&link).unwrap(), HOSTS);
        fs::write(&path, b"\xff").unwrap();
        assert!(write(&path, &some()).is_err());
    }

    #[test]
    fn a_file_that_is_too_large_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let file = fs::File::create(&path).unwrap();
        file.set_len(LARGEST + 1).unwrap();
        assert!(write(&path, &some()).unwrap_err().to_string().contains("too large"));
        assert_eq!(file.metadata().unwrap().len(), LARGEST + 1);
    }

    #[test]
    fn many_names_take_several_lines() {
        let names: Vec<String> = (0..20).map(|n| format!("n{n}")).collect();
        let text = lines([([127, 84, 0, 1].into(), names)]);
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().all(|line| line.starts_with("127.84.0.1\t")));
    }
}
