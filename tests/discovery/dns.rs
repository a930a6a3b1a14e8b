//! The `dns` source.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};
use outrigger::{
    config::Nameserver,
    discovery::Discovery,
    model::{Random, ServiceName, SourceKind},
    net::resolve::{Question, Resolver, System},
    telemetry::metrics::Metrics,
};

use super::{
    addrs, dns, problem,
    server::{self, Say, Server, Transport, addresses, alias},
    settings, until, watch,
};

#[tokio::test]
async fn endpoints_come_and_go_with_the_records_whatever_their_ttl() {
    let server = Server::start().await;
    server.a("orders", &["10.0.0.1"]);
    let mut orders = watch(&settings(&[server.addr]), &dns("orders"));
    let first = until(&mut orders, |s| !s.set.endpoints().is_empty()).await;
    assert_eq!(addrs(&first), ["10.0.0.1:8080"]);
    let endpoint = &first.set.endpoints()[0];
    assert_eq!(
        (&*endpoint.authority, endpoint.origin.kind, &*endpoint.origin.detail),
        ("orders:8080", SourceKind::Dns, "orders")
    );
    server.a("orders", &["10.0.0.2", "10.0.0.1"]);
    let grown = until(&mut orders, |s| s.set.endpoints().len() == 2).await;
    assert_eq!(addrs(&grown), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    server.a("orders", &["10.0.0.2"]);
    let shrunk = until(&mut orders, |s| s.set.endpoints().len() == 1).await;
    assert_eq!(addrs(&shrunk), ["10.0.0.2:8080"]);
    assert_eq!((first.set.revision(), grown.set.revision(), shrunk.set.revision()), (1, 2, 3));
    assert_eq!(shrunk.status.problem, None);
}

#[tokio::test]
async fn shuffled_answers_are_no_change() {
    let server = Server::start().await;
    server.a("orders", &["10.0.0.1", "10.0.0.2"]);
    let mut orders = watch(&settings(&[server.addr]), &dns("orders"));
    until(&mut orders, |s| s.set.revision() == 1).await;
    server.a("orders", &["10.0.0.2", "10.0.0.1"]);
    server.asked_more(8).await;
    assert_eq!(orders.snapshots.borrow().set.revision(), 1);
}

/// A failure of any kind changes nothing but the problem, for much longer than the hold.
async fn keeps(say: Say, expected: &str) {
    let server = Server::start().await;
    server.a("orders", &["10.0.0.1"]);
    let mut settings = settings(&[server.addr]);
    settings.timeout = Duration::from_millis(100);
    settings.hold = Duration::ZERO;
    let mut orders = watch(&settings, &dns("orders"));
    until(&mut orders, |s| s.set.revision() == 1).await;
    server.say("orders", RecordType::A, say.clone());
    server.say("orders", RecordType::AAAA, say);
    let troubled = until(&mut orders, |s| s.status.problem.is_some()).await;
    assert!(problem(&troubled).contains(expected), "{}", problem(&troubled));
    server.asked_more(6).await;
    assert_eq!(addrs(&orders.snapshots.borrow()), ["10.0.0.1:8080"]);
    server.say("orders", RecordType::AAAA, Say::Code(ResponseCode::NoError));
    server.a("orders", &["10.0.0.9"]);
    let well = until(&mut orders, |s| s.status.problem.is_none()).await;
    assert_eq!(addrs(&well), ["10.0.0.9:8080"]);
}

#[tokio::test]
async fn servfail_keeps_the_last_good_set() {
    keeps(Say::Code(ResponseCode::ServFail), "SERVFAIL").await;
}

#[tokio::test]
async fn refused_keeps_the_last_good_set() {
    keeps(Say::Code(ResponseCode::Refused), "REFUSED").await;
}

#[tokio::test]
async fn silence_keeps_the_last_good_set() {
    keeps(Say::Silence, "no answer in time").await;
}

#[tokio::test]
async fn garbage_keeps_the_last_good_set() {
    keeps(Say::Garbage(vec![]), "").await;
    keeps(Say::Garbage(vec![0xff; 3]), "").await;
    keeps(Say::Garbage(vec![0xff; 400]), "").await;
    // A header that promises an answer, and a name that points at itself.
    keeps(Say::Garbage(b"\x81\x80\0\x01\0\x01\0\0\0\0\xc0\x0c\0\x01\0\x01".to_vec()), "").await;
}

#[tokio::test]
async fn a_referral_keeps_the_last_good_set() {
    keeps(Say::Referral, "refers to other servers").await;
}

#[tokio::test]
async fn a_circle_of_aliases_keeps_the_last_good_set() {
    keeps(Say::Records(vec![alias("orders", "orders")], vec![]), "alias").await;
}

/// A definite "there is none" keeps the set for the hold, then drops it; records are back at once.
async fn drops(gone: impl Fn(&Server), expected: &str) {
    let server = Server::start().await;
    server.a("orders", &["10.0.0.1"]);
    let mut orders = watch(&settings(&[server.addr]), &dns("orders"));
    until(&mut orders, |s| s.set.revision() == 1).await;
    gone(&server);
    let held = until(&mut orders, |s| s.status.drop_at.is_some()).await;
    assert_eq!(addrs(&held), ["10.0.0.1:8080"]);
    assert_eq!(problem(&held), expected);
    let dropped = until(&mut orders, |s| s.set.endpoints().is_empty()).await;
    assert!(held.status.drop_at.is_some_and(|at| at <= tokio::time::Instant::now().into_std()), "dropped too early");
    assert_eq!(dropped.set.revision(), 2);
    server.a("orders", &["10.0.0.1"]);
    let back = until(&mut orders, |s| !s.set.endpoints().is_empty()).await;
    assert_eq!((back.set.revision(), problem(&back)), (3, ""));
}

#[tokio::test]
async fn nxdomain_drops_the_set_after_the_hold() {
    drops(|server| server.forget("orders"), "NXDOMAIN").await;
}

#[tokio::test]
async fn an_empty_answer_drops_the_set_after_the_hold() {
    drops(|server| server.a("orders", &[]), "no A or AAAA records").await;
}

#[tokio::test]
async fn a_name_that_is_not_there_yet_is_found_when_it_comes() {
    let server = Server::start().await;
    let mut orders = watch(&settings(&[server.addr]), &dns("orders"));
    let nothing = until(&mut orders, |s| s.status.problem.is_some()).await;
    assert_eq!((problem(&nothing), nothing.set.revision(), nothing.status.drop_at), ("NXDOMAIN", 0, None::<Instant>));
    server.a("orders", &["10.0.0.1"]);
    until(&mut orders, |s| s.set.revision() == 1).await;
}

#[tokio::test]
async fn a_server_that_goes_silent_and_comes_back_is_heard_again() {
    let server = Server::start().await;
    server.a("orders", &["10.0.0.1"]);
    let mut settings = settings(&[server.addr]);
    settings.timeout = Duration::from_millis(50);
    let mut orders = watch(&settings, &dns("orders"));
    until(&mut orders, |s| s.set.revision() == 1).await;
    server.silent(true);
    until(&mut orders, |s| s.status.problem.is_some()).await;
    server.a("orders", &["10.0.0.2"]);
    server.silent(false);
    let back = until(&mut orders, |s| s.set.revision() == 2).await;
    assert_eq!(addrs(&back), ["10.0.0.2:8080"]);
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let server = Server::start().await;
    let many: Vec<String> = (0..500).map(|i| format!("10.0.{}.{}", i / 250, i % 250)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    server.say("orders", RecordType::A, Say::Truncated(addresses("orders", &many)));
    let mut orders = watch(&settings(&[server.addr]), &dns("orders"));
    let all = until(&mut orders, |s| s.set.revision() == 1).await;
    assert_eq!(all.set.endpoints().len(), 500);
    let transports: Vec<_> =
        server.log().iter().filter(|a| a.kind == RecordType::A).map(|a| a.transport).take(2).collect();
    assert_eq!(transports, [Transport::Udp, Transport::Tcp]);
}

#[tokio::test]
async fn a_connection_that_is_stuck_is_not_used_again() {
    let server = Server::start().await;
    server.stuck(true);
    server.say("orders", RecordType::A, Say::Truncated(addresses("orders", &["10.0.0.1"])));
    let mut settings = settings(&[server.addr]);
    settings.timeout = Duration::from_millis(200);
    let mut orders = watch(&settings, &dns("orders"));
    until(&mut orders, |s| problem(s).contains("no answer in time")).await;
    server.stuck(false);
    until(&mut orders, |s| s.set.revision() == 1).await;
}

#[tokio::test]
async fn a_forged_answer_with_another_id_is_passed_over() {
    let server = Server::start().await;
    server.say("orders", RecordType::A, Say::AfterForgery(addresses("orders", &["10.0.0.1"])));
    let mut orders = watch(&settings(&[server.addr]), &dns("orders"));
    assert_eq!(addrs(&until(&mut orders, |s| s.set.revision() == 1).await), ["10.0.0.1:8080"]);
}

#[tokio::test]
async fn aliases_are_followed_within_an_answer_and_beyond_it() {
    let server = Server::start().await;
    let mut chain = vec![alias("orders", "a.internal"), alias("a.internal", "b.internal")];
    chain.extend(addresses("b.internal", &["10.0.0.1"]));
    server.say("orders", RecordType::A, Say::Records(chain, vec![]));
    server.say("users", RecordType::A, Say::Records(vec![alias("users", "c.internal")], vec![]));
    server.a("c.internal", &["10.0.0.2"]);
    let settings = settings(&[server.addr]);
    for (host, expected) in [("orders", "10.0.0.1:8080"), ("users", "10.0.0.2:8080")] {
        let mut found = watch(&settings, &dns(host));
        let found = until(&mut found, |s| s.set.revision() == 1).await;
        assert_eq!(addrs(&found), [expected]);
        assert_eq!(&*found.set.endpoints()[0].authority, format!("{host}:8080"), "the alias stays inside");
    }
}

#[tokio::test]
async fn records_of_other_names_are_not_taken() {
    let server = Server::start().await;
    let mut records = addresses("orders", &["10.0.0.1"]);
    records.extend(addresses("evil", &["192.0.2.66"]));
    server.say("orders", RecordType::A, Say::Records(records, vec![]));
    let mut orders = watch(&settings(&[server.addr]), &dns("orders"));
    assert_eq!(addrs(&until(&mut orders, |s| s.set.revision() == 1).await), ["10.0.0.1:8080"]);
}

#[tokio::test]
async fn ipv6_alone_is_enough() {
    let server = Server::start().await;
    server.aaaa("orders", &["fd00::1"]);
    let mut orders = watch(&settings(&[server.addr]), &dns("orders"));
    let found = until(&mut orders, |s| s.set.revision() == 1).await;
    assert_eq!((addrs(&found), problem(&found)), (vec!["[fd00::1]:8080".to_owned()], ""));
}

#[tokio::test]
async fn one_family_that_fails_does_not_take_the_other_along() {
    let server = Server::start().await;
    server.a("orders", &["10.0.0.1"]);
    server.say("orders", RecordType::AAAA, Say::Code(ResponseCode::ServFail));
    let mut orders = watch(&settings(&[server.addr]), &dns("orders"));
    let found = until(&mut orders, |s| s.set.revision() == 1).await;
    assert_eq!(addrs(&found), ["10.0.0.1:8080"]);
    assert!(problem(&found).contains("AAAA") && problem(&found).contains("SERVFAIL"), "{}", problem(&found));
}

#[tokio::test]
async fn a_nudge_brings_the_next_look_forward() {
    let server = Server::start().await;
    server.a("orders", &["10.0.0.1"]);
    let mut settings = settings(&[server.addr]);
    settings.ttl_max = Duration::from_secs(3600);
    let mut orders = watch(&settings, &dns("orders"));
    until(&mut orders, |s| s.set.revision() == 1).await;
    server.a("orders", &["10.0.0.2"]);
    orders.nudge.now();
    assert_eq!(addrs(&until(&mut orders, |s| s.set.revision() == 2).await), ["10.0.0.2:8080"]);
    assert_eq!(server.log().len(), 4, "two looks, two families each");
}

#[tokio::test]
async fn an_unwilling_server_leads_to_the_next_one() {
    let (unwilling, willing) = (Server::start().await, Server::start().await);
    unwilling.say("orders", RecordType::A, Say::Code(ResponseCode::Refused));
    unwilling.say("orders", RecordType::AAAA, Say::Code(ResponseCode::ServFail));
    willing.a("orders", &["10.0.0.1"]);
    let mut orders = watch(&settings(&[unwilling.addr, willing.addr]), &dns("orders"));
    let found = until(&mut orders, |s| s.set.revision() == 1).await;
    assert_eq!((addrs(&found), problem(&found)), (vec!["10.0.0.1:8080".to_owned()], ""));
}

#[tokio::test]
async fn a_server_that_denies_the_name_is_believed_in_its_order() {
    let (first, second) = (Server::start().await, Server::start().await);
    second.a("orders", &["10.0.0.1"]);
    let mut orders = watch(&settings(&[first.addr, second.addr]), &dns("orders"));
    assert_eq!(problem(&until(&mut orders, |s| s.status.problem.is_some()).await), "NXDOMAIN");
    assert!(second.log().is_empty());
}

#[tokio::test]
async fn a_dead_server_costs_one_lookup_its_share_and_the_others_nothing() {
    let (dead, live) = (Server::start().await, Server::start().await);
    dead.silent(true);
    live.a("orders", &["10.0.0.1"]);
    let mut settings = settings(&[dead.addr, live.addr]);
    settings.timeout = Duration::from_millis(200);
    let mut orders = watch(&settings, &dns("orders"));
    until(&mut orders, |s| s.set.revision() == 1).await;
    let asked = dead.log().len();
    live.asked_more(20).await;
    assert_eq!(dead.log().len(), asked, "a silent server is left alone for a while");
}

#[tokio::test]
async fn short_names_are_searched_for_as_resolv_conf_says_and_it_is_read_again() {
    let server = Server::start().await;
    server.a("orders.a.internal", &["10.0.0.1"]);
    server.a("orders.b.internal", &["10.0.0.2"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resolv.conf");
    let search = |domain: &str| {
        let fresh = dir.path().join("fresh");
        std::fs::write(&fresh, format!("nameserver 127.0.0.1\nsearch none.internal {domain}\n")).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
    };
    search("a.internal");
    let mut settings = settings(&[]);
    settings.servers = vec![Nameserver::System];
    let system = System { path: path.clone(), port: server.addr.port(), ..System::default() };
    let resolver = Resolver::with_system(&settings, system).unwrap();
    let discovery = Discovery::with_resolver(resolver, &settings, Metrics::new());
    let mut orders = discovery.watch(&ServiceName::parse("orders").unwrap(), &dns("orders"));
    let found = until(&mut orders, |s| s.set.revision() == 1).await;
    assert_eq!(addrs(&found), ["10.0.0.1:8080"]);
    assert_eq!(&*found.set.endpoints()[0].authority, "orders:8080");
    let asked: Vec<_> = server.log().into_iter().filter(|a| a.kind == RecordType::A).map(|a| a.name).take(2).collect();
    assert_eq!(asked, ["orders.none.internal", "orders.a.internal"]);
    std::fs::write(&path, "").unwrap();
    server.asked_more(6).await;
    assert_eq!(orders.snapshots.borrow().set.revision(), 1, "half a resolv.conf changes nothing");
    assert_eq!(problem(&orders.snapshots.borrow()), "");
    search("b.internal");
    assert_eq!(addrs(&until(&mut orders, |s| s.set.revision() == 2).await), ["10.0.0.2:8080"]);
    // A name that has had an answer is not looked past while its server is ill.
    server.a("orders", &["192.0.2.66"]);
    server.say("orders.b.internal", RecordType::A, Say::Code(ResponseCode::ServFail));
    server.say("orders.b.internal", RecordType::AAAA, Say::Code(ResponseCode::ServFail));
    until(&mut orders, |s| problem(s).contains("SERVFAIL")).await;
    assert_eq!(addrs(&orders.snapshots.borrow()), ["10.0.0.2:8080"]);
}

#[tokio::test]
async fn localhost_and_literals_need_no_server() {
    let server = Server::start().await;
    let settings = settings(&[server.addr]);
    for (host, expected, authority) in [
        ("localhost", vec!["127.0.0.1:8080", "[::1]:8080"], "localhost:8080"),
        ("10.0.0.1", vec!["10.0.0.1:8080"], "10.0.0.1:8080"),
        ("fd00::1", vec!["[fd00::1]:8080"], "[fd00::1]:8080"),
    ] {
        let mut found = watch(&settings, &dns(host));
        let found = until(&mut found, |s| s.set.revision() == 1).await;
        assert_eq!(addrs(&found), expected);
        assert_eq!(&*found.set.endpoints()[0].authority, authority);
        assert_eq!(found.status.next_look, None);
    }
    assert!(server.log().is_empty());
}

#[tokio::test]
async fn what_is_no_dns_name_fails_and_says_so() {
    let server = Server::start().await;
    let mut odd = watch(&settings(&[server.addr]), &dns(&"a".repeat(64)));
    assert!(problem(&until(&mut odd, |s| s.status.problem.is_some()).await).contains("is not a DNS name"));
}

#[tokio::test]
async fn looks_are_counted_by_result() {
    let server = Server::start().await;
    server.a("orders", &["10.0.0.1"]);
    let metrics = Metrics::new();
    let mut settings = settings(&[server.addr]);
    settings.ttl_max = Duration::from_secs(3600);
    let discovery = Discovery::new(&settings, metrics.clone()).unwrap();
    let mut orders = discovery.watch(&ServiceName::parse("orders").unwrap(), &dns("orders"));
    let mut lost = discovery.watch(&ServiceName::parse("lost").unwrap(), &dns("lost"));
    until(&mut orders, |s| s.set.revision() == 1).await;
    until(&mut lost, |s| s.status.problem.is_some()).await;
    let text = String::from_utf8(metrics.render()).unwrap();
    let count = |line: &str| text.contains(line);
    assert!(count(r#"updates_total{result="changed",service="orders",source="dns"} 1"#), "{text}");
    assert!(count(r#"updates_total{result="empty",service="lost",source="dns"} 1"#), "{text}");
}

#[tokio::test]
async fn two_thousand_services_start_together() {
    let server = Server::start().await;
    let settings = settings(&[server.addr]);
    let settings = outrigger::config::Resolver { ttl_max: Duration::from_secs(3600), ..settings };
    let discovery = Discovery::new(&settings, Metrics::new()).unwrap();
    let mut services: Vec<_> = (0..2000)
        .map(|i| {
            let host = format!("service-{i}.internal");
            server.a(&host, &[&format!("10.1.{}.{}", i / 250, i % 250)]);
            discovery.watch(&ServiceName::parse(&host).unwrap(), &dns(&host))
        })
        .collect();
    for (i, service) in services.iter_mut().enumerate() {
        let found = until(service, |s| !s.set.endpoints().is_empty()).await;
        assert_eq!(addrs(&found), [format!("10.1.{}.{}:8080", i / 250, i % 250)]);
    }
}

#[tokio::test]
async fn lookups_in_flight_are_limited() {
    let server = Server::start().await;
    server.silent(true);
    let mut settings = settings(&[server.addr]);
    settings.timeout = Duration::from_secs(60);
    let discovery = Discovery::new(&settings, Metrics::new()).unwrap();
    let services: Vec<_> = (0..2000)
        .map(|i| discovery.watch(&ServiceName::parse("orders").unwrap(), &dns(&format!("service-{i}"))))
        .collect();
    // Both families of the first 64, and all of them once more when no answer has come.
    server.asked_more(4 * 64).await;
    let names: HashSet<_> = server.log().into_iter().map(|asked| asked.name).collect();
    assert_eq!(names.len(), 64);
    drop(services);
}

/// Answers with some bytes flipped, cut or added; the seed of a failure is printed.
#[tokio::test]
async fn no_answer_is_odd_enough_to_panic() {
    let server = Server::start().await;
    let mut settings = settings(&[server.addr]);
    settings.timeout = Duration::from_millis(4);
    let resolver = Resolver::new(&settings).unwrap();
    let mut chain = vec![alias("orders", "a.internal")];
    chain.extend(addresses("a.internal", &["10.0.0.1", "10.0.0.2"]));
    let sound = server::answer_bytes("orders", RecordType::A, chain);
    for seed in 0..400 {
        println!("seed {seed}");
        let mut random = Random::seeded(seed);
        let mut bytes = sound.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u32) as usize;
            match random.below(4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes.insert(at, random.bits() as u8),
                _ => bytes[at] = random.bits() as u8,
            }
        }
        for kind in [RecordType::A, RecordType::AAAA] {
            server.say("orders", kind, Say::Garbage(bytes.clone()));
        }
        resolver.addresses(&mut Question::new("orders")).await;
    }
    server.a("orders", &["10.0.0.1"]);
    server.say("orders", RecordType::AAAA, Say::Code(ResponseCode::NoError));
    settings.timeout = Duration::from_secs(5);
    let mut orders = watch(&settings, &dns("orders"));
    until(&mut orders, |s| s.set.revision() == 1).await;
}
