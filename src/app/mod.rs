//! app.

use std::path::Path;

/// Stub.
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct Error;

impl Error {
    /// Stub.
    pub fn exit_code(&self) -> u8 {
        1
    }
}

/// Stub.
pub fn run(_path: &Path) -> Result<(), Error> {
    Err(Error)
}
