//! Start of the real process, when it is ready, and the commands that talk to it. How it stops: `drain` and `stop`.

use crate::support::{Client, Held, Origin, Process, Sidecar, eventually, free, within};

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

/// A service whose name never resolves: nobody answers at a port that was free a moment ago.
fn cold() -> String {
    format!("resolver: {{servers: ['{}'], timeout: 100ms}}\nservices: {{lost: {{dns: 'lost.test:80'}}}}\n", free())
}

#[tokio::test]
async fn after_the_limit_it_is_ready_and_says_once_what_is_cold() {
    let process = Process::start_unready(&format!("ready: 300ms\n{}", cold())).await;
    eventually("readiness", async || process.observe("/health/ready").await.status == 200).await;
    assert_eq!(process.command("health").await.0, 0);
    process.has_logged("lost: no endpoints yet").await;
    assert_eq!(process.log().matches("ready after ready.limit").count(), 1, "{}", process.log());
    assert_eq!(process.get("lost", "/").await.reason(), "no_endpoints");
}

#[tokio::test]
async fn the_limit_is_noticed_when_nobody_asks() {
    let process = Process::start_unready(&format!("ready: 200ms\n{}", cold())).await;
    process.has_logged("ready after ready.limit").await;
}

#[tokio::test]
async fn without_a_limit_it_waits_until_a_reload_sets_one() {
    let process = Process::start_unready(&format!("ready: off\n{}", cold())).await;
    for _ in 0..20 {
        assert_eq!(process.observe("/health/ready").await.status, 503);
    }
    assert_eq!(process.reload(&format!("ready: {{limit: 1ms}}\n{}", cold())).await.status, 200);
    assert_eq!(process.observe("/health/ready").await.status, 200);
}

#[tokio::test]
async fn who_does_not_want_to_wait_is_ready_at_once() {
    let process = Process::start_unready(&format!("ready: 0s\n{}", cold())).await;
    assert_eq!(process.observe("/health/ready").await.status, 200);
    assert!(!process.log().contains("ready after"), "{}", process.log());
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
