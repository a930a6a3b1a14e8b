//! Forwarders that ask us for what we ask them: every question ends, soon, and with few packets.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{RData, RecordType, rdata::A},
};

use outrigger::{
    config::{self, Nameserver},
    net::resolve::{Answer, Ourselves, Question, Resolver, System},
    vip::dns,
};
use tokio::time::Instant;

use super::support::{Forwarder, Setting, Trial, forward_to, reply};

/// A forwarder that knows `known.lan` and asks whoever it is told for the rest, as Docker's resolver does; with or
/// without the options of the question.
pub fn mirror(strips: bool, back: Arc<OnceLock<SocketAddr>>) -> Forwarder {
    Forwarder::saying(move |query| {
        if query.queries[0].name().to_ascii().starts_with("known") {
            let name = query.queries[0].name().to_ascii();
            return vec![reply(query, vec![(&name, 60, RData::A(A([10, 0, 0, 1].into())))])];
        }
        let Some(back) = back.get() else { return vec![] };
        let mut onward = query.clone();
        if strips {
            onward.edns = None;
        }
        // It does one thing at a time.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(if strips { 50 } else { 5000 }))).unwrap();
        socket.send_to(&onward.to_vec().unwrap(), back).unwrap();
        let mut bytes = [0; 1232];
        let Ok(length) = socket.recv(&mut bytes) else { return vec![] };
        let mut answer = Message::from_vec(&bytes[..length]).unwrap();
        answer.metadata.id = query.metadata.id;
        vec![answer]
    })
}

fn looped(strips: bool, timeout: &str) -> (Trial, Forwarder) {
    let back = Arc::new(OnceLock::new());
    let forwarder = mirror(strips, back.clone());
    let dns = forward_to(&[forwarder.addr]);
    let trial = Trial::start(Setting { dns: &dns, timeout, ..Setting::default() });
    back.set(trial.address()).unwrap();
    (trial, forwarder)
}

#[tokio::test]
async fn our_own_question_is_refused_and_its_way_is_left_alone_for_a_while() {
    let (trial, forwarder) = looped(false, "5s");
    let start = Instant::now();
    assert_eq!(trial.short("www.lan.", RecordType::A).await, "SERVFAIL");
    assert!(start.elapsed() < Duration::from_secs(3), "no time-out was waited for: {:?}", start.elapsed());
    assert_eq!((trial.count("refused"), trial.count("failed")), (1, 1));
    for i in 0..20 {
        assert_eq!(trial.short(&format!("n{i}.lan."), RecordType::A).await, "SERVFAIL");
    }
    assert_eq!(forwarder.names(), ["www.lan."], "it is not asked any more");
}

#[tokio::test]
async fn a_forwarder_with_answers_of_its_own_goes_on_being_asked() {
    let (trial, forwarder) = looped(false, "5s");
    assert_eq!(trial.short("known.lan.", RecordType::A).await, "NOERROR 10.0.0.1");
    for i in 0..5 {
        assert_eq!(trial.short(&format!("n{i}.lan."), RecordType::A).await, "SERVFAIL");
        assert_eq!(trial.short(&format!("known-{i}.lan."), RecordType::A).await, "NOERROR 10.0.0.1");
    }
    assert_eq!(forwarder.names().len(), 11);
}

#[tokio::test]
async fn a_loop_without_the_mark_ends_by_time_and_is_not_amplified() {
    let (trial, forwarder) = looped(true, "1s");
    assert_eq!(trial.short("www.lan.", RecordType::A).await, "SERVFAIL");
    assert!(forwarder.names().len() <= 5, "{:?}", forwarder.names());
    assert_eq!(trial.short("orders.vip.internal.", RecordType::A).await, "NOERROR 127.84.0.7");
}

#[tokio::test]
async fn two_responders_that_ask_each_other_end_by_time() {
    // The second one's address is not known when the first one starts: a relay of bytes stands between.
    let (trial, relay) = {
        let back = Arc::new(OnceLock::new());
        let relay = mirror(false, back.clone());
        let second = Trial::start(Setting { dns: &forward_to(&[relay.addr]), timeout: "1s", ..Setting::default() });
        let first =
            Trial::start(Setting { dns: &forward_to(&[second.address()]), timeout: "1s", ..Setting::default() });
        back.set(first.address()).unwrap();
        ((first, second), relay)
    };
    let reply = trial.0.ask("www.lan.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert!(relay.names().len() <= 5, "{:?}", relay.names());
    assert!(trial.0.counted() + trial.1.counted() < 30);
}

/// A lookup of the sidecar's own that comes back asks everybody but the server that it comes from, which may be waiting for
/// the very answer: dnsmasq asks a question once, however many want to know.
#[tokio::test]
async fn a_lookup_that_comes_back_is_not_sent_round_again() {
    let back = Arc::new(OnceLock::new());
    let forwarder = mirror(false, back.clone());
    let sockets = dns::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let system = System::with(Ourselves::new(sockets.address()));
    let dns = format!("bare: on, {}", forward_to(&[forwarder.addr]));
    let setting = Setting { dns: &dns, timeout: "5s", system: Some(system.clone()), ..Setting::default() };
    let trial = Trial::on(sockets, setting);
    back.set(trial.address()).unwrap();
    let servers = vec![Nameserver::At(forwarder.addr)];
    let (ttl_min, ttl_max, hold) = Default::default();
    let settings = config::Resolver { servers, ttl_min, ttl_max, hold, timeout: Duration::from_secs(5) };
    let resolver = Resolver::with_system(&settings, system).unwrap();
    let start = Instant::now();
    let found = resolver.addresses(&mut Question::new("orders")).await;
    assert!(matches!((&found.v4, &found.v6), (Answer::Failed(_), Answer::Failed(_))), "{found:?}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(forwarder.names(), ["orders.", "orders."], "A and AAAA, once");
    assert_eq!(trial.short("known.lan.", RecordType::A).await, "NOERROR 10.0.0.1", "others may still ask it");
}
