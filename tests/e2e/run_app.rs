//! `outrigger run -- APP`: a real process that starts a shell script beside the sidecar.
//!
//! What needs a process namespace or a terminal is tried in `tests/real/run_app`.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    server::Server,
    support::{Held, Origin, Process, eventually, free, within},
};

/// No service, nothing to wait for.
const NOTHING: &str = "services: {}";

/// A service whose name does not resolve: nobody answers at a port that was free a moment ago.
fn cold(ready: &str) -> String {
    format!(
        "ready: {ready}\nresolver: {{servers: ['{}'], timeout: 100ms}}\nservices: {{lost: {{dns: 'lost.test:80'}}}}\n",
        free()
    )
}

/// A script that goes on until the file `done` appears, and does this when it is told to stop.
fn until_done(on_term: &str, code: u8) -> String {
    format!("trap '{on_term}' TERM; echo up; while [ ! -e done ]; do sleep 0.02; done; exit {code}")
}

fn done(process: &Process) {
    std::fs::write(process.file("done"), "").unwrap();
}

#[tokio::test]
async fn it_ends_with_the_exit_code_of_the_app() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("sh -c 'exit 3'; exit $(($? + 1))", 4),
    ] {
        let mut process = Process::with_app(NOTHING, script);
        assert_eq!(process.exit().await, Some(code), "{script}: {}", process.log());
        assert!(!process.file("admin.sock").exists(), "{script}");
    }
}

#[tokio::test]
async fn what_cannot_be_run_is_told_as_a_shell_tells_it() {
    for (command, code) in [
        (&["no-such-command"][..], 127),
        (&["/no/such/command", "--flag"], 127),
        (&["/"], 126),
        (&["./outrigger.yaml"], 126),
        (&[""], 127),
    ] {
        let mut process = Process::spawn(NOTHING, &[&["--"], command].concat());
        assert_eq!(process.exit().await, Some(code), "{command:?}: {}", process.log());
        assert!(process.log().contains("cannot start"), "{}", process.log());
        assert!(!process.file("admin.sock").exists());
    }
    let mut process = Process::spawn(NOTHING, &["--"]);
    process.has_logged("started").await;
    process.signal("TERM");
    assert_eq!(process.exit().await, Some(0), "no app is no app");
}

#[tokio::test]
async fn the_app_has_our_surroundings_and_none_of_our_sockets() {
    let script = "pwd; echo \"$PATH\"; cat; for fd in /proc/$$/fd/*; do readlink $fd; done; echo complaint >&2";
    let mut process = Process::with_app(NOTHING, script);
    assert_eq!(process.exit().await, Some(0));
    let out = process.out();
    let folder = process.folder().canonicalize().unwrap();
    assert!(out.starts_with(&format!("{}\n{}\n", folder.display(), std::env::var("PATH").unwrap())), "{out}");
    assert!(!out.contains("socket:") && !out.contains("eventpoll"), "{out}");
    assert!(process.log().contains("complaint"));
}

#[tokio::test]
async fn its_arguments_are_its_own() {
    let mut process = Process::spawn(NOTHING, &["--", "echo", "-c", "x y", "--help", "--", "*"]);
    assert_eq!(process.exit().await, Some(0));
    assert_eq!(process.out(), "-c x y --help -- *\n");
}

#[tokio::test]
async fn the_app_is_started_when_the_sidecar_is_ready_and_not_before() {
    let (server, origin) = (Server::start().await, Origin::ok("fine").await);
    server.silent(true);
    let yaml = format!(
        "ready: off\nresolver: {{servers: ['{}'], ttl: {{min: 20ms, max: 50ms}}, timeout: 100ms}}\n\
         services: {{a: {{dns: 'a.test:{}'}}}}",
        server.addr,
        origin.addr().port()
    );
    let mut process = Process::with_app(&yaml, &until_done("", 0));
    process.answers().await;
    for _ in 0..50 {
        assert_eq!(process.observe("/health/ready").await.status, 503);
    }
    assert_eq!(process.out(), "");
    server.a("a.test", &["127.0.0.1"]);
    server.silent(false);
    process.has_written("up").await;
    assert_eq!(process.observe("/health/ready").await.status, 200);
    assert_eq!(process.get("a", "/").await.text(), "fine");
    done(&process);
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn the_limit_of_readiness_holds_for_the_app_too() {
    let mut process = Process::with_app(&cold("200ms"), "echo up");
    assert_eq!(process.exit().await, Some(0));
    assert_eq!(process.out(), "up\n");
    assert!(process.log().contains("ready after ready.limit"), "{}", process.log());
}

#[tokio::test]
async fn a_sidecar_that_cannot_start_never_starts_the_app() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("services: {{a: {{dns: 'a:80', listen: '{}'}}}}", taken.local_addr().unwrap());
    for yaml in ["serviecs: {}", "services: {a: {dns: 'a:80', timeout: soon}}", &port] {
        let mut process = Process::with_app(yaml, "echo up");
        assert_eq!(process.exit().await, Some(1), "{}", process.log());
        assert_eq!(process.out(), "");
    }
}

