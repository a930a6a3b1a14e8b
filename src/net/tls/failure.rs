//! Why TLS failed, in words for an operator.
//!
//! "invalid peer certificate: UnknownIssuer" sends people to a search engine. What they need is which certificate,
//! what is wrong with it, and what it is held against: the file of authorities, the name that was wanted. `it` and
//! `its` are the peer's in all of these; who that is, the caller of this module says in front.

use std::{io, path::Path};

use rustls::{
    AlertDescription as Alert, CertificateError as Bad, Error, InvalidMessage, PeerIncompatible, pki_types::UnixTime,
};

use super::HandshakeError;

/// What we held the peer's certificate against, as far as it is known where a failure is put into words.
#[derive(Debug, Default)]
pub(super) struct Against<'a> {
    /// Whose signature was wanted.
    pub(super) ca: Authorities<'a>,
    /// Whom the certificate was to be for.
    pub(super) name: Option<&'a str>,
    /// Our own certificate, if we show one.
    pub(super) ours: Option<&'a Path>,
}

/// Those whose signature counts.
#[derive(Debug, Default)]
pub(super) enum Authorities<'a> {
    /// The file's.
    File(&'a Path),
    /// The system's.
    System,
    /// Not known here.
    #[default]
    Some,
}

impl Against<'_> {
    /// The words for a handshake that failed.
    pub(super) fn explain(&self, error: &io::Error) -> HandshakeError {
        let words = match inside(error) {
            Some(error) => self.words(error),
            None => match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::NotConnected
                | io::ErrorKind::BrokenPipe => {
                    "it closed the connection during the handshake; it may not speak TLS on this port".into()
                }
                _ => error.to_string(),
            },
        };
        HandshakeError(words)
    }

    fn words(&self, error: &Error) -> String {
        match error {
            Error::InvalidCertificate(bad) => self.certificate(bad),
            Error::NoCertificatesPresented => match self.ca {
                Authorities::File(path) => {
                    format!("it showed no certificate; one signed by {} is required", path.display())
                }
                _ => "it showed no certificate".into(),
            },
            Error::AlertReceived(alert) => self.alert(*alert),
            Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
                "it does not speak TLS on this port: what it sent is plain text, or something else".into()
            }
            Error::PeerIncompatible(why) => incompatible(why),
            Error::NoApplicationProtocol => "it wants to speak neither h2 nor http/1.1 (ALPN)".into(),
            error => format!("its TLS is broken: {error}"),
        }
    }

    /// What is wrong with its certificate.
    fn certificate(&self, bad: &Bad) -> String {
        match bad {
            Bad::ExpiredContext { time, not_after } => {
                format!("its certificate, or one of its chain, expired {} ago", span(*not_after, *time))
            }
            Bad::NotValidYetContext { time, not_before } => {
                format!(
                    "its certificate, or one of its chain, is not valid before {} from now",
                    span(*time, *not_before)
                )
            }
            Bad::Expired => "its certificate has expired".into(),
            Bad::NotValidYet => "its certificate is not valid yet".into(),
            Bad::Revoked => "its certificate has been revoked".into(),
            Bad::UnknownIssuer => match self.ca {
                Authorities::File(path) => format!("its certificate is not signed by anyone in {}", path.display()),
                Authorities::System => "its certificate is not signed by anyone whom this system trusts; \
                     if it comes from an authority of your own, name that one's file in `tls.ca`"
                    .into(),
                Authorities::Some => "its certificate is not signed by anyone whom we trust".into(),
            },
            Bad::BadSignature => "its certificate has a signature that is not its issuer's; \
                 the authority may have been made anew under its old name"
                .into(),
            Bad::NotValidForNameContext { presented, .. } => {
                let wanted = self.name.map(|name| format!(", not for {name}")).unwrap_or_default();
                match presented.is_empty() {
                    true => format!(
                        "its certificate names nobody among its subject alternative names{wanted} (a common name does not count)"
                    ),
                    false => format!("its certificate is for {}{wanted}", names(presented)),
                }
            }
            Bad::InvalidPurposeContext { required, .. } => {
                format!("its certificate may not be used for this: its extended key usage lacks {required:?}")
            }
            Bad::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
                Some(webpki::Error::CaUsedAsEndEntity) => "its certificate is that of an authority (CA:TRUE), \
                     which may sign others but not stand for itself"
                    .into(),
                Some(webpki::Error::UnsupportedCertVersion) => {
                    "its certificate is of an X.509 version before 3, which has no names that count".into()
                }
                _ => format!("its certificate is not acceptable: {}", other.0),
            },
            bad => format!("its certificate is not acceptable: {bad}"),
        }
    }

    /// What it says of us.
    fn alert(&self, alert: Alert) -> String {
        let ours = match self.ours {
            Some(path) => format!("our certificate ({})", path.display()),
            None => "our certificate".into(),
        };
        match alert {
            Alert::CertificateRequired => {
                "it asks for our certificate, and we showed none (certificate_required)".into()
            }
            Alert::UnknownCA => format!("it does not trust whoever signed {ours} (unknown_ca)"),
            Alert::CertificateExpired => {
                format!("it says that {ours} has expired or is not valid yet (certificate_expired)")
            }
            Alert::CertificateRevoked => format!("it says that {ours} has been revoked (certificate_revoked)"),
            Alert::BadCertificate => format!("it refused {ours}, or that there was none (bad_certificate)"),
            Alert::CertificateUnknown => format!("it refused {ours} (certificate_unknown)"),
            Alert::UnsupportedCertificate => format!("it cannot use {ours} (unsupported_certificate)"),
            Alert::AccessDenied => format!("it refused us after a look at {ours} (access_denied)"),
            Alert::HandshakeFailure => "it found no cipher, key or certificate in common with us, \
                 or misses our certificate (handshake_failure)"
                .into(),
            Alert::ProtocolVersion => "it speaks no version of TLS that we do (protocol_version)".into(),
            Alert::NoApplicationProtocol => "it speaks none of what we offer (no_application_protocol)".into(),
            Alert::UnrecognisedName => match self.name {
                Some(name) => format!("it does not know the name {name} (unrecognized_name)"),
                None => "it does not know the name that was asked for (unrecognized_name)".into(),
            },
            alert => format!("it broke off with the alert {alert:?}"),
        }
    }
}

