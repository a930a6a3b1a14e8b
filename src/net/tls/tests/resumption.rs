//! Sessions are resumed, and never where they should not be.

use std::sync::Arc;

use rustls::{HandshakeKind, version::TLS12};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::super::{
    Client, Offer, Server,
    testing::{Authority, Folder, Pair, byte, call, inbound, kind, raw_client, raw_server, sockets_of, tls},
};
use crate::{config::Tls, net::stream::Stream};

fn is_resumed(stream: &Stream) -> bool {
    match kind(stream) {
        HandshakeKind::Resumed => true,
        HandshakeKind::Full => false,
        other => panic!("{other:?}"),
    }
}

/// Connects both of ours: whether the session was resumed, and whom the server took the caller for.
async fn connect(client: &Client, offer: Offer, server: &Server, at: &TcpListener) -> (bool, Vec<String>) {
    let (near, far) = sockets_of(at).await;
    let (connected, accepted) = tokio::join!(client.connect(near, "me", offer), server.accept(far));
    let (mut stream, mut accepted) = (connected.unwrap().0, accepted.unwrap());
    byte(&mut stream, &mut accepted.stream).await;
    assert_eq!(kind(&stream), kind(&accepted.stream));
    (is_resumed(&stream), accepted.identity.names.iter().map(|name| name.to_string()).collect())
}

async fn listener() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap()
}

fn client(folder: &Folder, authority: &Authority, caller: &Pair, file: &str) -> Client {
    let ca = folder.write("ca.pem", authority.pem());
    Client::new(&Tls { identity: Some(folder.pair(file, caller)), ..tls(&ca) }).unwrap()
}

fn server(folder: &Folder, authority: &Authority) -> Server {
    let ca = folder.write("callers.pem", authority.pem());
    Server::new(&inbound(folder.pair("me", &authority.issue(&["me"])), Some(&ca))).unwrap()
}

#[tokio::test]
async fn a_session_is_resumed_with_the_identity_in_it() {
    let (folder, us) = (Folder::new(), Authority::new("us"));
    let (client, server) = (client(&folder, &us, &us.issue(&["spiffe://prod/web"]), "web"), server(&folder, &us));
    let at = listener().await;
    for i in 0..6 {
        let (resumed, names) = connect(&client, Offer::Http2, &server, &at).await;
        assert_eq!((resumed, &*names), (i > 0, &["spiffe://prod/web".to_owned()] as &[_]), "connection {i}");
    }
}

#[tokio::test]
async fn a_session_belongs_to_one_address_and_one_offer() {
    let (folder, us) = (Folder::new(), Authority::new("us"));
    let (client, server) = (client(&folder, &us, &us.issue(&["web"]), "web"), server(&folder, &us));
    let (at, elsewhere) = (listener().await, listener().await);
    assert!(!connect(&client, Offer::Http2, &server, &at).await.0);
    assert!(!connect(&client, Offer::Http2, &server, &elsewhere).await.0, "another endpoint");
    assert!(!connect(&client, Offer::Http1, &server, &at).await.0, "another offer");
    assert!(connect(&client, Offer::Http2, &server, &at).await.0);
    assert!(connect(&client, Offer::Http2, &server, &elsewhere).await.0);
    assert!(connect(&client, Offer::Http1, &server, &at).await.0);
}

#[tokio::test]
async fn another_caller_does_not_inherit_a_session() {
    let (folder, us) = (Folder::new(), Authority::new("us"));
    let server = server(&folder, &us);
    let (web, batch) = (us.issue(&["web"]), us.issue(&["batch"]));
    let (first, second) = (client(&folder, &us, &web, "web"), client(&folder, &us, &batch, "batch"));
    let at = listener().await;
    assert_eq!(connect(&first, Offer::Http2, &server, &at).await, (false, vec!["web".into()]));
    assert_eq!(connect(&second, Offer::Http2, &server, &at).await, (false, vec!["batch".into()]));
    // The same client with a new certificate is another caller.
    folder.pair("web", &batch);
    assert!(first.refresh().unwrap().is_ok());
    assert_eq!(connect(&first, Offer::Http2, &server, &at).await, (false, vec!["batch".into()]));
    assert_eq!(connect(&first, Offer::Http2, &server, &at).await, (true, vec!["batch".into()]));
}

#[tokio::test]
async fn no_session_outlives_the_trust_that_it_stands_on() {
    let (folder, us, them) = (Folder::new(), Authority::new("us"), Authority::new("them"));
    let (client, server) = (client(&folder, &us, &us.issue(&["web"]), "web"), server(&folder, &us));
    let at = listener().await;
    connect(&client, Offer::Http2, &server, &at).await;
    assert!(connect(&client, Offer::Http2, &server, &at).await.0);
    // The server comes to trust one more: whoever was verified before is verified again.
    folder.write("callers.pem", us.pem() + &them.pem());
    assert!(server.refresh().unwrap().is_ok());
    assert!(!connect(&client, Offer::Http2, &server, &at).await.0);
    assert!(connect(&client, Offer::Http2, &server, &at).await.0);
    // So does the client.
    folder.write("ca.pem", us.pem() + &them.pem());
    assert!(client.refresh().unwrap().is_ok());
    assert!(!connect(&client, Offer::Http2, &server, &at).await.0);
}

#[tokio::test]
async fn tls_1_2_resumes_in_both_directions() {
    let (folder, us) = (Folder::new(), Authority::new("us"));
    let web = us.issue(&["web"]);
    let (client, server) = (client(&folder, &us, &web, "web"), server(&folder, &us));

    let config = Arc::new(raw_client(&[&TLS12], &us, Some(&web)));
    for i in 0..3 {
        let (stream, accepted) = call(&config, &server).await;
        let (mut stream, mut accepted) = (stream.unwrap(), accepted.unwrap());
        byte(&mut stream, &mut accepted.stream).await;
        assert_eq!(is_resumed(&accepted.stream), i > 0, "call {i}");
        assert_eq!(&*accepted.identity.names, ["web".into()]);
    }

    let theirs = TlsAcceptor::from(Arc::new(raw_server(&[&TLS12], &us.issue(&["me"]), Some(&us))));
    let at = listener().await;
    for i in 0..3 {
        let (near, far) = sockets_of(&at).await;
        let (connected, accepted) = tokio::join!(client.connect(near, "me", Offer::Http2), theirs.accept(far));
        let mut stream = connected.unwrap().0;
        byte(&mut stream, &mut Stream::Secure(Box::new(TlsStream::Server(accepted.unwrap())))).await;
        assert_eq!(is_resumed(&stream), i > 0, "connection {i}");
    }
}
