//! Endpoints that come and go, with a DNS server in this process and with files.

use std::net::SocketAddr;

use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};

use crate::{
    server::{Say, Server},
    support::{Client, Exchange, Held, Origin, Process, Sidecar, eventually, ok},
};

/// Answers every request with a text.
async fn serve(mut exchange: Exchange, text: &'static str) {
    while exchange.request().await.is_some() {
        exchange.send(ok(text)).await;
    }
}

/// Two upstreams at two addresses with one port, as instances of one name are.
async fn twins() -> (Origin, Origin) {
    for _ in 0..50 {
        let one = Origin::scripted(|exchange| serve(exchange, "one")).await;
        let other = SocketAddr::from(([127, 0, 0, 2], one.addr().port()));
        if std::net::TcpListener::bind(other).is_ok() {
            return (one, Origin::scripted_at(other, |exchange| serve(exchange, "two")).await);
        }
    }
    panic!("no port is free at both addresses");
}

fn resolver(server: &Server, rest: &str) -> String {
    format!("resolver: {{servers: ['{}'], ttl: {{min: 20ms, max: 50ms}}{rest}}}\n", server.addr)
}

#[tokio::test]
async fn it_starts_without_an_answer_and_is_ready_with_one() {
    let (one, _two) = twins().await;
    let server = Server::start().await;
    server.silent(true);
    let yaml = format!(
        "{}services: {{a: {{dns: 'a.test:{}', timeout: 1h}}}}",
        resolver(&server, ", timeout: 100ms"),
        one.addr().port()
    );
    let sidecar = Sidecar::start_unready(&yaml);
    for _ in 0..3 {
        let ready = sidecar.observe("/health/ready").await;
        assert_eq!((ready.status, ready.text().contains("a: no endpoints yet")), (503, true), "{}", ready.text());
        assert_eq!(sidecar.get("a", "/").await.reason(), "no_endpoints");
    }
    eventually("the problem to be told", async || sidecar.view("a").await.source.problem.is_some()).await;
    server.a("a.test", &["127.0.0.1"]);
    server.silent(false);
    eventually("readiness", async || sidecar.observe("/health/ready").await.status == 200).await;
    assert_eq!(sidecar.get("a", "/").await.text(), "one");
    let view = sidecar.view("a").await;
    assert_eq!((view.source.kind.as_str(), view.endpoints[0].origin.as_str()), ("dns", "dns a.test"));
}

#[tokio::test]
async fn a_connect_failure_has_the_name_looked_up_early() {
    let (one, two) = twins().await;
    let server = Server::start().await;
    server.a("a.test", &["127.0.0.1"]);
    let yaml = format!(
        "resolver: {{servers: ['{}'], ttl: {{min: 50ms, max: 1h}}}}\nservices: {{a: {{dns: 'a.test:{}', breaker: off}}}}",
        server.addr,
        one.addr().port()
    );
    let sidecar = Sidecar::start(&yaml).await;
    assert_eq!(sidecar.get("a", "/").await.text(), "one");
    server.a("a.test", &["127.0.0.2"]);
    drop(one);
    eventually("the replacement", async || {
        let reply = sidecar.get("a", "/").await;
        reply.status == 200 && reply.text() == "two"
    })
    .await;
    assert_eq!(sidecar.view("a").await.endpoints[0].addr, two.addr());
    drop(sidecar);
}

#[tokio::test]
async fn scaling_up_and_down_loses_no_call() {
    let (one, two) = twins().await;
    let server = Server::start().await;
    server.a("a.test", &["127.0.0.1"]);
    let yaml = format!("{}services: {{a: {{dns: 'a.test:{}'}}}}", resolver(&server, ""), one.addr().port());
    let sidecar = Sidecar::start(&yaml).await;
    let mut client = sidecar.client().await;
    for (addrs, n) in [(&["127.0.0.1", "127.0.0.2"][..], 2), (&["127.0.0.2"], 1), (&["127.0.0.2", "127.0.0.1"], 2)] {
        server.a("a.test", addrs);
        eventually("the new endpoints", async || {
            let reply = sidecar.get("a", "/").await;
            assert_eq!(reply.status, 200);
            sidecar.view("a").await.endpoints.len() == n
        })
        .await;
        for _ in 0..10 {
            assert_eq!(client.get("a", "/", "").await.status, 200);
        }
        if n == 1 {
            assert_eq!(client.get("a", "/", "").await.text(), "two");
        }
    }
    assert_eq!(sidecar.view("a").await.calls.keys().collect::<Vec<_>>(), ["ok"]);
    drop((one, two));
}