/// Why a stream failed that was secure already, if it was for TLS: in TLS 1.3 a server looks at our certificate
/// when our handshake is long over, so that its refusal comes with the first read. A write that fails may hide
/// it: what the peer said is still there to be read.
pub fn failure_of(error: &io::Error) -> Option<HandshakeError> {
    inside(error).map(|error| HandshakeError(Against::default().words(error)))
}

/// The error of rustls within, at whatever depth.
fn inside(error: &io::Error) -> Option<&Error> {
    let mut within: &(dyn std::error::Error + 'static) = error.get_ref()?;
    loop {
        if let Some(error) = within.downcast_ref::<Error>() {
            return Some(error);
        }
        within = match within.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(error) => error,
            None => within.source()?,
        };
    }
}

fn incompatible(why: &PeerIncompatible) -> String {
    use PeerIncompatible as Why;
    match why {
        Why::ServerDoesNotSupportTls12Or13
        | Why::ServerTlsVersionIsDisabledByOurConfig
        | Why::SupportedVersionsExtensionRequired
        | Why::Tls12NotOffered
        | Why::Tls12NotOfferedOrEnabled => "it speaks no version of TLS that we do (`tls.min_version`)".into(),
        Why::NoCipherSuitesInCommon => "it has no cipher suite in common with us".into(),
        Why::NoKxGroupsInCommon => "it has no key exchange in common with us".into(),
        Why::NoSignatureSchemesInCommon | Why::NoCertificateRequestSignatureSchemesInCommon => {
            "it accepts no signature that our key can make".into()
        }
        why => format!("its TLS lacks what ours needs: {why:?}"),
    }
}

/// The time between two moments, in the unit that an operator would use.
fn span(from: UnixTime, to: UnixTime) -> String {
    let seconds = to.as_secs().saturating_sub(from.as_secs());
    let (number, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

/// At most this many names are listed: some certificates have hundreds.
const MAX_NAMES: usize = 8;

/// The names of a certificate; the verifier writes each in the manner of `DnsName("orders")`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_kind, name)| name.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    let listed: Vec<_> = presented.iter().take(MAX_NAMES).map(bare).collect();
    let more = presented.len().saturating_sub(MAX_NAMES);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", listed.join(", "))
}
