//! The configuration's file: has it become another one?
//!
//! A file that is written in place is caught half-written sooner or later, and half a configuration is often a
//! valid one: with half of the services gone. So a change counts once the file has been at rest between two looks.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::net::stamp::Stamp;

/// How often to look.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// How long a file that has just changed must be at rest.
pub(super) const AT_REST: Duration = Duration::from_millis(100);

/// The file, and which states of it have been seen.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    read: Option<Stamp>,
    changing: Option<Stamp>,
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// It is what was read last, or there is none at the moment, which is no news yet.
    Same,
    /// It is another one, perhaps not yet complete: look again after [`AT_REST`].
    Changing,
    /// It is another one, to be read now.
    Changed,
}

impl ConfigFile {
    /// The file, as it is about to be read.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), read: Stamp::of(path).ok(), changing: None }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// It is about to be read, whatever it is.
    pub(super) fn will_be_read(&mut self) {
        (self.read, self.changing) = (Stamp::of(&self.path).ok(), None);
    }

    /// Looks whether it has changed.
    pub(super) fn look(&mut self) -> Look {
        let Ok(now) = Stamp::of(&self.path) else { return Look::Same };
        if self.read == Some(now) {
            self.changing = None;
            return Look::Same;
        }
        if self.changing.replace(now) == Some(now) { Look::Changed } else { Look::Changing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_is_at_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outrigger.yaml");
        std::fs::write(&path, "services: {}").unwrap();
        let mut file = ConfigFile::new(&path);
        assert_eq!(file.look(), Look::Same);
        std::fs::write(&path, "services: {a").unwrap();
        assert_eq!(file.look(), Look::Changing);
        std::fs::write(&path, "services: {a: {}}").unwrap();
        assert_eq!((file.look(), file.look()), (Look::Changing, Look::Changed));
        file.will_be_read();
        assert_eq!(file.look(), Look::Same);
    }

    #[test]
    fn a_file_that_is_gone_is_no_news() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outrigger.yaml");
        std::fs::write(&path, "one").unwrap();
        let mut file = ConfigFile::new(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!((file.look(), file.look()), (Look::Same, Look::Same));
    }
}