#[tokio::test]
async fn a_signal_before_the_app_is_started_ends_the_process() {
    for (signal, code) in [("TERM", 143), ("INT", 130), ("QUIT", 131)] {
        let mut process = Process::with_app(&cold("off"), "echo up");
        process.answers().await;
        for harmless in ["HUP", "USR1", "USR2", "WINCH"] {
            process.signal(harmless);
        }
        assert_eq!(process.observe("/health/ready").await.status, 503);
        process.signal(signal);
        assert_eq!(process.exit().await, Some(code));
        assert_eq!(process.out(), "");
        assert!(!process.file("admin.sock").exists());
    }
    let mut process = Process::with_app(&cold("off"), "echo up");
    process.answers().await;
    assert_eq!(process.command("shutdown").await.0, 0);
    assert_eq!(process.exit().await, Some(143));
}

#[tokio::test]
async fn signals_are_the_apps() {
    let script = "for s in HUP USR1 USR2 WINCH INT QUIT; do trap \"echo got $s\" $s; done
        trap 'echo got TERM; kill $!; exit 9' TERM
        echo up; while :; do sleep 60 & wait $!; kill $!; done";
    let mut process = Process::with_app(NOTHING, script);
    process.has_written("up").await;
    for signal in ["HUP", "USR1", "USR2", "WINCH", "INT", "QUIT"] {
        process.signal(signal);
        process.has_written(&format!("got {signal}\n")).await;
    }
    assert_eq!(process.observe("/health/ready").await.status, 200, "the app decides what they mean");
    assert!(!process.log().contains("reloaded"), "{}", process.log());
    process.signal("TERM");
    assert_eq!(process.exit().await, Some(9));
    assert_eq!(process.out().lines().count(), 8, "each came once: {}", process.out());
}

#[tokio::test]
async fn after_a_stop_the_app_is_served_until_it_ends() {
    let origin = Origin::ok("fine").await;
    let yaml = format!("drain: {{for: 1h}}\nservices: {{a: {{static: ['{}']}}}}", origin.addr());
    let mut process = Process::with_app(&yaml, &until_done("echo told", 5));
    process.has_written("up").await;
    process.signal("TERM");
    process.has_written("told").await;
    process.is_draining().await;
    // Far longer than a sidecar alone waits for one more call.
    process.stays(Duration::from_millis(600)).await;
    let reply = process.get("a", "/").await;
    assert_eq!((reply.text().as_str(), reply.header("connection")), ("fine", None));
    process.signal("TERM");
    eventually("the second signal", async || process.out().matches("told").count() == 2).await;
    done(&process);
    assert_eq!(process.exit().await, Some(5));
}

#[tokio::test]
async fn an_app_that_does_not_stop_is_killed_in_the_end() {
    let mut process = Process::with_app("drain: {for: 300ms}\nservices: {}", &until_done("", 0));
    process.has_written("up").await;
    let began = Instant::now();
    process.signal("TERM");
    assert_eq!(process.exit().await, Some(137));
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(process.log().contains("it is killed"), "{}", process.log());
}

#[tokio::test]
async fn a_reload_changes_how_long_a_stop_may_take() {
    let mut process = Process::with_app("drain: {for: 1h}\nservices: {}", &until_done("", 0));
    process.has_written("up").await;
    assert_eq!(process.reload("drain: {for: 100ms}\nservices: {}").await.status, 200);
    process.signal("TERM");
    assert_eq!(process.exit().await, Some(137));
}

#[tokio::test]
async fn calls_in_flight_outlive_the_app_but_not_the_limit() {
    for hurried in [false, true] {
        let origin = Held::start().await;
        let yaml = format!("drain: {{for: 1h}}\nservices: {{a: {{static: ['{}']}}}}", origin.addr());
        let mut process = Process::with_app(&yaml, &until_done("", 6));
        process.has_written("up").await;
        let mut call = process.held_call(&origin).await;
        done(&process);
        process.has_logged("stopping").await;
        if hurried {
            process.signal("TERM");
            assert_eq!(call.reply().await.reason(), "shutting_down");
        } else {
            origin.release(1);
            assert_eq!(call.reply().await.text(), "/held");
        }
        assert_eq!(process.exit().await, Some(6));
    }
}

#[tokio::test]
async fn the_admin_socket_has_the_app_told_to_stop() {
    let mut process = Process::with_app(
        "drain: {for: 1h}\nservices: {}",
        "trap 'echo told; exit 8' TERM; echo up; while :; do sleep 0.02; done",
    );
    process.has_written("up").await;
    assert_eq!(process.command("shutdown --wait").await, (0, "stopped\n".into(), String::new()));
    assert_eq!(process.exit().await, Some(8));
    assert_eq!(process.out(), "up\ntold\n");
}

#[tokio::test]
async fn the_file_is_watched_as_always() {
    let origin = Origin::ok("fine").await;
    let mut process = Process::with_app(NOTHING, &until_done("", 0));
    process.has_written("up").await;
    process.write(&format!("services: {{a: {{static: ['{}']}}}}", origin.addr()));
    within("the new configuration", async {
        while process.get("a", "/").await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    done(&process);
    assert_eq!(process.exit().await, Some(0));
}
