//! Names of services, by every way and at every time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use hickory_resolver::proto::rr::RecordType;
use outrigger::{
    config::{Nameserver, Resolver},
    net::resolve::{self, Answer, Question, System},
    service::Undecided,
    telemetry::Metrics,
    vip::dns::{self, Settings, Summon},
};
use tokio::sync::Notify;

use super::{
    server::Server,
    support::{Setting, Trial, Udp, config, forward_to, query, services, short},
};

#[tokio::test]
async fn names_are_answered_by_udp_and_by_tcp() {
    let trial = Trial::start(Setting { dns: "forward: off", ..Setting::default() });
    let reply = trial.ask("oRdErS.vip.internal.", RecordType::A).await;
    assert_eq!(short(&reply), "NOERROR 127.84.0.7");
    assert_eq!(reply.queries[0].name().to_ascii(), "oRdErS.vip.internal.");
    assert!(reply.metadata.authoritative && !reply.metadata.recursion_available && reply.edns.is_some());
    assert_eq!(reply.answers[0].ttl, 5);
    assert_eq!(trial.short("payments.prod.vip.internal.", RecordType::A).await, "NOERROR 127.84.0.7");
    assert_eq!(trial.short("orders.vip.internal.", RecordType::AAAA).await, "NOERROR");
    assert_eq!(trial.short("hidden.vip.internal.", RecordType::A).await, "NOERROR");
    assert_eq!(trial.short("users.vip.internal.", RecordType::A).await, "NXDOMAIN");
    assert_eq!(trial.short("www.example.com.", RecordType::A).await, "REFUSED");
    assert_eq!(trial.short("7.0.84.127.in-addr.arpa.", RecordType::PTR).await, "NOERROR orders.vip.internal.");
    let mut tcp = trial.tcp().await;
    for _ in 0..3 {
        tcp.send(&query("orders.vip.internal.", RecordType::A)).await;
        assert_eq!(short(&tcp.receive().await), "NOERROR 127.84.0.7");
    }
    for (result, number) in [("own", 6), ("nodata", 2), ("nxdomain", 1), ("refused", 1), ("forwarded", 0)] {
        assert_eq!(trial.count(result), number, "{result}");
    }
}

#[tokio::test]
async fn a_resolver_finds_a_service_with_both_families_asked_together() {
    let trial = Trial::start(Setting { dns: "forward: off", ..Setting::default() });
    let (ttl_min, ttl_max, hold) = Default::default();
    let servers = vec![Nameserver::At(trial.address())];
    let settings = Resolver { servers, ttl_min, ttl_max, hold, timeout: super::support::PATIENCE };
    let resolver = resolve::Resolver::with_system(&settings, System::default()).unwrap();
    let found = resolver.addresses(&mut Question::new("orders.vip.internal")).await;
    assert!(matches!(&found.v4, Answer::Found { records, .. } if records[0].to_string() == "127.84.0.7"), "{found:?}");
    assert_eq!(found.v6, Answer::NoRecords);
    let ports = resolver.targets(&mut Question::new("_http._tcp.orders.vip.internal")).await;
    assert!(matches!(&ports.targets, Answer::Found { records, .. } if records[0].port == 80), "{ports:?}");
    assert_eq!(ports.glue["orders.vip.internal"][0].to_string(), "127.84.0.7");
}

#[tokio::test]
async fn a_responder_on_every_address_answers_from_the_one_that_was_asked() {
    let sockets = dns::bind(([0, 0, 0, 0], 0).into()).unwrap();
    let trial = Trial::on(sockets, Setting { dns: "forward: off", ..Setting::default() });
    for host in 1..5 {
        // The socket hears this address alone.
        let udp = Udp::to(([127, 0, 9, host], trial.address().port()).into()).await;
        assert_eq!(short(&udp.ask(&query("orders.vip.internal.", RecordType::A)).await), "NOERROR 127.84.0.7");
    }
}

#[tokio::test]
async fn questions_of_one_connection_do_not_wait_for_each_other() {
    let slow = Server::start().await;
    slow.silent(true);
    let trial = Trial::forwarding(&[slow.addr]);
    let mut tcp = trial.tcp().await;
    let (other, own) = (query("www.lan.", RecordType::A), query("orders.vip.internal.", RecordType::A));
    tcp.send(&other).await;
    slow.asked_more(1).await;
    tcp.send(&own).await;
    assert_eq!(tcp.receive().await.metadata.id, own.metadata.id);
    slow.a("www.lan", &["10.0.0.1"]);
    slow.silent(false);
    let late = tcp.receive().await;
    assert_eq!((late.metadata.id, short(&late)), (other.metadata.id, "NOERROR 10.0.0.1".into()));
}

