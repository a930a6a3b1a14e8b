//! Start and stop of the real process, and the commands that talk to it.

use tokio::net::TcpStream;

use crate::support::{Client, Held, Origin, Process, Sidecar, eventually, within};

async fn refuses_connections(addr: std::net::SocketAddr) {
    eventually("the port to close", async || TcpStream::connect(addr).await.is_err()).await;
}

#[tokio::test]
async fn a_stop_lets_calls_in_flight_finish_and_ends_with_them() {
    let origin = Held::start().await;
    let mut process =
        Process::start(&format!("drain: {{for: 1h}}\nservices: {{a: {{static: ['{}']}}}}", origin.addr())).await;
    let mut idle = process.client().await;
    origin.release(1);
    assert_eq!(idle.get("a", "/first", "").await.text(), "/first");
    let mut silent = process.client().await;
    let mut call = process.client().await;
    call.send("GET /last HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.has_read(2).await;
    process.signal("TERM");
    refuses_connections(process.http).await;
    let ready = process.observe("/health/ready").await;
    assert_eq!((ready.status, ready.text().contains("stopping")), (503, true), "{}", ready.text());
    assert!(idle.closed().await.is_empty(), "an idle connection is closed at once");
    assert!(silent.closed().await.is_empty(), "also one that has never carried a call");
    origin.release(1);
    let reply = call.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "/last"));
    assert_eq!(process.exit().await, Some(0));
    assert!(!process.file("admin.sock").exists(), "its socket is gone with it");
}

