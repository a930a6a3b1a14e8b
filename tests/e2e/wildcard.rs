//! The service `*`: names that nobody has declared.

use std::{
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};

use crate::{
    server::{Say, Server},
    support::{Client, Origin, Process, Sidecar, eventually, origin::ok},
};

/// A sidecar whose `*` is looked up at this server, at the port of the origin.
fn yaml(server: &Server, origin: &Origin, rest: &str, limits: &str) -> String {
    format!(
        "resolver: {{servers: ['{}'], ttl: {{min: 20ms, max: 50ms}}, timeout: 300ms}}\nlimits: {{wildcard: {{{limits}}}}}\n\
         services: {{declared: {{static: ['{}']}}, '*': {{dns: '{{name}}.test:{}'{rest}}}}}",
        server.addr,
        origin.addr(),
        origin.addr().port()
    )
}

/// The same as a block, to which services can be added, for a sidecar that is reloaded.
fn block(server: &Server, origin: &Origin, limits: &str) -> String {
    format!(
        "resolver: {{servers: ['{}'], timeout: 5s}}\nlimits: {{wildcard: {{{limits}}}}}\nservices:\n  \
         '*': {{dns: '{{name}}.test:{}'}}",
        server.addr,
        origin.addr().port()
    )
}

async fn names(sidecar: &Sidecar) -> Vec<String> {
    let services: serde_json::Value = serde_json::from_slice(&sidecar.observe("/api/services").await.body).unwrap();
    let all = services["services"].as_array().unwrap();
    all.iter().map(|service| service["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_name_that_resolves_is_a_service() {
    let server = Server::start().await;
    server.a("orders.test", &["127.0.0.1"]);
    server.a("a.b.test", &["127.0.0.1"]);
    let origin = Origin::answering(ok("hi")).await;
    let sidecar = Sidecar::start(&yaml(&server, &origin, ", timeout: 3s", "")).await;
    assert_eq!(names(&sidecar).await, ["declared"]);
    let mut client = sidecar.client().await;
    for host in ["orders", "ORDERS:8080", "orders.vip.internal", "a.b", "declared"] {
        let reply = client.get(host, "/", "").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "hi"), "{host}");
    }
    assert_eq!(names(&sidecar).await, ["declared", "orders", "a.b"]);
    let view = sidecar.view("orders").await;
    assert_eq!(view.policy["timeout.request"].value, "3s");
    assert!(view.made && !sidecar.view("declared").await.made);
    assert_eq!(view.source.detail, format!("orders.test:{}", origin.addr().port()));
    sidecar.settles("orders", &[("ok", 3)]).await;
    // Where a service of its own is declared, that is the one.
    assert!(sidecar.view("declared").await.source.detail == "config");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_none() {
    let server = Server::start().await;
    server.say("ill.test", RecordType::A, Say::Code(ResponseCode::ServFail));
    server.say("mute.test", RecordType::A, Say::Silence);
    server.a("meta.test", &["169.254.169.254"]);
    server.a("cloud.test", &["168.63.129.16"]);
    server.a("orders.vip.internal.test", &["127.0.0.1"]);
    let origin = Origin::answering(ok("hi")).await;
    let sidecar = Sidecar::start(&yaml(&server, &origin, "", "")).await;
    let mut client = sidecar.client().await;
    for host in [
        "nobody",
        "ill",
        "mute",
        "meta",
        "cloud",
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "vip.internal",
        // It would answer to the full name of `orders`.
        "orders.vip.internal.vip.internal",
    ] {
        let reply = client.get(host, "/", "").await;
        assert_eq!((reply.status, reply.reason().as_str()), (404, "unknown_service"), "{host}");
    }
    assert_eq!(names(&sidecar).await, ["declared"]);
    // What is refused is not asked for again at once.
    let asked = server.log().len();
    assert_eq!(client.get("nobody", "/", "").await.status, 404);
    assert_eq!(server.log().len(), asked);
}

#[tokio::test]
async fn many_callers_of_one_name_cost_one_look() {
    let server = Server::start().await;
    server.a("orders.test", &["127.0.0.1"]);
    let origin = Origin::answering(ok("hi")).await;
    let sidecar = Sidecar::start(&yaml(&server, &origin, "", "")).await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let http = sidecar.http();
            tokio::spawn(async move { Client::connect(http).await.get("orders", "/", "").await.status })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(names(&sidecar).await, ["declared", "orders"]);
}

#[tokio::test]
async fn services_are_limited_and_forgotten_when_nobody_calls() {
    let server = Server::start().await;
    for n in 0..6 {
        server.a(&format!("s{n}.test"), &["127.0.0.1"]);
    }
    let origin = Origin::answering(ok("hi")).await;
    let sidecar = Sidecar::start(&yaml(&server, &origin, "", "services: 3, idle: 300ms, series: 1")).await;
    let mut client = sidecar.client().await;
    for n in 0..3 {
        assert_eq!(client.get(&format!("s{n}"), "/", "").await.status, 200);
    }
    // One has series of its own, the others share those of `*`.
    eventually("three calls to be counted", async || {
        sidecar.calls("s0", "ok").await == 1 && sidecar.calls("*", "ok").await == 2
    })
    .await;
    assert_eq!(sidecar.calls("s1", "ok").await, 0);
    // The fourth gets the place of one that nobody calls, at the latest when that is idle.
    eventually("a place for the fourth", async || sidecar.get("s3", "/").await.status == 200).await;
    assert!(names(&sidecar).await.len() <= 4);
    eventually("all to be forgotten", async || names(&sidecar).await == ["declared"]).await;
    let metrics = sidecar.metrics().await;
    assert!(!metrics.keys().any(|name| name.contains("service=\"s0\"")), "its series are gone");
    assert!(metrics.keys().any(|name| name.contains("service=\"*\"")), "those that are shared stay");
    assert_eq!(client.get("s0", "/", "").await.status, 200, "and it can be made again");
}

#[tokio::test]
async fn a_service_in_use_is_not_forgotten() {
    let server = Server::start().await;
    server.a("slow.test", &["127.0.0.1"]);
    let (go, wait) = tokio::sync::watch::channel(false);
    let origin = Origin::scripted(move |mut exchange| {
        let mut wait = wait.clone();
        async move {
            exchange.request().await;
            wait.wait_for(|go| *go).await.unwrap();
            exchange.send(ok("late").as_bytes()).await;
        }
    })
    .await;
    let sidecar = Sidecar::start(&yaml(&server, &origin, "", "idle: 100ms")).await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: slow\r\n\r\n").await;
    eventually("the call to be under way", async || names(&sidecar).await.contains(&"slow".to_owned())).await;
    // Many times the idle limit, by the sidecar's own clock: its discovery age is told in seconds.
    let looks = server.log().len();
    eventually("half a second of looks", async || server.log().len() > looks + 20).await;
    assert!(names(&sidecar).await.contains(&"slow".to_owned()));
    go.send(true).unwrap();
    assert_eq!(client.reply().await.text(), "late");
    eventually("it to be forgotten", async || names(&sidecar).await == ["declared"]).await;
}

#[tokio::test]
async fn made_services_have_vips_that_outlive_them() {
    let server = Server::start().await;
    server.a("orders.test", &["127.0.0.1"]);
    let origin = Origin::answering(ok("hi")).await;
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let yaml = format!("vip: {{ports: [{port}], state: off}}\n{}", yaml(&server, &origin, "", "idle: 200ms"));
    let sidecar = Sidecar::start(&yaml).await;
    assert_eq!(sidecar.get("orders", "/").await.status, 200);
    let vip: Ipv4Addr = sidecar.view("orders").await.entry.vip.unwrap().address;
    assert_eq!(vip.to_string(), "127.84.101.24", "the one that its name leads to");
    assert_eq!(Client::connect((vip, port).into()).await.get("x", "/", "").await.text(), "hi");
    eventually("it to be forgotten", async || names(&sidecar).await == ["declared"]).await;
    // An app may know the address for longer than we know the service.
    assert_eq!(Client::connect((vip, port).into()).await.get("x", "/", "").await.text(), "hi");
    assert_eq!(sidecar.view("orders").await.entry.vip.unwrap().address, vip);
}

#[tokio::test]
async fn connect_reaches_made_services_too() {
    let server = Server::start().await;
    server.a("orders.test", &["127.0.0.1"]);
    let origin = Origin::answering(ok("hi")).await;
    let sidecar = Sidecar::start(&yaml(&server, &origin, "", "")).await;
    let mut client = sidecar.client().await;
    client.send("CONNECT orders:80 HTTP/1.1\r\nHost: orders\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.get("orders", "/", "").await.text(), "hi");
}

#[tokio::test]
async fn a_name_that_leads_back_to_us_is_refused() {
    let server = Server::start().await;
    server.a("back.test", &["127.84.3.3"]);
    let origin = Origin::answering(ok("hi")).await;
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let yaml = format!("vip: {{ports: [{port}], state: off}}\n{}", yaml(&server, &origin, "", ""));
    let sidecar = Sidecar::start(&yaml).await;
    assert_eq!(sidecar.get("back", "/").await.reason(), "unknown_service");
}

#[tokio::test]
async fn where_nobody_would_listen_a_made_service_has_no_vip() {
    let server = Server::start().await;
    server.a("orders.test", &["127.0.0.1"]);
    let origin = Origin::answering(ok("hi")).await;
    // Somebody has the port at one address, so that each VIP needs a socket of its own.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let yaml = format!("vip: {{ports: [{port}], state: off}}\n{}", yaml(&server, &origin, "", ""));
    let sidecar = Sidecar::start(&yaml).await;
    assert_eq!(sidecar.get("orders", "/").await.status, 200);
    assert!(sidecar.view("orders").await.entry.vip.is_none());
    let declared = sidecar.view("declared").await.entry.vip.unwrap().address;
    assert_eq!(Client::connect((declared, port).into()).await.get("x", "/", "").await.text(), "hi");
}

#[tokio::test]
async fn a_header_names_a_service_that_has_yet_to_be_made() {
    let server = Server::start().await;
    server.a("orders.test", &["127.0.0.1"]);
    let (origin, other) = (Origin::answering(ok("made")).await, Origin::answering(ok("declared")).await);
    let yaml = format!("{}\n  other: {{static: ['{}']}}", block(&server, &origin, ""), other.addr());
    let sidecar = Sidecar::start_listening("override: on", &yaml).await;
    for _ in 0..2 {
        let reply = sidecar.client().await.get("other", "/", "x-outrigger-service: orders\r\n").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "made"), "not the one that the Host names");
    }
}