#[tokio::test]
async fn other_services_and_other_settings_hold_at_once() {
    let server = Server::start().await;
    server.a("orders", &["10.0.0.1"]);
    let trial = Trial::forwarding(&[server.addr]);
    assert_eq!(trial.short("users.vip.internal.", RecordType::A).await, "NXDOMAIN");
    assert_eq!(trial.short("orders.", RecordType::A).await, "NOERROR 10.0.0.1");
    let with_users = config("bare: on, ttl: 30s, forward: off", "", ", users: { dns: users:80 }");
    trial.table.replace(services(&with_users, &Metrics::new()));
    assert_eq!(trial.short("users.vip.internal.", RecordType::A).await, "NOERROR 127.84.0.8");
    trial.responder.reconfigure(trial.responder.prepare(Settings::of(&with_users, None)).unwrap());
    let bare = trial.ask("orders.", RecordType::A).await;
    assert_eq!((short(&bare), bare.answers[0].ttl), ("NOERROR 127.84.0.7".into(), 30));
    assert_eq!(trial.short("www.lan.", RecordType::A).await, "REFUSED");
}

#[tokio::test]
async fn services_are_made_of_names_and_nobody_else_waits_for_that() {
    let made = Arc::new(AtomicUsize::new(0));
    let go = Arc::new(Notify::new());
    let template = config("", "", "");
    let service = services(&template, &Metrics::new()).find("orders").unwrap().clone();
    let summon = {
        let (made, go) = (made.clone(), go.clone());
        Summon::new(move |name| {
            made.fetch_add(1, Ordering::Relaxed);
            let (service, go) = (service.clone(), go.clone());
            async move {
                match name.as_str() {
                    "slow" => go.notified().await,
                    "never" => std::future::pending().await,
                    _ => {}
                }
                match name.as_str() {
                    "who-knows" => Err(Undecided),
                    name => Ok((name != "nobody").then_some(service)),
                }
            }
        })
    };
    let server = Server::start().await;
    server.a("nobody", &["10.0.0.1"]);
    let dns = format!("bare: on, {}", forward_to(&[server.addr]));
    let trial = Trial::start(Setting { dns: &dns, summon: Some(summon), ..Setting::default() });
    assert_eq!(trial.short("users.vip.internal.", RecordType::A).await, "NOERROR 127.84.0.7");
    assert_eq!(trial.short("users.", RecordType::AAAA).await, "NOERROR");
    assert_eq!(trial.short("nobody.vip.internal.", RecordType::A).await, "NXDOMAIN");
    assert_eq!(trial.short("nobody.", RecordType::A).await, "NOERROR 10.0.0.1", "then it is somebody else's");
    assert_eq!(trial.short("who-knows.vip.internal.", RecordType::A).await, "SERVFAIL", "no answer that is kept");
    assert_eq!(made.load(Ordering::Relaxed), 5);
    assert_eq!(trial.short("orders.vip.internal.", RecordType::A).await, "NOERROR 127.84.0.7");
    assert_eq!(made.load(Ordering::Relaxed), 5, "a name that is there needs no making");
    let slow = Udp::to(trial.address()).await;
    slow.send(&query("slow.vip.internal.", RecordType::A).to_vec().unwrap()).await;
    assert_eq!(trial.short("orders.vip.internal.", RecordType::A).await, "NOERROR 127.84.0.7");
    go.notify_one();
    assert!(!slow.receive().await.is_empty());
    assert_eq!(trial.short("never.vip.internal.", RecordType::A).await, "SERVFAIL", "and nobody waits for ever");
}

#[tokio::test]
async fn no_more_services_are_made_at_once_than_may_be() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let summon = Summon::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        std::future::pending()
    });
    let trial = Trial::start(Setting { dns: "forward: off", summon: Some(summon), ..Setting::default() });
    let udp = Udp::to(trial.address()).await;
    for i in 0..400 {
        udp.send(&query(&format!("n{i}.vip.internal."), RecordType::A).to_vec().unwrap()).await;
    }
    for _ in 0..144 {
        let reply = udp.receive().await;
        assert_eq!(reply[3] & 15, 2, "SERVFAIL at once");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 256);
}
