//! The file that remembers which name has which address, over restarts.
//!
//! It is needed for two things only: names that collide, and addresses that somebody had within a day. So a sidecar
//! that cannot write it goes on, and says so; but one that cannot read what is there does not guess: the address that
//! it would give to a name may be another's in some app's memory.
//!
//! The file is replaced as a whole, so that no crash leaves half of it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    net::Ipv4Addr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::allocate::{Book, Entry};
use crate::model::ServiceName;

/// The form of the file that this version writes, and the only one that it reads.
const VERSION: u64 = 1;

/// A file of more bytes is none of ours: the largest range takes less.
const LARGEST: u64 = 1 << 30;

/// Why what is remembered cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// It is there, and cannot be read.
    #[error("vip.state: {} cannot be read: {source}{}", path.display(), REMEDY)]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is damaged, or something else.
    #[error("vip.state: {} does not say which name has which VIP ({why}){}", path.display(), REMEDY)]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another version wrote it.
    #[error("vip.state: {} is of version {found}, and this outrigger knows version {VERSION}{}", path.display(), REMEDY)]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
}

const REMEDY: &str = "; take it away to begin afresh (services whose names collide may then change addresses), or name \
                      another file with `vip.state`";

/// The file as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u64,
    vips: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    address: Ipv4Addr,
    seen: u64,
}

/// All that is read of a file of whatever version.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

/// What the file remembers; nothing when there is none.
///
/// # Errors
/// [`MemoryError`] when there is one that says nothing to us.
pub fn read(path: &Path) -> Result<Vec<(Ipv4Addr, Entry)>, MemoryError> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut text)) {
        Ok(_) => parse(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(MemoryError::Unreadable { path: path.to_owned(), source }),
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<Vec<(Ipv4Addr, Entry)>, MemoryError> {
    let corrupt = |why: String| MemoryError::Corrupt { path: path.to_owned(), why };
    let Versioned { version } = serde_json::from_slice(text).map_err(|error| corrupt(error.to_string()))?;
    if version != VERSION {
        return Err(MemoryError::OtherVersion { path: path.to_owned(), found: version });
    }
    let written: Written = serde_json::from_slice(text).map_err(|error| corrupt(error.to_string()))?;
    let mut entries = Vec::with_capacity(written.vips.len());
    for Line { name, address, seen } in written.vips {
        let name =
            ServiceName::parse(&name).map_err(|why| corrupt(format!("{name:?} is not a service name: {why}")))?;
        entries.push((address, Entry { name, seen }));
    }
    entries.sort_by_key(|(address, _)| *address);
    match entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(corrupt(format!("{} is there twice", pair[0].0))),
        None => Ok(entries),
    }
}

/// Writes a book to the file, as a whole.
///
/// # Errors
/// Whatever the system says, and [`io::ErrorKind::WouldBlock`] while another process writes it; the file is as it was then.
pub fn write(path: &Path, book: &Book) -> io::Result<()> {
    let line = |(address, entry): (&Ipv4Addr, &Entry)| Line {
        name: entry.name.to_string(),
        address: *address,
        seen: entry.seen,
    };
    let written = Written { version: VERSION, vips: book.entries().iter().map(line).collect() };
    let mut text = serde_json::to_vec_pretty(&written).map_err(io::Error::other)?;
    text.push(b'\n');
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&beside)?;
    lock(&file, &beside)?;
    let mut replace = || {
        file.set_len(0)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    replace().inspect_err(|_| {
        // Half of a file beside the other would be in the way of nothing but tidiness.
        let _ = fs::remove_file(&beside);
    })
}

/// Makes sure that nobody else writes there: other sidecars may have the same file by a volume that they share, and
/// their process ids, counted in each container anew, tell them apart no better than a fixed name does.
fn lock(file: &File, path: &Path) -> io::Result<()> {
    let busy = || io::Error::new(io::ErrorKind::WouldBlock, "another sidecar writes it at this moment");
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(busy()),
        // Some network file systems have no locks.
        Err(TryLockError::Error(_)) => return Ok(()),
    }
    // Whoever had the lock may have moved the file to its place since we opened it.
    let (ours, there) = (file.metadata()?, fs::metadata(path).map_err(|_| busy())?);
    match (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
        true => Ok(()),
        false => Err(busy()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vip::allocate::Wish;

    fn book() -> Book {
        let mut book = Book::new("127.84.0.0/16".parse().unwrap(), []);
        let wish = |text: &str| Wish { name: ServiceName::parse(text).unwrap(), given: None };
        book.assign(["orders", "users"].map(wish), 77).unwrap();
        book
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/vips.json");
        assert_eq!(read(&path).unwrap(), []);
        write(&path, &book()).unwrap();
        let entries: Vec<_> = book().entries().iter().map(|(address, entry)| (*address, entry.clone())).collect();
        assert_eq!(read(&path).unwrap(), entries);
        write(&path, &book()).unwrap();
        let files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(files.len(), 1, "nothing is left beside it");
    }

    #[test]
    fn two_that_write_at_once_leave_a_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vips.json");
        let names = |count: usize| {
            (0..count).map(|n| Wish { name: ServiceName::parse(&format!("n{n}")).unwrap(), given: None })
        };
        let books = [10, 500].map(|count| {
            let mut book = Book::new("127.84.0.0/16".parse().unwrap(), []);
            book.assign(names(count), 77).unwrap();
            book
        });
        write(&path, &books[0]).unwrap();
        std::thread::scope(|scope| {
            for book in &books {
                scope.spawn(|| {
                    for _ in 0..50 {
                        match write(&path, book) {
                            Err(error) if error.kind() != io::ErrorKind::WouldBlock => panic!("{error}"),
                            _ => assert!([10, 500].contains(&read(&path).unwrap().len())),
                        }
                    }
                });
            }
        });
        write(&path, &books[0]).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_says_nothing_is_an_error_with_a_remedy() {
        let line = |name: &str, address: &str| format!(r#"{{"name":"{name}","address":"{address}","seen":1}}"#);
        let file = |lines: &[String]| format!(r#"{{"version":1,"vips":[{}]}}"#, lines.join(","));
        let twice = file(&[line("a", "127.84.0.1"), line("b", "127.84.0.1")]);
        for (text, said) in [
            ("", "EOF"),
            ("{\"version\":1,\"vips\":[{\"name\"", "EOF"),
            ("[]", "Versioned"),
            ("\u{0}\u{0}", "expected value"),
            (r#"{"version":2,"vips":{}}"#, "version 2"),
            (r#"{"version":1}"#, "vips"),
            (&file(&[line("a b", "127.84.0.1")]), "a b"),
            (&file(&[line("a", "127.84.0")]), "address"),
            (&twice, "127.84.0.1 is there twice"),
        ] {
            let error = parse(Path::new("/x/vips.json"), text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("/x/vips.json"), "{text}: {error}");
            assert!(error.contains("take it away"), "{error}");
        }
        // Every cut of a good file is one of these.
        let whole = file(&[line("a", "127.84.0.1")]);
        assert!(parse(Path::new("x"), whole.as_bytes()).is_ok());
        for cut in 0..whole.len() {
            assert!(parse(Path::new("x"), &whole.as_bytes()[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_an_error_that_leaves_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(write(&file.join("vips.json"), &book()).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"x");
        assert!(matches!(read(folder.path()), Err(MemoryError::Unreadable { .. })), "a folder is no file");
    }
}
