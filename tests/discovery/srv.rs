//! The `srv` source.

use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};
use outrigger::{config::Source, discovery::Snapshot};

use super::{
    addrs, problem,
    server::{Say, Server, addresses, alias},
    settings, until, watch,
};

const NAME: &str = "_http._tcp.orders.internal";

fn srv() -> Source {
    Source::Srv { name: NAME.into() }
}

fn rows(snapshot: &Snapshot) -> Vec<(String, u16, u32, String)> {
    let row = |e: &outrigger::model::Endpoint| (e.addr.to_string(), e.priority, e.weight, e.authority.to_string());
    snapshot.set.endpoints().iter().map(row).collect()
}

fn row(addr: &str, priority: u16, weight: u32, authority: &str) -> (String, u16, u32, String) {
    (addr.into(), priority, weight, authority.into())
}

#[tokio::test]
async fn priority_weight_and_port_are_the_records() {
    let server = Server::start().await;
    server.srv(NAME, &[(10, 60, 8081, "a.internal"), (10, 0, 8082, "b.internal"), (20, 5, 8083, "C.Internal")], vec![]);
    server.a("a.internal", &["10.0.0.1"]);
    server.aaaa("b.internal", &["fd00::2"]);
    server.a("c.internal", &["10.0.0.3", "10.0.0.4"]);
    let mut orders = watch(&settings(&[server.addr]), &srv());
    let found = until(&mut orders, |s| s.set.revision() == 1).await;
    assert_eq!(
        rows(&found),
        [
            row("10.0.0.1:8081", 10, 60, "a.internal:8081"),
            row("[fd00::2]:8082", 10, 1, "b.internal:8082"),
            row("10.0.0.3:8083", 20, 5, "c.internal:8083"),
            row("10.0.0.4:8083", 20, 5, "c.internal:8083"),
        ]
    );
    assert_eq!(&*found.set.endpoints()[0].origin.detail, NAME);
}

#[tokio::test]
async fn addresses_that_come_along_need_no_lookup() {
    let server = Server::start().await;
    server.srv(NAME, &[(1, 1, 80, "a.internal")], addresses("a.internal", &["10.0.0.1"]));
    let mut orders = watch(&settings(&[server.addr]), &srv());
    assert_eq!(addrs(&until(&mut orders, |s| s.set.revision() == 1).await), ["10.0.0.1:80"]);
    server.asked_more(3).await;
    assert!(server.log().iter().all(|asked| asked.kind == RecordType::SRV));
}

#[tokio::test]
async fn an_alias_may_stand_before_the_records() {
    let server = Server::start().await;
    server.say(NAME, RecordType::SRV, Say::Records(vec![alias(NAME, "_http._tcp.blue.internal")], vec![]));
    server.srv("_http._tcp.blue.internal", &[(1, 1, 80, "a.internal")], vec![]);
    server.a("a.internal", &["10.0.0.1"]);
    let mut orders = watch(&settings(&[server.addr]), &srv());
    assert_eq!(addrs(&until(&mut orders, |s| s.set.revision() == 1).await), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn a_target_whose_lookup_fails_keeps_its_addresses() {
    let server = Server::start().await;
    server.srv(NAME, &[(1, 1, 80, "a.internal"), (1, 1, 80, "b.internal")], vec![]);
    server.a("a.internal", &["10.0.0.1"]);
    server.a("b.internal", &["10.0.0.2"]);
    let mut orders = watch(&settings(&[server.addr]), &srv());
    until(&mut orders, |s| s.set.endpoints().len() == 2).await;
    for kind in [RecordType::A, RecordType::AAAA] {
        server.say("b.internal", kind, Say::Code(ResponseCode::ServFail));
    }
    server.a("a.internal", &["10.0.0.9"]);
    let half = until(&mut orders, |s| s.set.revision() == 2).await;
    assert_eq!(addrs(&half), ["10.0.0.2:80", "10.0.0.9:80"]);
    until(&mut orders, |s| problem(s).starts_with("b.internal: ") && problem(s).ends_with("SERVFAIL")).await;
    server.forget("b.internal");
    let gone = until(&mut orders, |s| s.set.endpoints().len() == 1).await;
    assert_eq!(addrs(&gone), ["10.0.0.9:80"]);
}

#[tokio::test]
async fn the_root_as_target_says_that_there_is_no_service() {
    let server = Server::start().await;
    server.srv(NAME, &[(0, 0, 0, ".")], vec![]);
    let mut orders = watch(&settings(&[server.addr]), &srv());
    let nothing = until(&mut orders, |s| s.status.problem.is_some()).await;
    assert!(problem(&nothing).contains("decidedly not available"));
    assert!(nothing.set.endpoints().is_empty());
}

#[tokio::test]
async fn targets_without_addresses_are_held_and_then_dropped() {
    let server = Server::start().await;
    server.srv(NAME, &[(1, 1, 80, "a.internal")], vec![]);
    server.a("a.internal", &["10.0.0.1"]);
    let mut orders = watch(&settings(&[server.addr]), &srv());
    until(&mut orders, |s| s.set.revision() == 1).await;
    server.forget("a.internal");
    let held = until(&mut orders, |s| s.status.drop_at.is_some()).await;
    assert_eq!((addrs(&held), problem(&held)), (vec!["10.0.0.1:80".to_owned()], "no target has an address"));
    until(&mut orders, |s| s.set.endpoints().is_empty()).await;
}

#[tokio::test]
async fn servfail_keeps_and_nxdomain_drops() {
    let server = Server::start().await;
    server.srv(NAME, &[(1, 1, 80, "a.internal")], addresses("a.internal", &["10.0.0.1"]));
    let mut orders = watch(&settings(&[server.addr]), &srv());
    until(&mut orders, |s| s.set.revision() == 1).await;
    server.say(NAME, RecordType::SRV, Say::Code(ResponseCode::ServFail));
    until(&mut orders, |s| problem(s).contains("SERVFAIL")).await;
    server.asked_more(5).await;
    assert_eq!(addrs(&orders.snapshots.borrow()), ["10.0.0.1:80"]);
    server.forget(NAME);
    until(&mut orders, |s| s.set.endpoints().is_empty() && problem(s) == "NXDOMAIN").await;
}

#[tokio::test]
async fn hundreds_of_targets_are_looked_up_side_by_side() {
    let server = Server::start().await;
    let hosts: Vec<String> = (0..200).map(|i| format!("t{i}.internal")).collect();
    let targets: Vec<_> = hosts.iter().map(|host| (1, 1, 80, host.as_str())).collect();
    server.srv(NAME, &targets, vec![]);
    for (i, host) in hosts.iter().enumerate() {
        server.a(host, &[&format!("10.0.0.{i}")]);
    }
    let mut orders = watch(&settings(&[server.addr]), &srv());
    let found = until(&mut orders, |s| s.set.revision() == 1).await;
    assert_eq!(found.set.endpoints().len(), 200);
}