#[tokio::test]
async fn at_the_drain_limit_who_waits_is_told_and_what_runs_is_cut() {
    let origin = Origin::scripted(|mut exchange| async move {
        if exchange.request().await.is_some_and(|request| request.starts_with("GET /body")) {
            exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        }
        exchange.closed().await;
    })
    .await;
    let yaml = format!(
        "drain: {{for: 100ms}}\nworkers: 1\nservices:\n  a: {{static: ['{0}']}}\n  \
         b: {{static: ['{0}'], bulkhead: {{max: 1, queue: 1, wait: 1h}}, timeout: 1h}}",
        origin.addr()
    );
    let mut process = Process::start(&yaml).await;
    let mut calls = Vec::new();
    for (service, path) in [("a", "/head"), ("b", "/held")] {
        let mut call = process.client().await;
        call.send(format!("GET {path} HTTP/1.1\r\nHost: {service}\r\n\r\n")).await;
        calls.push(call);
    }
    let mut body = process.client().await;
    body.send("GET /body HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(body.head().await.unwrap().contains("200 OK"));
    eventually("the calls to arrive", async || origin.requests() == 3).await;
    let mut queued = process.client().await;
    queued.send("GET /queued HTTP/1.1\r\nHost: b\r\n\r\n").await;
    calls.push(queued);
    eventually("a call to queue", async || process.view("b").await.bulkhead.unwrap().queued == 1).await;
    process.signal("TERM");
    for call in &mut calls {
        let reply = call.reply().await;
        assert_eq!((reply.status, reply.reason().as_str()), (503, "shutting_down"));
    }
    assert_eq!(body.closed().await, b"half", "cut, and not made to look complete");
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_patience() {
    let origin = Held::start().await;
    let mut process =
        Process::start(&format!("drain: {{for: 1h}}\nservices: {{a: {{static: ['{}']}}}}", origin.addr())).await;
    let mut call = process.client().await;
    call.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.has_read(1).await;
    process.signal("TERM");
    process.has_logged("stopping").await;
    process.signal("HUP"); // nothing to reload any more, and no reason to hurry
    refuses_connections(process.http).await;
    process.signal("INT");
    assert_eq!(call.reply().await.reason(), "shutting_down");
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn an_idle_process_stops_at_once() {
    let mut process = Process::start("drain: {for: 1h}\nservices: {}").await;
    process.signal("TERM");
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn a_connection_that_came_just_before_the_stop_is_served_or_closed_in_peace() {
    let origin = Origin::ok("fine").await;
    let mut process = Process::start(&format!("services: {{a: {{static: ['{}']}}}}", origin.addr())).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = process.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.push(client);
    }
    // The first answers are there: the acceptor has come to know of the connections.
    assert_eq!(clients.pop().unwrap().reply().await.text(), "fine");
    process.signal("TERM");
    for client in &mut clients {
        assert_eq!(client.reply().await.text(), "fine");
    }
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn what_cannot_be_bound_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("outrigger.yaml");
    let admin = folder.path().join("admin.sock");
    let listen = format!("listen: {{http: '127.0.0.1:0', observe: '127.0.0.1:0', admin: '{}'}}\n", admin.display());
    std::fs::write(&config, format!("{listen}services: {{a: {{dns: 'a:80', listen: '{addr}'}}}}")).unwrap();
    let run = || {
        std::process::Command::new(env!("CARGO_BIN_EXE_outrigger")).args(["run", "-c"]).arg(&config).output().unwrap()
    };
    let output = run();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&addr.to_string()) && text.contains('a'), "{text}");
    assert!(!admin.exists());
}

#[tokio::test]
async fn the_commands_speak_to_the_running_process() {
    let (well, ill) =
        (Origin::ok("fine").await, Origin::answering("HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n").await);
    let yaml = format!(
        "services:\n  a: {{static: ['{}'], aliases: [alpha], timeout: 3s}}\n  b: {{static: ['{}'], breaker: off}}\n",
        well.addr(),
        ill.addr()
    );
    let process = Process::start(&yaml).await;
    assert_eq!(process.command("check").await.0, 0);
    assert_eq!(process.command("health").await, (0, "ready\n".into(), String::new()));

    let (code, text, _) = process.command("explain alpha").await;
    assert_eq!(code, 0);
    for part in ["a\n", &process.http.to_string(), &well.addr().to_string(), "3s", "service (line 3)", "closed"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(process.command("explain nobody").await.0, 1);

    assert_eq!(process.command("breaker a open").await.0, 0);
    assert_eq!(process.get("a", "/").await.reason(), "breaker_open");
    assert_eq!(process.command("breaker a auto").await.0, 0);
    assert_eq!(process.get("a", "/").await.text(), "fine");
    let (code, _, error) = process.command("breaker b open").await;
    assert_eq!((code, error.contains("off")), (1, true), "{error}");
    assert_eq!(process.command("breaker nobody open").await.0, 1);
    assert_eq!(process.command("breaker a ajar").await.0, 2);

    let (code, text, _) = process.command(&format!("drain {}", well.addr())).await;
    assert_eq!((code, text.contains("1 service")), (0, true), "{text}");
    let refused = process.get("a", "/").await;
    assert_eq!((refused.reason().as_str(), refused.text().contains("draining")), ("no_endpoints", true));
    assert_eq!(process.command("drain 127.0.0.9:9").await.0, 1);

    assert_eq!(process.command("drain --all").await.0, 0);
    let (code, _, error) = process.command("health").await;
    assert_eq!((code, error.as_str()), (1, "not ready: draining\n"));
    assert_eq!(process.get("b", "/").await.status, 500, "calls go on");
}

#[tokio::test]
async fn a_drained_endpoint_gets_no_new_attempts_while_those_in_flight_finish() {
    let (one, two) = (Held::start().await, Origin::ok("two").await);
    let yaml = format!("services: {{a: {{static: ['{}', '{}'], balance: round_robin}}}}", one.addr(), two.addr());
    let process = Process::start(&yaml).await;
    let mut call = process.client().await;
    within("an attempt at the first endpoint", async {
        while one.requests() == 0 {
            let before = two_answers(&process).await;
            call = Client::connect(process.http).await;
            call.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
            eventually("an attempt", async || one.requests() > 0 || two_answers(&process).await > before).await;
        }
    })
    .await;
    assert_eq!(process.command(&format!("drain {}", one.addr())).await.0, 0);
    for _ in 0..10 {
        assert_eq!(process.get("a", "/").await.text(), "two");
    }
    let view = process.view("a").await;
    let drained = view.endpoints.iter().find(|endpoint| endpoint.addr == one.addr()).unwrap();
    assert_eq!((drained.state.as_str(), drained.in_flight), ("draining", 1));
    let metrics = process.metrics().await;
    assert_eq!(metrics["outrigger_endpoints{service=\"a\",state=\"draining\"}"], 1.0);
    one.release(1);
    assert_eq!(call.reply().await.text(), "/held");
}

/// Calls that have been answered.
async fn two_answers(process: &Process) -> u64 {
    process.view("a").await.calls.get("ok").copied().unwrap_or(0)
}

#[tokio::test]
async fn at_the_limit_of_connections_the_next_waits_for_one_to_leave_whatever_the_port() {
    let origin = Origin::ok("fine").await;
    let yaml = format!(
        "limits: {{connections: 1}}\nservices:\n  a: {{static: ['{0}'], listen: '127.0.0.1:0'}}\n  \
         b: {{static: ['{0}'], listen: '127.0.0.1:0'}}",
        origin.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    for port in [sidecar.http(), sidecar.port_of("a"), sidecar.port_of("b")] {
        assert_eq!(Client::connect(port).await.get("a", "/", "").await.text(), "fine");
    }
    let mut first = sidecar.client().await;
    assert_eq!(first.get("a", "/", "").await.text(), "fine");
    let mut second = Client::connect(sidecar.port_of("b")).await;
    second.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
    assert_eq!(first.get("a", "/", "").await.text(), "fine");
    assert_eq!(sidecar.calls("b", "ok").await, 1, "the second has to wait");
    drop(first);
    assert_eq!(second.reply().await.text(), "fine");
}