#[tokio::test]
async fn a_reload_gives_nobody_series() {
    let server = Server::start().await;
    for n in 0..4 {
        server.a(&format!("s{n}.test"), &["127.0.0.1"]);
    }
    let origin = Origin::answering(ok("hi")).await;
    let process = Process::start(&block(&server, &origin, "series: 1")).await;
    let labels = async || {
        let metrics = process.metrics().await;
        (0..4).filter(|n| metrics.keys().any(|key| key.contains(&format!("service=\"s{n}\"")))).collect::<Vec<_>>()
    };
    for limit in ["series: 1", "series: 1, services: 9", "series: 0", "series: 4"] {
        assert_eq!(process.reload(&block(&server, &origin, limit)).await.status, 200);
        for n in 0..3 {
            assert_eq!(process.get(&format!("s{n}"), "/").await.status, 200);
        }
        assert_eq!(labels().await, [0], "{limit}");
    }
    assert_eq!(process.get("s3", "/").await.status, 200);
    assert_eq!(labels().await, [0, 3], "who is made now");
}

#[tokio::test]
async fn what_is_looked_up_when_a_reload_comes_is_looked_up_anew() {
    let (server, later) = (Server::start().await, Server::start().await);
    server.say("orders.test", RecordType::A, Say::Silence);
    server.say("declared-soon.test", RecordType::A, Say::Silence);
    later.a("orders.test", &["127.0.0.1"]);
    let origin = Origin::answering(ok("hi")).await;
    let process = Process::start(&block(&server, &origin, "")).await;
    let mut clients = Vec::new();
    for name in ["orders", "declared-soon"] {
        let mut client = process.client().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")).await;
        eventually("the name to be asked for", async || {
            server.log().iter().any(|asked| format!("{asked:?}").contains(name))
        })
        .await;
        clients.push(client);
    }
    let declared = format!("\n  declared-soon: {{static: ['{}']}}", origin.addr());
    assert_eq!(process.reload(&(block(&later, &origin, "") + &declared)).await.status, 200);
    for mut client in clients {
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "hi"));
    }
}

