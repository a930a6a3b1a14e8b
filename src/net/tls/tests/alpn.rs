//! What is spoken under TLS, and which version of it.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use tokio_rustls::TlsAcceptor;

use super::super::{
    Chosen, Client, Offer, Server,
    testing::{Authority, Folder, call, inbound, raw_client, raw_server, shake, sockets, tls},
};
use crate::config::{InboundTls, Tls, TlsVersion};

#[tokio::test]
async fn both_of_ours_agree_on_the_best() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let client = Client::new(&tls(&folder.write("ca.pem", authority.pem()))).unwrap();
    let server = Server::new(&inbound(folder.pair("me", &authority.issue(&["me"])), None)).unwrap();
    let matrix = [
        (Offer::Http1, Chosen::Http1),
        (Offer::Http2, Chosen::Http2),
        (Offer::Either, Chosen::Http2),
        (Offer::Bytes, Chosen::Nothing),
    ];
    for (offer, chosen) in matrix {
        let (connected, accepted) = shake(&client, "me", offer, &server).await;
        assert_eq!((connected.unwrap().1, accepted.unwrap().chosen), (chosen, chosen), "{offer:?}");
    }
}

#[tokio::test]
async fn a_server_chooses_from_the_offer_alone() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let client = Client::new(&tls(&folder.write("ca.pem", authority.pem()))).unwrap();
    let shown = authority.issue(&["me"]);
    let none: &[&[u8]] = &[];
    let matrix = [
        (Offer::Either, &[b"http/1.1" as &[u8]] as &[&[u8]], Ok(Chosen::Http1)),
        (Offer::Either, &[b"h2"], Ok(Chosen::Http2)),
        (Offer::Either, none, Ok(Chosen::Nothing)),
        (Offer::Http1, none, Ok(Chosen::Nothing)),
        (Offer::Http2, none, Ok(Chosen::Nothing)),
        (Offer::Bytes, &[b"h2"], Ok(Chosen::Nothing)),
        (Offer::Http2, &[b"http/1.1"], Err("it speaks none of what we offer (no_application_protocol)")),
        (Offer::Http1, &[b"h2"], Err("it speaks none of what we offer (no_application_protocol)")),
    ];
    for versions in [&[&TLS12], &[&TLS13]] {
        for (offer, spoken, expected) in matrix {
            let mut config = raw_server(versions, &shown, None);
            config.alpn_protocols = spoken.iter().map(|name| name.to_vec()).collect();
            let (near, far) = sockets().await;
            let server = TlsAcceptor::from(Arc::new(config));
            let (connected, _accepted) = tokio::join!(client.connect(near, "me", offer), server.accept(far));
            let chosen = connected.map(|(_, chosen)| chosen).map_err(|error| error.0);
            assert_eq!(chosen, expected.map_err(str::to_owned), "{offer:?} {versions:?}");
        }
    }
}

#[tokio::test]
async fn a_caller_may_know_no_alpn_but_must_not_want_something_else() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let server = Server::new(&inbound(folder.pair("me", &authority.issue(&["me"])), None)).unwrap();
    let mut config = raw_client(&[&TLS12, &TLS13], &authority, None);
    let (_, accepted) = call(&Arc::new(config.clone()), &server).await;
    assert_eq!(accepted.unwrap().chosen, Chosen::Nothing);
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    let (_, accepted) = call(&Arc::new(config), &server).await;
    assert_eq!(accepted.unwrap_err().0, "it wants to speak neither h2 nor http/1.1 (ALPN)");
}

#[tokio::test]
async fn the_oldest_version_is_kept() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let ca = folder.write("ca.pem", authority.pem());
    let shown = authority.issue(&["me"]);
    let cases = [
        (TlsVersion::V1_2, &TLS12, true),
        (TlsVersion::V1_2, &TLS13, true),
        (TlsVersion::V1_3, &TLS12, false),
        (TlsVersion::V1_3, &TLS13, true),
    ];
    for (min_version, spoken, fine) in cases {
        let client = Client::new(&Tls { min_version, ..tls(&ca) }).unwrap();
        let (near, far) = sockets().await;
        let theirs = TlsAcceptor::from(Arc::new(raw_server(&[spoken], &shown, None)));
        let (connected, _) = tokio::join!(client.connect(near, "me", Offer::Either), theirs.accept(far));

        let server = Server::new(&InboundTls { min_version, ..inbound(folder.pair("me", &shown), None) }).unwrap();
        let (_, accepted) = call(&Arc::new(raw_client(&[spoken], &authority, None)), &server).await;

        for outcome in [connected.map(|_| ()), accepted.map(|_| ())] {
            match outcome {
                Ok(()) => assert!(fine, "{min_version:?} {spoken:?}"),
                Err(error) => {
                    assert!(!fine, "{min_version:?} {spoken:?}: {error}");
                    assert!(error.0.starts_with("it speaks no version of TLS that we do"), "{error}");
                }
            }
        }
    }
}
