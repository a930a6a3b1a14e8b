//! Who an endpoint is taken for.

use super::super::{
    Client, Offer, Server,
    testing::{Authority, DAY, Folder, inbound, named, raw_server, shake, sockets, tls, valid, verdict},
};
use crate::config::{PeerName, Tls};

fn host(name: &str) -> PeerName {
    PeerName::Host(name.into())
}

fn uri(name: &str) -> PeerName {
    PeerName::Uri(name.into())
}

#[tokio::test]
async fn the_host_that_the_source_names_counts() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let settings = tls(&folder.write("ca.pem", authority.pem()));
    let shown = authority.issue(&["orders.internal", "*.wild.internal", "127.0.0.1", "::1", "under_score"]);
    for good in [
        "orders.internal",
        "ORDERS.internal",
        "orders.internal.",
        "a.wild.internal",
        "127.0.0.1",
        "::1",
        "[::1]",
        "under_score",
    ] {
        assert_eq!(verdict(&settings, good, &shown).await, Ok(()), "{good}");
    }
    for bad in ["payments.internal", "internal", "a.b.wild.internal", "wild.internal", "127.0.0.2", "::2"] {
        let why = verdict(&settings, bad, &shown).await.unwrap_err();
        assert!(why.starts_with("its certificate is for orders.internal, *.wild.internal, 127.0.0.1, "), "{why}");
        assert!(why.ends_with(&format!("not for {bad}")), "{why}");
    }
}

#[tokio::test]
async fn what_can_be_on_no_certificate_fails_before_anything_is_sent() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let client = Client::new(&tls(&folder.write("ca.pem", authority.pem()))).unwrap();
    for host in ["", "a b", "fe80::1%eth0", "orders:8080", ".", "a..b"] {
        let (near, far) = sockets().await;
        let error = client.connect(near, host, Offer::Either).await.unwrap_err();
        assert!(error.0.contains("`tls.name`"), "{host}: {error}");
        assert_eq!(far.try_read(&mut [0]).ok().unwrap_or(0), 0, "{host}");
    }
}

#[tokio::test]
async fn a_name_that_is_configured_counts_instead_of_the_host() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let settings = named(&folder.write("ca.pem", authority.pem()), host("orders.internal"));
    assert_eq!(verdict(&settings, "10.0.0.1", &authority.issue(&["orders.internal"])).await, Ok(()));
    let why = verdict(&settings, "10.0.0.1", &authority.issue(&["10.0.0.1"])).await.unwrap_err();
    assert_eq!(why, "its certificate is for 10.0.0.1, not for orders.internal");
    let address = Tls { name: Some(host("10.0.0.9")), ..settings };
    assert_eq!(verdict(&address, "orders.internal", &authority.issue(&["10.0.0.9"])).await, Ok(()));
}

#[tokio::test]
async fn a_uri_counts_to_the_letter_and_the_chain_still_counts() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let settings = named(&folder.write("ca.pem", authority.pem()), uri("spiffe://prod/orders"));
    let shown = authority.issue(&["x", "spiffe://prod/orders"]);
    for host in ["x", "unrelated.internal", "10.0.0.1", "fe80::1%eth0"] {
        assert_eq!(verdict(&settings, host, &shown).await, Ok(()), "{host}");
    }
    for wrong in ["spiffe://prod/orders2", "spiffe://prod/order", "spiffe://prod/Orders", "spiffe://prod/orders/"] {
        let why = verdict(&settings, "x", &authority.issue(&["x", wrong])).await.unwrap_err();
        assert_eq!(why, format!("its certificate is for {wrong}, x, not for spiffe://prod/orders"));
    }
    let why = verdict(&settings, "x", &authority.issue(&["x"])).await.unwrap_err();
    assert_eq!(why, "its certificate is for x, not for spiffe://prod/orders");
    let why = verdict(&settings, "x", &Authority::new("them").issue(&["spiffe://prod/orders"])).await.unwrap_err();
    assert!(why.starts_with("its certificate is not signed by anyone in /"), "{why}");
    let late = authority.issue_as(&["spiffe://prod/orders"], valid(-9 * DAY, -3 * DAY - 60));
    assert!(verdict(&settings, "x", &late).await.unwrap_err().contains("expired 3 days ago"));
}

#[tokio::test]
async fn a_certificate_without_names_is_for_nobody() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let settings = tls(&folder.write("ca.pem", authority.pem()));
    let why = verdict(&settings, "orders", &authority.issue(&[])).await.unwrap_err();
    assert!(why.contains("names nobody") && why.contains("not for orders"), "{why}");
}

