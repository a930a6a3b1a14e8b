//! Telling one state of a file from the next, by one `stat`.
//!
//! Not by inotify: bind mounts of single files, ConfigMaps (which swap a symlink two directories up) and
//! network file systems either send no event or send it for another file, and a watch that is sometimes deaf
//! needs the look anyway.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

/// One state of a file. The change time is there for writers that set the modification time back
/// (`rsync -t`, `tar`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Device and inode: which file it is, whatever it is called.
    pub identity: (u64, u64),
    /// Its length.
    pub bytes: u64,
    /// When its content was last written, in seconds and nanoseconds.
    pub modified: (i64, i64),
    /// When anything about it was last changed, in seconds and nanoseconds.
    pub changed: (i64, i64),
}

impl Stamp {
    /// The stamp of what the path leads to.
    ///
    /// # Errors
    /// There is nothing, or it may not be looked at; or it is no regular file, which must not be opened
    /// without care: a pipe would block.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        if !meta.is_file() {
            return Err(io::Error::other("this is not a file"));
        }
        Ok(Self {
            identity: (meta.dev(), meta.ino()),
            bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}