#[tokio::test]
async fn a_removed_endpoint_finishes_its_call_and_loses_its_idle_connections() {
    let held = Held::start().await;
    let other = Origin::ok("other").await;
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.yaml");
    let write = |addr: SocketAddr| {
        std::fs::write(folder.path().join("new"), format!("[{{address: '{addr}'}}]")).unwrap();
        std::fs::rename(folder.path().join("new"), &list).unwrap();
    };
    write(held.addr());
    let sidecar = Sidecar::start(&format!("workers: 1\nservices: {{a: {{file: '{}'}}}}", list.display())).await;
    let mut calls = Vec::new();
    for n in 1..=2 {
        let mut call = sidecar.client().await;
        call.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        held.has_read(n).await;
        calls.push(call);
    }
    held.release(1);
    eventually("a connection to be idle", async || sidecar.calls("a", "ok").await == 1).await;
    write(other.addr());
    eventually("the other endpoint", async || sidecar.view("a").await.endpoints[0].addr == other.addr()).await;
    assert_eq!(sidecar.get("a", "/").await.text(), "other");
    let connections = async || sidecar.metrics().await["outrigger_connections{service=\"a\",side=\"upstream\"}"];
    eventually("the idle one to close", async || connections().await <= 2.0).await;
    held.release(1);
    for (n, call) in calls.iter_mut().enumerate() {
        assert_eq!(call.reply().await.text(), format!("/{}", n + 1));
    }
    eventually("both to close", async || connections().await <= 1.0).await;
    assert_eq!(sidecar.calls("a", "upstream_reset").await, 0);
}

#[tokio::test]
async fn what_is_in_use_at_a_removed_endpoint_is_cut_at_the_drain_limit() {
    let held = Held::start().await;
    let other = Origin::ok("other").await;
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.yaml");
    std::fs::write(&list, format!("[{{address: '{}'}}]", held.addr())).unwrap();
    let yaml = format!("drain: {{for: 100ms}}\nservices: {{a: {{file: '{}', timeout: 1h}}}}", list.display());
    let sidecar = Sidecar::start(&yaml).await;
    let mut call = sidecar.client().await;
    call.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    held.has_read(1).await;
    std::fs::write(folder.path().join("new"), format!("[{{address: '{}'}}]", other.addr())).unwrap();
    std::fs::rename(folder.path().join("new"), &list).unwrap();
    let reply = call.reply().await;
    assert_eq!((reply.status, reply.reason().as_str()), (502, "upstream_reset"));
    let breaker = sidecar.view("a").await.breaker.unwrap();
    assert_eq!((breaker.calls, breaker.failures), (0, 0), "that we cut it says nothing about the service");
}

#[tokio::test]
async fn a_name_that_is_gone_is_held_for_a_while_and_one_that_fails_for_good() {
    let (one, _two) = twins().await;
    let server = Server::start().await;
    server.a("a.test", &["127.0.0.1"]);
    let yaml = format!("{}services: {{a: {{dns: 'a.test:{}'}}}}", resolver(&server, ", hold: 1h"), one.addr().port());
    let sidecar = Sidecar::start(&yaml).await;
    for code in [ResponseCode::NXDomain, ResponseCode::ServFail, ResponseCode::Refused] {
        server.say("a.test", RecordType::A, Say::Code(code));
        server.say("a.test", RecordType::AAAA, Say::Code(code));
        eventually("the problem to be told", async || sidecar.view("a").await.source.problem.is_some()).await;
        server.asked_more(4).await;
        assert_eq!(sidecar.get("a", "/").await.text(), "one", "{code}");
        server.forget("a.test");
        server.a("a.test", &["127.0.0.1"]);
        eventually("the problem to be over", async || sidecar.view("a").await.source.problem.is_none()).await;
    }
}

#[tokio::test]
async fn after_the_hold_there_are_no_endpoints_and_then_again_some() {
    let (one, _two) = twins().await;
    let server = Server::start().await;
    server.a("a.test", &["127.0.0.1"]);
    let yaml = format!("{}services: {{a: {{dns: 'a.test:{}'}}}}", resolver(&server, ", hold: 50ms"), one.addr().port());
    let sidecar = Sidecar::start(&yaml).await;
    assert_eq!(sidecar.get("a", "/").await.text(), "one");
    server.forget("a.test");
    eventually("the endpoint to be dropped", async || sidecar.get("a", "/").await.status == 503).await;
    assert_eq!(sidecar.get("a", "/").await.reason(), "no_endpoints");
    assert_eq!(sidecar.observe("/health/ready").await.status, 200, "ready once is ready");
    server.a("a.test", &["127.0.0.1"]);
    eventually("the endpoint's return", async || sidecar.get("a", "/").await.status == 200).await;
}

