//! TLS with callers.

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::CertificateDer,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::SingleCertAndKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};
use webpki::EndEntityCert;

use super::{
    Chosen, FileError, HandshakeError, Identity, Offer, alpn, chosen,
    failure::{Against, Authorities},
    files::{Contents, File, Files},
    part::part,
    pem, provider,
    tickets::{self, Tickets, Witness},
    validity, versions,
};
use crate::{config, net::stream::Stream};

/// Our side of TLS with callers; shared by all workers.
#[derive(Debug)]
pub struct Server {
    settings: config::InboundTls,
    files: Files,
    current: ArcSwap<Current>,
}

/// What the files made: who we are, and whom we trust.
#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    not_after: Option<SystemTime>,
}

/// A connection that is secure now.
#[derive(Debug)]
pub struct Accepted {
    /// The stream.
    pub stream: Stream,
    /// What the caller wants to speak.
    pub chosen: Chosen,
    /// Who the caller is.
    pub identity: Identity,
}

impl Server {
    /// Reads the files that the settings name. Opens files: not for a worker.
    ///
    /// # Errors
    /// One cannot be read, or does not hold what it should.
    pub fn new(settings: &config::InboundTls) -> Result<Self, FileError> {
        let (files, contents) = Files::new(settings.ca.as_deref(), Some(&settings.identity))?;
        let current = ArcSwap::from_pointee(Current::new(settings, &contents)?);
        Ok(Self { settings: settings.clone(), files, current })
    }

    /// What it was made of.
    pub fn settings(&self) -> &config::InboundTls {
        &self.settings
    }

    /// Looks whether the files have changed, and if so, takes them over for connections to come; those that are
    /// open stay. `None` when there is nothing new: the files are the same, or as wrong as at the last look.
    /// Opens files: not for a worker.
    ///
    /// # Errors
    /// They do not hold what they should; what was read before stays in force. Said once, not at each look.
    pub fn refresh(&self) -> Option<Result<(), FileError>> {
        self.files.look(|contents| {
            self.current.store(Arc::new(Current::new(&self.settings, contents)?));
            Ok(())
        })
    }

    /// When our certificate expires, if that can be read from it.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.current.load().not_after
    }

    /// Makes an accepted connection secure. Takes as long as the peer does: the caller bounds it.
    ///
    /// # Errors
    /// The peer shows no certificate that we trust, or speaks no TLS that we do.
    pub async fn accept(&self, stream: TcpStream) -> Result<Accepted, HandshakeError> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.load().config));
        let accepted = tickets::bounded(acceptor.accept(stream).into_fallible()).await;
        let stream = match accepted {
            Ok(stream) => stream,
            Err((error, stream)) => {
                part(stream).await;
                return Err(self.against().explain(&error));
            }
        };
        let session = stream.get_ref().1;
        let chosen = chosen(session.alpn_protocol());
        let identity = match session.peer_certificates() {
            Some([certificate, ..]) => Identity { names: names(certificate) },
            Some([]) | None => Identity::default(),
        };
        Ok(Accepted { stream: Stream::Secure(Box::new(TlsStream::Server(stream))), chosen, identity })
    }

    fn against(&self) -> Against<'_> {
        let ca = self.settings.ca.as_deref().map_or(Authorities::Some, Authorities::File);
        Against { ca, name: None, ours: Some(&self.settings.identity.cert) }
    }
}

impl Current {
    fn new(settings: &config::InboundTls, contents: &Contents) -> Result<Self, FileError> {
        let other = |error: &dyn std::error::Error| FileError(error.to_string());
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|error| other(&error))?;
        let builder = match &contents.ca {
            Some(file) => builder.with_client_cert_verifier(Arc::new(verifier(file)?)),
            None => builder.with_no_client_auth(),
        };
        let Some((cert, key)) = &contents.identity else {
            return Err(FileError("a certificate and its key are needed (`tls.cert`, `tls.key`)".into()));
        };
        let identity = pem::identity(cert, key)?;
        let not_after = validity::not_after(identity.cert.first().map_or(&[], |leaf| leaf));
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.alpn_protocols = alpn(Offer::Either);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(Tickets::new().map_err(|error| other(&error))?);
        Ok(Self { config: Arc::new(config), not_after })
    }
}

fn verifier(file: &File) -> Result<Witness, FileError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(pem::roots(file)?), provider());
    builder.build().map(Witness).map_err(|error| FileError(format!("{}: {error}", file.path.display())))
}

/// Whom a verified certificate is for. A name with anything but visible ASCII in it is no URI and no host name
/// (RFC 3986 §2, RFC 5280 §4.2.1.6), and would have to be escaped wherever it goes: it is left out.
fn names(certificate: &CertificateDer<'_>) -> Arc<[Box<str>]> {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return Arc::default() };
    let names = certificate.valid_uri_names().chain(certificate.valid_dns_names());
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic())).map(Into::into).collect()
}
