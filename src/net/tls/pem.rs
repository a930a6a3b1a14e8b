//! From PEM files (RFC 7468) to what rustls wants: roots, and a certificate with its key.
//!
//! These are the files that operators make by hand at three in the morning, so each way in which they come wrong
//! (the other file's content, DER, a passphrase, a chain upside down, a key of last year) gets words of its own.

use std::{path::Path, sync::Arc};

use rustls::{
    Error, InconsistentKeys, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};

use super::{FileError, files::File, provider};

/// The certificates of authorities that the file holds.
///
/// # Errors
/// It holds none, or one that cannot be read: to leave it out would make a peer unknown for no visible reason.
pub(super) fn roots(file: &File) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for (i, certificate) in certificates(file)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| bad_certificate(&file.path, i, &error))?;
    }
    Ok(roots)
}

/// A certificate, with the rest of its chain, and the key that belongs to it.
///
/// # Errors
/// One of the files does not hold what it should, or they do not belong together.
pub(super) fn identity(cert: &File, key: &File) -> Result<CertifiedKey, FileError> {
    let chain = certificates(cert)?;
    let signing = provider().key_provider.load_private_key(private_key(key)?).map_err(|_| {
        FileError(format!(
            "the key in {} is damaged or of no use; RSA (2048 bits or more), ECDSA on P-256 or P-384, and Ed25519 will do",
            key.path.display()
        ))
    })?;
    let identity = CertifiedKey::new(chain, signing);
    match identity.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
        Err(Error::InconsistentKeys(_)) => Err(mismatch(cert, key, identity)),
        Err(error) => Err(bad_certificate(&cert.path, 0, &error)),
    }
}

/// The words for a key that is not the first certificate's.
fn mismatch(cert: &File, key: &File, CertifiedKey { cert: chain, key: signing, .. }: CertifiedKey) -> FileError {
    let (cert, key) = (cert.path.display(), key.path.display());
    let fits = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(&signing)).keys_match().is_ok()
    };
    FileError(match chain.iter().position(fits) {
        Some(at) => format!(
            "the key in {key} belongs to certificate {} of {cert}; its own certificate must be the first, and the rest of its chain follow",
            at + 1
        ),
        None => format!("the certificate in {cert} and the key in {key} do not belong together"),
    })
}

fn certificates(file: &File) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let all = CertificateDer::pem_slice_iter(&file.bytes).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| bad_pem(&file.path, &error))?;
    if all.is_empty() {
        return Err(nothing(file, "certificate", "openssl x509 -inform der"));
    }
    Ok(all)
}

fn private_key(file: &File) -> Result<PrivateKeyDer<'static>, FileError> {
    match PrivateKeyDer::from_pem_slice(&file.bytes) {
        Ok(key) => Ok(key),
        Err(_) if is_locked(file) => {
            let path = file.path.display();
            Err(FileError(format!(
                "the key in {path} is locked with a passphrase; write it without one (openssl pkey -in {path})"
            )))
        }
        Err(pem::Error::NoItemsFound) => Err(nothing(file, "private key", "openssl pkey -inform der")),
        Err(error) => Err(bad_pem(&file.path, &error)),
    }
}

/// Whether a key is encrypted, as PKCS#8 says it or as PEM did before (RFC 1421 §4.6.1.1).
fn is_locked(file: &File) -> bool {
    holds(file, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || holds(file, b"Proc-Type: 4,ENCRYPTED")
}

/// The words for a file without what it should hold.
fn nothing(file: &File, what: &str, convert: &str) -> FileError {
    let path = file.path.display();
    let found = match () {
        () if file.bytes.is_empty() => "it is empty".into(),
        () if file.bytes.starts_with(&[0x30]) => format!("it looks like DER, and PEM is wanted ({convert})"),
        () if holds(file, b"PRIVATE KEY-----") => "it holds a private key".into(),
        () if holds(file, b"-----BEGIN CERTIFICATE-----") => "it holds a certificate".into(),
        () if holds(file, b"-----BEGIN ") => "it holds something else in PEM".into(),
        () => "it is not PEM".into(),
    };
    FileError(format!("{path} holds no {what}: {found}"))
}

fn holds(file: &File, words: &[u8]) -> bool {
    memchr::memmem::find(&file.bytes, words).is_some()
}

fn bad_pem(path: &Path, error: &pem::Error) -> FileError {
    let path = path.display();
    FileError(match error {
        pem::Error::MissingSectionEnd { .. } => format!("{path} is cut short: a block has no END line"),
        pem::Error::Base64Decode(why) => format!("{path} is damaged: {why}"),
        error => format!("{path} is damaged: {error}"),
    })
}

fn bad_certificate(path: &Path, at: usize, error: &Error) -> FileError {
    FileError(format!("certificate {} of {} cannot be read: {error}", at + 1, path.display()))
}