#[tokio::test]
async fn a_certificate_out_of_its_time_says_by_how_much() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let settings = tls(&folder.write("ca.pem", authority.pem()));
    let why = verdict(&settings, "x", &authority.issue_as(&["x"], valid(-9 * DAY, -3 * DAY - 60))).await;
    assert_eq!(why.unwrap_err(), "its certificate, or one of its chain, expired 3 days ago");
    let why = verdict(&settings, "x", &authority.issue_as(&["x"], valid(5 * 3600 + 60, DAY))).await;
    assert_eq!(why.unwrap_err(), "its certificate, or one of its chain, is not valid before 5 hours from now");
}

#[tokio::test]
async fn a_chain_leads_to_the_file() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let ca = folder.write("ca.pem", Authority::new("another").pem() + &authority.pem());
    let between = authority.intermediate("between", |_| ());
    let mut shown = between.issue(&["x"]);
    let why = verdict(&tls(&ca), "x", &shown).await.unwrap_err();
    assert_eq!(why, format!("its certificate is not signed by anyone in {}", ca.display()));
    shown.cert += &between.pem();
    assert_eq!(verdict(&tls(&ca), "x", &shown).await, Ok(()));
    let stale = authority.intermediate("stale", valid(-9 * DAY, -3 * DAY));
    let mut shown = stale.issue(&["x"]);
    shown.cert += &stale.pem();
    let why = verdict(&tls(&ca), "x", &shown).await.unwrap_err();
    assert_eq!(why, "its certificate, or one of its chain, expired 3 days ago");
}

#[tokio::test]
async fn an_impostor_of_the_same_name_is_found_out() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let settings = tls(&folder.write("ca.pem", authority.pem()));
    let why = verdict(&settings, "x", &Authority::new("us").issue(&["x"])).await.unwrap_err();
    assert!(why.contains("made anew under its old name"), "{why}");
}

#[tokio::test]
async fn the_certificate_of_an_authority_is_nobodys() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let settings = tls(&folder.write("ca.pem", authority.pem()));
    let shown =
        authority.issue_as(&["x"], |params| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    let why = verdict(&settings, "x", &shown).await.unwrap_err();
    assert!(why.contains("CA:TRUE"), "{why}");
}

#[tokio::test]
async fn a_certificate_for_clients_does_not_do_for_a_server() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let settings = tls(&folder.write("ca.pem", authority.pem()));
    let shown = authority.issue_as(&["x"], |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    let why = verdict(&settings, "x", &shown).await.unwrap_err();
    assert!(why.contains("extended key usage"), "{why}");
}

#[tokio::test]
async fn unverified_takes_whoever_answers() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let absent = folder.path("absent.pem");
    let settings = Tls { unverified: true, ..tls(&absent) };
    for shown in [authority.issue(&["other"]), authority.issue_as(&["x"], valid(-9 * DAY, -DAY))] {
        for host in ["x", "fe80::1%eth0", "10.0.0.1"] {
            assert_eq!(verdict(&settings, host, &shown).await, Ok(()), "{host}");
        }
    }
}

#[tokio::test]
async fn the_name_is_asked_for_and_an_address_never_is() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let ca = folder.write("ca.pem", authority.pem());
    let shown = authority.issue(&["orders", "10.0.0.1", "spiffe://prod/orders"]);
    let cases = [
        (tls(&ca), "orders", Some("orders")),
        (tls(&ca), "orders.", Some("orders")),
        (tls(&ca), "10.0.0.1", None),
        (named(&ca, host("orders")), "10.0.0.1", Some("orders")),
        (named(&ca, host("10.0.0.1")), "orders", None),
        (named(&ca, uri("spiffe://prod/orders")), "pod-1", Some("pod-1")),
        (named(&ca, uri("spiffe://prod/orders")), "10.0.0.1", None),
    ];
    for (settings, host, asked) in cases {
        let client = Client::new(&settings).unwrap();
        let (near, far) = sockets().await;
        let server =
            tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(raw_server(rustls::ALL_VERSIONS, &shown, None)));
        let (connected, accepted) = tokio::join!(client.connect(near, host, Offer::Either), server.accept(far));
        connected.unwrap();
        assert_eq!(accepted.unwrap().get_ref().1.server_name(), asked, "{settings:?} {host}");
    }
}

#[tokio::test]
async fn an_alert_that_we_send_is_put_into_words_on_the_other_side() {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let strangers = folder.write("strangers.pem", Authority::new("them").pem());
    let shown = folder.pair("me", &authority.issue(&["me"]));
    let server = Server::new(&inbound(shown.clone(), None)).unwrap();
    let (_, accepted) = shake(&Client::new(&tls(&strangers)).unwrap(), "me", Offer::Either, &server).await;
    let why = accepted.unwrap_err().0;
    assert_eq!(
        why,
        format!("it does not trust whoever signed our certificate ({}) (unknown_ca)", shown.cert.display())
    );
}
