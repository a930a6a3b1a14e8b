//! Certificates of callers.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::super::{
    Client, Identity, Offer, Server, failure_of,
    testing::{Authority, DAY, Folder, Pair, call, inbound, raw_client, raw_server, shake, sockets, tls, valid},
};
use crate::config::Tls;

fn names(identity: &Identity) -> Vec<&str> {
    identity.names.iter().map(|name| &**name).collect()
}

#[tokio::test]
async fn a_caller_is_known_by_its_uris_then_its_dns_names() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let ca = folder.write("ca.pem", authority.pem());
    let caller =
        authority.issue(&["web.internal", "spiffe://prod/web", "10.0.0.7", "spiffe://prod/other", "*.web.internal"]);
    let client = Client::new(&Tls { identity: Some(folder.pair("web", &caller)), ..tls(&ca) }).unwrap();
    let server = Server::new(&inbound(folder.pair("me", &authority.issue(&["me"])), Some(&ca))).unwrap();
    let (connected, accepted) = shake(&client, "me", Offer::Either, &server).await;
    connected.unwrap();
    let identity = accepted.unwrap().identity;
    assert_eq!(names(&identity), ["spiffe://prod/web", "spiffe://prod/other", "web.internal", "*.web.internal"]);
}

#[tokio::test]
async fn names_that_no_header_could_carry_are_left_out() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let ca = folder.write("ca.pem", authority.pem());
    let caller =
        authority.issue(&["spiffe://prod/a b", "spiffe://prod/a\r\nx-admin: yes", "spiffe://prod/\u{7f}", "web"]);
    let client = Client::new(&Tls { identity: Some(folder.pair("web", &caller)), ..tls(&ca) }).unwrap();
    let server = Server::new(&inbound(folder.pair("me", &authority.issue(&["me"])), Some(&ca))).unwrap();
    let (_connected, accepted) = shake(&client, "me", Offer::Either, &server).await;
    assert_eq!(names(&accepted.unwrap().identity), ["web"]);
}

#[tokio::test]
async fn without_an_authority_nobody_is_asked_for_a_certificate() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let ca = folder.write("ca.pem", authority.pem());
    let me = folder.pair("me", &authority.issue(&["me"]));
    let client = Client::new(&Tls { identity: Some(me.clone()), ..tls(&ca) }).unwrap();
    let (connected, accepted) = shake(&client, "me", Offer::Either, &Server::new(&inbound(me, None)).unwrap()).await;
    connected.unwrap();
    assert_eq!(accepted.unwrap().identity, Identity::default());
}

/// Calls a server of ours that trusts `us`, with each version: what the server says.
async fn refused(caller: Option<&Pair>, us: &Authority, expected: &str) {
    let folder = Folder::new();
    let ca = folder.write("ca.pem", us.pem());
    let server = Server::new(&inbound(folder.pair("me", &us.issue(&["me"])), Some(&ca))).unwrap();
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(raw_client(&[version], us, caller));
        let (connected, accepted) = call(&client, &server).await;
        let why = accepted.unwrap_err().0.replace(&*ca.to_string_lossy(), "CA");
        assert_eq!(why, expected, "{version:?}");
        assert_eq!(connected.is_err(), version.version == rustls::ProtocolVersion::TLSv1_2);
    }
}

#[tokio::test]
async fn callers_without_a_good_certificate_are_refused() {
    let (us, them) = (Authority::new("us"), Authority::new("them"));
    refused(None, &us, "it showed no certificate; one signed by CA is required").await;
    refused(Some(&them.issue(&["web"])), &us, "its certificate is not signed by anyone in CA").await;
    let late = us.issue_as(&["web"], valid(-9 * DAY, -3 * DAY));
    refused(Some(&late), &us, "its certificate, or one of its chain, expired 3 days ago").await;
}

/// Shows a certificate of ours to a server that trusts `them`: what we learn, in the handshake or after it.
async fn learnt(
    shown: Option<&Pair>,
    trusted: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
) -> String {
    let (folder, us) = (Folder::new(), Authority::new("servers"));
    let ca = folder.write("ca.pem", us.pem());
    let identity = shown.map(|shown| folder.pair("web", shown));
    let cert = identity.as_ref().map(|pair| pair.cert.display().to_string()).unwrap_or_default();
    let client = Client::new(&Tls { identity, ..tls(&ca) }).unwrap();
    let server = TlsAcceptor::from(Arc::new(raw_server(&[version], &us.issue(&["me"]), Some(trusted))));
    let (near, far) = sockets().await;
    let connect = async {
        let mut stream = match client.connect(near, "me", Offer::Either).await {
            Ok((stream, _)) => stream,
            Err(error) => return error.0,
        };
        assert_eq!(version.version, rustls::ProtocolVersion::TLSv1_3, "in TLS 1.2 the handshake should have failed");
        let error = stream.read(&mut [0]).await.unwrap_err();
        failure_of(&error).unwrap().0
    };
    let (why, accepted) = tokio::join!(connect, server.accept(far));
    accepted.unwrap_err();
    why.replace(&format!(" ({cert})"), "")
}

#[tokio::test]
async fn what_a_server_thinks_of_our_certificate_comes_out() {
    let (us, them) = (Authority::new("us"), Authority::new("them"));
    let late = them.issue_as(&["web"], valid(-9 * DAY, -3 * DAY));
    for version in [&TLS12, &TLS13] {
        let why = learnt(Some(&us.issue(&["web"])), &them, version).await;
        assert_eq!(why, "it does not trust whoever signed our certificate (unknown_ca)");
        let why = learnt(Some(&late), &them, version).await;
        assert_eq!(why, "it says that our certificate has expired or is not valid yet (certificate_expired)");
    }
    for version in [&TLS12, &TLS13] {
        let why = learnt(None, &them, version).await;
        assert_eq!(why, "it asks for our certificate, and we showed none (certificate_required)");
    }
}

#[tokio::test]
async fn a_caller_that_is_refused_learns_it_though_it_has_sent_much_already() {
    let (folder, us, them) = (Folder::new(), Authority::new("us"), Authority::new("them"));
    let ca = folder.write("ca.pem", us.pem());
    let server = Server::new(&inbound(folder.pair("me", &us.issue(&["me"])), Some(&ca))).unwrap();
    let identity = Some(folder.pair("web", &them.issue(&["web"])));
    let client = Client::new(&Tls { identity, ..tls(&ca) }).unwrap();
    let (near, far) = sockets().await;
    let connect = async {
        let (mut stream, _) = client.connect(near, "me", Offer::Http1).await.unwrap();
        stream.write_all(&[b'x'; 100_000]).await.unwrap();
        stream.flush().await.unwrap();
        failure_of(&stream.read(&mut [0]).await.unwrap_err()).unwrap()
    };
    let (learnt, accepted) = tokio::join!(connect, server.accept(far));
    accepted.unwrap_err();
    assert!(learnt.0.contains("unknown_ca"), "{learnt}");
}

#[test]
fn a_failure_is_found_at_whatever_depth() {
    use rustls::{AlertDescription, Error};
    use std::io;
    let error = io::Error::other(Error::AlertReceived(AlertDescription::AccessDenied));
    let nested = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
    assert!(failure_of(&nested).unwrap().0.contains("access_denied"));
    assert_eq!(failure_of(&io::ErrorKind::ConnectionReset.into()), None);
    assert_eq!(failure_of(&io::Error::other("something else")), None);
}