#[tokio::test]
async fn srv_priorities_and_weights_are_honoured() {
    let origins = [Origin::ok("0").await, Origin::ok("1").await, Origin::ok("2").await];
    let ports = origins.each_ref().map(|origin| origin.addr().port());
    let server = Server::start().await;
    server.a("host.test", &["127.0.0.1"]);
    let name = "_http._tcp.a.test";
    server.srv(
        name,
        &[(10, 3, ports[0], "host.test"), (10, 1, ports[1], "host.test"), (20, 9, ports[2], "host.test")],
        vec![],
    );
    let yaml = format!("workers: 1\n{}services: {{a: {{srv: {name}, balance: round_robin}}}}", resolver(&server, ""));
    let sidecar = Sidecar::start(&yaml).await;
    let mut client = sidecar.client().await;
    for _ in 0..40 {
        assert_eq!(client.get("a", "/", "").await.status, 200);
    }
    assert_eq!(origins.each_ref().map(Origin::requests), [30, 10, 0]);
    server.srv(name, &[(20, 9, ports[2], "host.test")], vec![]);
    eventually("the next group", async || client_says(&sidecar, "2").await).await;
    // An operator can also take the first group away.
    server.srv(name, &[(10, 1, ports[0], "host.test"), (20, 1, ports[1], "host.test")], vec![]);
    eventually("the first group", async || client_says(&sidecar, "0").await).await;
    crate::support::admin(sidecar.admin(), &format!("/drain/127.0.0.1:{}", ports[0])).await;
    assert!(client_says(&sidecar, "1").await);
}

async fn client_says(sidecar: &Sidecar, text: &str) -> bool {
    sidecar.get("a", "/").await.text() == text
}

#[tokio::test]
async fn a_file_that_is_half_written_or_gone_keeps_the_last_good_set() {
    let origin = Origin::ok("x").await;
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.json");
    let good = format!("[{{\"address\": \"{}\", \"weight\": 2}}]", origin.addr());
    std::fs::write(&list, &good).unwrap();
    let sidecar = Sidecar::start(&format!("services: {{a: {{file: '{}'}}}}", list.display())).await;
    std::fs::write(&list, &good[..good.len() / 2]).unwrap();
    eventually("the problem to be told", async || sidecar.view("a").await.source.problem.is_some()).await;
    assert_eq!(sidecar.get("a", "/").await.text(), "x");
    std::fs::remove_file(&list).unwrap();
    assert_eq!(sidecar.get("a", "/").await.text(), "x");
    std::fs::write(&list, &good).unwrap();
    eventually("the problem to be over", async || sidecar.view("a").await.source.problem.is_none()).await;
}

#[tokio::test]
async fn other_servers_take_over_at_a_reload_without_a_gap() {
    let (one, two) = twins().await;
    let (before, after) = (Server::start().await, Server::start().await);
    before.a("a.test", &["127.0.0.1"]);
    after.a("a.test", &["127.0.0.2"]);
    let services = format!("services: {{a: {{dns: 'a.test:{}'}}}}", one.addr().port());
    let process = Process::start(&(resolver(&before, ", hold: 50ms") + &services)).await;
    let mut client = Client::connect(process.http).await;
    assert_eq!(client.get("a", "/", "").await.text(), "one");
    // The same revision of another set: what the balancer has laid out for the one must not serve the other.
    process.reload(&(resolver(&after, ", hold: 50ms") + &services)).await;
    eventually("the other server's answer", async || {
        let reply = process.get("a", "/").await;
        assert_eq!(reply.status, 200);
        reply.text() == "two"
    })
    .await;
    assert_eq!(client.get("a", "/", "").await.text(), "two");
    // Servers that know nothing of the name: held, then dropped.
    let ignorant = Server::start().await;
    process.reload(&(resolver(&ignorant, ", hold: 50ms") + &services)).await;
    eventually("the endpoint to be dropped", async || process.get("a", "/").await.status == 503).await;
    drop(two);
}

#[tokio::test]
async fn a_tunnel_to_a_removed_endpoint_is_cut_at_the_drain_limit_too() {
    let echo = Origin::scripted(|mut exchange| async move {
        exchange.request().await;
        exchange.send("HTTP/1.1 101 x\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n").await;
        exchange.closed().await;
    })
    .await;
    let other = Origin::ok("other").await;
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.yaml");
    std::fs::write(&list, format!("[{{address: '{}'}}]", echo.addr())).unwrap();
    let yaml = format!("drain: {{for: 100ms}}\nservices: {{a: {{file: '{}'}}}}", list.display());
    let sidecar = Sidecar::start(&yaml).await;
    let mut socket = sidecar.client().await;
    socket.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
    assert!(socket.head().await.unwrap().starts_with("HTTP/1.1 101"));
    std::fs::write(folder.path().join("new"), format!("[{{address: '{}'}}]", other.addr())).unwrap();
    std::fs::rename(folder.path().join("new"), &list).unwrap();
    assert!(socket.closed().await.is_empty());
    eventually("everything to be given back", async || sidecar.is_quiet("a").await).await;
}