#[tokio::test]
async fn names_without_endpoints_drive_nobody_out() {
    let server = Server::start().await;
    server.a("orders.test", &["127.0.0.1"]);
    server.a("users.test", &["127.0.0.1"]);
    let origin = Origin::answering(ok("hi")).await;
    let sidecar = Sidecar::start(&yaml(&server, &origin, "", "services: 2")).await;
    for name in ["orders", "users"] {
        assert_eq!(sidecar.get(name, "/").await.status, 200);
    }
    for n in 0..10 {
        assert_eq!(sidecar.get(&format!("nobody{n}"), "/").await.status, 404);
    }
    assert_eq!(names(&sidecar).await, ["declared", "orders", "users"]);
}

#[tokio::test]
async fn a_call_that_waits_for_its_service_is_in_flight() {
    let server = Server::start().await;
    server.say("orders.test", RecordType::A, Say::Silence);
    let origin = Origin::answering(ok("hi")).await;
    let mut process = Process::start(&format!("drain: {{for: 1h}}\n{}", block(&server, &origin, ""))).await;
    let mut client = process.client().await;
    client.send("GET / HTTP/1.1\r\nHost: orders\r\n\r\n").await;
    eventually("the name to be asked for", async || !server.log().is_empty()).await;
    process.signal("TERM");
    process.is_draining().await;
    process.stays(Duration::from_millis(600)).await;
    // The resolver asks again when it has waited for long enough.
    server.a("orders.test", &["127.0.0.1"]);
    assert_eq!(client.reply().await.text(), "hi");
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn nobody_waits_for_a_service_in_the_end_of_a_stop() {
    let server = Server::start().await;
    server.say("new.test", RecordType::A, Say::Silence);
    let origin = Origin::answering(ok("hi")).await;
    let yaml = format!(
        "drain: {{for: 2s, until: time}}\nresolver: {{servers: ['{}'], timeout: 60s}}\n\
         services: {{held: {{static: ['{}']}}, '*': {{dns: '{{name}}.test:80'}}}}",
        server.addr,
        origin.addr()
    );
    let mut process = Process::start(&yaml).await;
    let mut client = process.client().await;
    client.send("GET / HTTP/1.1\r\nHost: new\r\n\r\n").await;
    eventually("the name to be asked for", async || !server.log().is_empty()).await;
    process.signal("TERM");
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.reason().as_str()), (503, "shutting_down"), "it may well exist");
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn names_at_random_leave_vips_for_services_that_are_listed() {
    let server = Server::start().await;
    let origin = Origin::answering(ok("hi")).await;
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    // Fourteen addresses.
    let vip = format!("vip: {{ports: [{port}], range: 127.84.7.0/28, state: vips.json}}\n");
    let yaml = vip + &block(&server, &origin, "");
    let process = Process::start(&yaml).await;
    for n in 0..16 {
        server.a(&format!("s{n}.test"), &["127.0.0.1"]);
        assert_eq!(process.get(&format!("s{n}"), "/").await.status, 200, "with a VIP or without");
    }
    let listed = (0..7).map(|n| format!("\n  listed{n}: {{static: ['{}']}}", origin.addr())).collect::<String>();
    let reply = process.reload(&(yaml + &listed)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    for n in 0..7 {
        let vip = process.view(&format!("listed{n}")).await.entry.vip.unwrap().address;
        assert_eq!(Client::connect((vip, port).into()).await.get("x", "/", "").await.text(), "hi");
    }
}
