//! Whether an endpoint is who it should be.
//!
//! rustls knows host names and IP addresses only, and a workload's identity is often neither: SPIFFE names it by
//! a URI, which stays the same wherever the workload runs.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use webpki::EndEntityCert;

use super::{FileError, provider};

/// A verifier for endpoints that bear the URI, or else the name that they were connected to by.
pub(super) fn verifier(
    roots: Arc<RootCertStore>,
    uri: Option<Arc<str>>,
) -> Result<Arc<dyn ServerCertVerifier>, FileError> {
    let Some(uri) = uri else {
        let builder = WebPkiServerVerifier::builder_with_provider(roots, provider());
        return Ok(builder.build().map_err(|error| FileError(error.to_string()))?);
    };
    Ok(Arc::new(ByUri { roots, uri, algorithms: provider().signature_verification_algorithms }))
}

/// **Verifies nothing**: whoever answers is taken for the endpoint, so that a call can be read and changed by
/// anyone on its way. For `unverified`, which warns at each start.
///
/// Only the signature on the handshake is checked, where the certificate can be read at all: it costs nothing to
/// see that the peer has the key of the certificate that it shows, and it finds broken peers early.
pub(super) fn none() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Unverified { algorithms: provider().signature_verification_algorithms })
}

/// The chain leads to a root, and the certificate is for exactly this URI.
#[derive(Debug)]
struct ByUri {
    roots: Arc<RootCertStore>,
    uri: Arc<str>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ByUri {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        let certificate = EndEntityCert::try_from(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        if certificate.valid_uri_names().any(|uri| uri == &*self.uri) {
            return Ok(ServerCertVerified::assertion());
        }
        let presented = certificate.valid_uri_names().chain(certificate.valid_dns_names()).map(str::to_owned);
        let (expected, presented) = (server_name.to_owned(), presented.collect());
        Err(CertificateError::NotValidForNameContext { expected, presented }.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Anybody: see [`none`].
#[derive(Debug)]
struct Unverified {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match EndEntityCert::try_from(cert) {
            Ok(_) => verify_tls12_signature(message, cert, dss, &self.algorithms),
            Err(_) => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match EndEntityCert::try_from(cert) {
            Ok(_) => verify_tls13_signature(message, cert, dss, &self.algorithms),
            Err(_) => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
