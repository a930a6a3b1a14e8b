//! The authorities that the system trusts.
//!
//! Read once a process: there are a hundred and forty of them, a service may well need no others, and there may be
//! a thousand services.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::RootCertStore;
use rustls_native_certs::CertificateResult;

use super::FileError;

static KNOWN: Mutex<Option<Arc<RootCertStore>>> = Mutex::new(None);

/// The system's roots.
///
/// # Errors
/// There are none, as in an image without a system. That is not remembered.
pub(super) fn system() -> Result<Arc<RootCertStore>, FileError> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(roots) = &*known {
        return Ok(Arc::clone(roots));
    }
    let roots = Arc::new(usable(rustls_native_certs::load_native_certs())?);
    *known = Some(Arc::clone(&roots));
    Ok(roots)
}

/// What of the system's certificates can be used: it is not for us to complain of the rest.
fn usable(found: CertificateResult) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(FileError(format!(
            "this system has no certificates of authorities{why}; name a file of those to trust in `tls.ca`, or install ca-certificates"
        )));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_without_roots_says_what_to_do() {
        let error = usable(CertificateResult::default()).unwrap_err();
        assert!(error.0.contains("`tls.ca`"), "{error}");
    }
}
