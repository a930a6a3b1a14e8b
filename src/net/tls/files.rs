//! The files that one side of TLS is made of, and whether they have changed.
//!
//! A change must be taken over whole or not at all, though it comes in pieces: a certificate is written, then
//! its key; a file is caught half-written; Kubernetes swaps a link to the folder between two reads. So all of them
//! are read between two looks at their stamps, and what was read is only taken over if it makes a configuration.
//! While it does not, the old one stays, the files are read again at each look, and the operator is told once.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    io::Read,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::FileError;
use crate::{config::KeyPair, net::stamp::Stamp};

/// The greatest file that is read. A bundle of all public authorities has a quarter of a megabyte.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// More than the coarsest tick by which Linux stamps files (`CONFIG_HZ=100`).
const TICK: Duration = Duration::from_millis(20);
/// How often files that change while they are read are read again at once.
const TRIES: usize = 3;

/// A file as it was read.
pub(super) struct File {
    /// Where it is.
    pub(super) path: PathBuf,
    /// What it holds.
    pub(super) bytes: Vec<u8>,
}

/// All files as they were read.
pub(super) struct Contents {
    /// Whom to trust.
    pub(super) ca: Option<File>,
    /// Our certificate and its key.
    pub(super) identity: Option<(File, File)>,
}

/// The files, and what they were when they were last read.
#[derive(Debug)]
pub(super) struct Files {
    ca: Option<PathBuf>,
    identity: Option<KeyPair>,
    /// Keys the digest of contents: whoever may write the files cannot choose two of the same digest.
    hasher: RandomState,
    /// Held while files are read, by the one thread that looks.
    last: Mutex<Last>,
}

/// The last look.
#[derive(Debug)]
struct Last {
    /// What the files' stamps were. `None`: read them, whatever their stamps are now.
    stamps: Option<Vec<Stamp>>,
    /// Of the contents that are in force.
    digest: u64,
    /// What was wrong, and has been said.
    wrong: Option<String>,
}

impl Files {
    /// Reads the files for the first time.
    pub(super) fn new(ca: Option<&Path>, identity: Option<&KeyPair>) -> Result<(Self, Contents), FileError> {
        let last = Last { stamps: None, digest: 0, wrong: None };
        let (ca, identity) = (ca.map(Path::to_path_buf), identity.cloned());
        let mut files = Self { ca, identity, hasher: RandomState::new(), last: Mutex::new(last) };
        let (contents, stamps) = files.read()?;
        let last = Last { stamps, digest: files.digest(&contents), wrong: None };
        files.last = Mutex::new(last);
        Ok((files, contents))
    }

    /// Reads the files again if they may have changed, and hands them over if they have. `None` when there is
    /// nothing to tell: they are the same, or as wrong as they were at the last look.
    pub(super) fn look(
        &self,
        take_over: impl FnOnce(&Contents) -> Result<(), FileError>,
    ) -> Option<Result<(), FileError>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.stamps.is_some() && last.stamps == self.stamps().ok() {
            return None;
        }
        last.stamps = None;
        let result = self.read().and_then(|(contents, stamps)| {
            let digest = self.digest(&contents);
            let changed = digest != last.digest;
            if changed {
                take_over(&contents)?;
            }
            (last.stamps, last.digest) = (stamps, digest);
            Ok(changed)
        });
        match result {
            Ok(changed) => (last.wrong.take().is_some() || changed).then_some(Ok(())),
            Err(error) => {
                let told = last.wrong.replace(error.0.clone()).is_some_and(|wrong| wrong == error.0);
                (!told).then_some(Err(error))
            }
        }
    }

    /// Reads all files, between two looks at their stamps that are the same if they hold still. The stamps are
    /// `None` when the next look cannot rely on them.
    fn read(&self) -> Result<(Contents, Option<Vec<Stamp>>), FileError> {
        let mut tries = 1;
        loop {
            let before = self.stamps()?;
            let read = self.read_once();
            let still = self.stamps().is_ok_and(|after| after == before);
            if !still && tries < TRIES {
                tries += 1;
                continue;
            }
            let settled = still && !before.iter().any(is_fresh);
            return Ok((read?, settled.then_some(before)));
        }
    }

    fn read_once(&self) -> Result<Contents, FileError> {
        let identity = |pair: &KeyPair| Ok((read(&pair.cert)?, read(&pair.key)?));
        Ok(Contents {
            ca: self.ca.as_deref().map(read).transpose()?,
            identity: self.identity.as_ref().map(identity).transpose()?,
        })
    }

    fn stamps(&self) -> Result<Vec<Stamp>, FileError> {
        let pair = self.identity.iter().flat_map(|pair| [&pair.cert, &pair.key]);
        let stamp = |path: &PathBuf| Stamp::of(path).map_err(|error| unreadable(path, &error));
        self.ca.iter().chain(pair).map(stamp).collect()
    }

    fn digest(&self, contents: &Contents) -> u64 {
        let ca = contents.ca.as_ref().map(|file| &file.bytes);
        let identity = contents.identity.as_ref().map(|(cert, key)| (&cert.bytes, &key.bytes));
        self.hasher.hash_one((ca, identity))
    }
}

/// Whether the file was changed within the last tick of the file system's clock: another change in the same tick
/// would leave the same stamp. A time in the future counts as that.
fn is_fresh(stamp: &Stamp) -> bool {
    let (seconds, nanos) = stamp.changed;
    let then = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0));
    let since = UNIX_EPOCH.checked_add(then).and_then(|then| SystemTime::now().duration_since(then).ok());
    since.is_none_or(|since| since < TICK)
}

fn read(path: &Path) -> Result<File, FileError> {
    let mut bytes = Vec::new();
    let opened = fs::File::open(path);
    let read = opened.and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > MAX_BYTES {
        let path = path.display();
        return Err(FileError(format!("{path} is larger than {} MiB", MAX_BYTES / (1024 * 1024))));
    }
    Ok(File { path: path.into(), bytes })
}

fn unreadable(path: &Path, error: &std::io::Error) -> FileError {
    let remedy = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "; let the user that outrigger runs as read it",
        _ => "",
    };
    FileError(format!("{} cannot be read: {error}{remedy}", path.display()))
}
