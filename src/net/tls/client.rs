//! TLS towards endpoints.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig,
    pki_types::{DnsName, ServerName},
    sign::SingleCertAndKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::{
    Chosen, FileError, HandshakeError, Offer, chosen,
    failure::{Against, Authorities},
    files::{Contents, Files},
    pem, provider, roots,
    sessions::Sessions,
    validity, verify, versions,
};
use crate::{
    config::{self, PeerName},
    net::stream::Stream,
};

/// One service's side of TLS with its endpoints; shared by all workers.
#[derive(Debug)]
pub struct Client {
    settings: config::Tls,
    files: Files,
    current: ArcSwap<Current>,
}

/// What the files made, and what came of it: who we are, whom we trust, and the sessions that stand on both.
#[derive(Debug)]
struct Current {
    sessions: Sessions,
    not_after: Option<SystemTime>,
}

impl Client {
    /// Reads the files that the settings name. Opens files: not for a worker.
    ///
    /// # Errors
    /// One cannot be read, or does not hold what it should; or the system's roots are wanted, and it has none.
    pub fn new(settings: &config::Tls) -> Result<Self, FileError> {
        // What is not verified needs no roots.
        let ca = settings.ca.as_deref().filter(|_| !settings.unverified);
        let (files, contents) = Files::new(ca, settings.identity.as_ref())?;
        let current = ArcSwap::from_pointee(Current::new(settings, &contents)?);
        Ok(Self { settings: settings.clone(), files, current })
    }

    /// What it was made of.
    pub fn settings(&self) -> &config::Tls {
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

    /// When our own certificate expires, if we have one.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.current.load().not_after
    }

    /// Makes a fresh connection secure. `host` is the endpoint's own, as its source names it: a name or an IP
    /// address, without a port. Takes as long as the peer does: the caller bounds it.
    ///
    /// # Errors
    /// The peer is not who it should be, or speaks no TLS that we do. That it refuses *our* certificate comes out
    /// here in TLS 1.2; in TLS 1.3 only with the first read ([`failure_of`](super::failure_of)).
    pub async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
        offer: Offer,
    ) -> Result<(Stream, Chosen), HandshakeError> {
        let against = self.against(host);
        let addr = stream.peer_addr().map_err(|error| against.explain(&error))?;
        let name = self.server_name(host, addr)?;
        let known = self.current.load().sessions.with(addr, offer);
        let connecting = TlsConnector::from(Arc::clone(&known.config)).connect(name, stream);
        let stream = connecting.await.map_err(|error| against.explain(&error))?;
        let session = stream.get_ref().1;
        if let Some([certificate, ..]) = session.peer_certificates() {
            known.has_shown(certificate);
        }
        let chosen = chosen(session.alpn_protocol());
        Ok((Stream::Secure(Box::new(TlsStream::Client(stream))), chosen))
    }

    /// What the endpoint is asked for by (SNI, RFC 6066 §3, unless it is an address), and verified by, unless
    /// that is done by a URI or not at all.
    fn server_name(&self, host: &str, addr: SocketAddr) -> Result<ServerName<'static>, HandshakeError> {
        let by_host = match &self.settings.name {
            Some(PeerName::Host(name)) => Ok(&**name),
            Some(PeerName::Uri(_)) => Err(host),
            None if self.settings.unverified => Err(host),
            None => Ok(host),
        };
        match by_host {
            Ok(host) => parse(host).ok_or_else(|| {
                HandshakeError(format!("no certificate can be for {host}: say whom it must be for (`tls.name`)"))
            }),
            Err(host) => Ok(parse(host).unwrap_or_else(|| ServerName::from(addr.ip().to_canonical()))),
        }
    }

    fn against<'a>(&'a self, host: &'a str) -> Against<'a> {
        let ca = self.settings.ca.as_deref().map_or(Authorities::System, Authorities::File);
        let name = match &self.settings.name {
            Some(PeerName::Host(name) | PeerName::Uri(name)) => name,
            None => host,
        };
        let ours = self.settings.identity.as_ref().map(|pair| &*pair.cert);
        Against { ca, name: Some(name), ours }
    }
}

impl Current {
    fn new(settings: &config::Tls, contents: &Contents) -> Result<Self, FileError> {
        let uri = match &settings.name {
            Some(PeerName::Uri(uri)) => Some(Arc::clone(uri)),
            Some(PeerName::Host(_)) | None => None,
        };
        let verifier = match (&contents.ca, settings.unverified) {
            (_, true) => verify::none(),
            (Some(file), false) => verify::verifier(Arc::new(pem::roots(file)?), uri)?,
            (None, false) => verify::verifier(roots::system()?, uri)?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|error| FileError(error.to_string()))?
            .dangerous() // which says no more than that the verifier is one of ours
            .with_custom_certificate_verifier(verifier);
        let Some((cert, key)) = &contents.identity else {
            return Ok(Self { sessions: Sessions::new(builder.with_no_client_auth()), not_after: None });
        };
        let identity = pem::identity(cert, key)?;
        let not_after = validity::not_after(identity.cert.first().map_or(&[], |leaf| leaf));
        let config = builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        Ok(Self { sessions: Sessions::new(config), not_after })
    }
}

/// A host as certificates know it. One dot at the end says that a name is complete, and is not part of it there.
fn parse(host: &str) -> Option<ServerName<'static>> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(ServerName::from(ip.to_canonical()));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    DnsName::try_from(name.to_owned()).ok().map(ServerName::DnsName)
}
