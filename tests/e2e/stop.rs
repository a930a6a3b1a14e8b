//! How a stop of the real process ends, and who may begin it or hurry it. What goes on before: `drain`.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    drain::App,
    support::{Held, Origin, Process, Sidecar, admin, eventually, ok, within},
};

async fn refuses_connections(addr: SocketAddr) {
    eventually("the port to close", async || TcpStream::connect(addr).await.is_err()).await;
}

#[tokio::test]
async fn a_sidecar_inside_another_program_can_be_stopped_by_its_socket() {
    let origin = Origin::ok("fine").await;
    let sidecar = Sidecar::before(&origin, "").await;
    assert_eq!(sidecar.get("a", "/").await.text(), "fine");
    assert_eq!(admin(sidecar.admin(), "/shutdown").await.status, 200);
    refuses_connections(sidecar.http()).await;
    eventually("its socket to go", async || !sidecar.admin().exists()).await;
    // Whoever holds it may still do so, and stop it once more.
    sidecar.stop().await;
}

#[tokio::test]
async fn at_the_limit_who_waits_is_told_and_what_runs_is_cut() {
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
    let mut idle = process.client().await;
    process.signal("TERM");
    assert!(idle.closed().await.is_empty(), "who is idle is told in peace");
    for call in &mut calls {
        let reply = call.reply().await;
        assert_eq!((reply.status, reply.reason().as_str()), (503, "shutting_down"));
    }
    assert_eq!(body.closed().await, b"half", "cut, and not made to look complete");
    assert_eq!(process.exit().await, Some(0));
    assert!(process.log().contains("drain.for is over"), "{}", process.log());
}

#[tokio::test]
async fn a_second_signal_ends_the_patience() {
    let origin = Held::start().await;
    let yaml = format!("drain: {{for: 1h}}\nservices: {{a: {{static: ['{}']}}}}", origin.addr());
    let mut process = Process::start(&yaml).await;
    let mut call = process.held_call(&origin).await;
    process.signal("TERM");
    process.is_draining().await;
    process.signal("HUP"); // a reload, and no reason to hurry
    process.has_logged("reloaded the configuration").await;
    TcpStream::connect(process.http).await.unwrap();
    process.signal("INT");
    assert_eq!(call.reply().await.reason(), "shutting_down");
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn a_signal_after_the_drain_ends_the_patience_too() {
    let (app, origin) = (App::start().await, Held::start().await);
    let mut process = app.sidecar_before(origin.addr()).await;
    let mut call = process.held_call(&origin).await;
    app.end().await;
    process.signal("TERM");
    process.has_logged("stopping").await;
    process.signal("HUP"); // nothing to reload any more, and no reason to hurry
    refuses_connections(process.http).await;
    let ready = process.observe("/health/ready").await;
    assert_eq!((ready.status, ready.text().contains("stopping")), (503, true), "{}", ready.text());
    process.signal("TERM");
    assert_eq!(call.reply().await.reason(), "shutting_down");
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn in_the_second_phase_answers_say_that_they_are_the_last() {
    let (app, origin) = (App::start().await, Held::start().await);
    let mut process = app.sidecar_before(origin.addr()).await;
    let mut calls = Vec::new();
    for _ in 0..50 {
        calls.push(process.held_call(&origin).await);
    }
    app.end().await;
    process.signal("TERM");
    refuses_connections(process.http).await;
    // The port closes a moment before the workers are told.
    let mut told = 0;
    for call in &mut calls {
        origin.release(1);
        let reply = call.reply().await;
        assert_eq!(reply.text(), "/held");
        told += usize::from(reply.header("connection") == Some("close"));
    }
    assert!(told > 0);
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn an_idle_process_stops_at_once() {
    for until in ["calls", "app"] {
        let mut process = Process::start(&format!("drain: {{for: 1h, until: {until}}}\nservices: {{}}")).await;
        process.signal("TERM");
        assert_eq!(process.exit().await, Some(0));
    }
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
async fn the_admin_socket_begins_the_same_stop() {
    let origin = Held::start().await;
    let yaml = format!("drain: {{for: 1h}}\nservices: {{a: {{static: ['{}']}}}}", origin.addr());
    let mut process = Process::start(&yaml).await;
    let mut call = process.held_call(&origin).await;
    for _ in 0..3 {
        // To ask again is no second signal.
        let reply = process.admin("/shutdown").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "{\"stopping\":true}\n"));
        let ready = process.observe("/health/ready").await;
        assert_eq!((ready.status, ready.text().contains("draining")), (503, true), "whoever has been answered sees it");
    }
    let waiting = tokio::spawn({
        let (binary, config) = (env!("CARGO_BIN_EXE_outrigger"), process.config());
        let mut command = std::process::Command::new(binary);
        command.args(["shutdown", "--wait", "-c"]).arg(config).env_remove("OUTRIGGER_ADMIN");
        async move { tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap() }
    });
    assert_eq!(process.command("shutdown").await, (0, "stopping\n".into(), String::new()));
    assert!(!waiting.is_finished());
    origin.release(1);
    assert_eq!(call.reply().await.text(), "/held");
    let output = within("the command to see the end", waiting).await.unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap().as_str()), (Some(0), "stopped\n"));
    assert_eq!(process.exit().await, Some(0));
    let (code, _, error) = process.command("shutdown --wait").await;
    assert_eq!((code, error.contains("no sidecar answers")), (1, true), "{error}");
}

#[tokio::test]
async fn who_waits_for_the_end_does_not_wait_for_its_successor() {
    let mut process = Process::start("drain: {for: 1h}\nservices: {}").await;
    assert_eq!(process.command("shutdown --wait").await.0, 0);
    assert_eq!(process.exit().await, Some(0));
    // A door that says nothing of a stop, as a new sidecar does.
    let socket = process.file("admin.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(ok("{\"status\":\"ready\"}").as_bytes()).await;
        }
    });
    assert_eq!(admin(&socket, "/shutdown").await.status, 200);
    assert_eq!(process.command("shutdown --wait").await.0, 0);
}
