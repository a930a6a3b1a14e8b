//! Reload of the real process: by signal, by file, by the admin socket; and under load.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::net::TcpStream;

use crate::support::{Client, Held, Origin, Process, eventually};

fn one(addr: std::net::SocketAddr, rest: &str) -> String {
    format!("services: {{a: {{static: ['{addr}'], retry: off, ejection: off{rest}}}}}")
}

async fn value(process: &Process, key: &str) -> String {
    process.view("a").await.policy[key].value.clone()
}

#[tokio::test]
async fn a_signal_a_changed_file_and_the_admin_socket_all_reload() {
    let origin = Origin::ok("fine").await;
    let process = Process::start(&one(origin.addr(), "")).await;
    let reply = process.reload(&one(origin.addr(), ", timeout: 1s")).await;
    assert_eq!((reply.status, reply.text().as_str().contains("changed: a")), (200, true), "{}", reply.text());
    assert_eq!(value(&process, "timeout.request").await, "1s");

    process.write(&one(origin.addr(), ", timeout: 2s"));
    process.signal("HUP");
    eventually("the reload", async || value(&process, "timeout.request").await == "2s").await;

    process.write(&one(origin.addr(), ", timeout: 3s"));
    eventually("the reload", async || value(&process, "timeout.request").await == "3s").await;

    // In place, not by a rename; and with the half of it first.
    let text = std::fs::read_to_string(process.config()).unwrap();
    std::fs::write(process.config(), &text[..text.len() / 2]).unwrap();
    std::fs::write(process.config(), text.replace("3s", "4s")).unwrap();
    eventually("the reload", async || value(&process, "timeout.request").await == "4s").await;
    assert_eq!(process.get("a", "/").await.text(), "fine");
}

#[tokio::test]
async fn a_bad_file_keeps_the_old_configuration_and_says_why_and_where() {
    let origin = Origin::ok("fine").await;
    let process = Process::start(&one(origin.addr(), "")).await;
    let reply = process.reload("services:\n  a: {dns: 'a:80', timeuot: 3s}\n  b: {}\n").await;
    assert_eq!(reply.status, 422, "{}", reply.text());
    for part in ["timeuot", "did you mean", "outrigger.yaml:3", "b"] {
        assert!(reply.text().contains(part), "{part} in {}", reply.text());
    }
    assert_eq!(process.get("a", "/").await.text(), "fine");
    process.has_logged("timeuot").await;

    std::fs::remove_file(process.config()).unwrap();
    assert_eq!(process.admin("/reload").await.status, 422);
    process.signal("HUP");
    assert_eq!(process.reload(&one(origin.addr(), ", timeout: 1s")).await.status, 200);
    assert_eq!(value(&process, "timeout.request").await, "1s");
}

#[tokio::test]
async fn connections_and_calls_in_flight_do_not_notice() {
    let origin = Held::start().await;
    let process = Process::start(&one(origin.addr(), "")).await;
    let mut kept = process.client().await;
    origin.release(1);
    assert_eq!(kept.get("a", "/1", "").await.text(), "/1");
    let mut call = process.client().await;
    call.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.has_read(2).await;
    for n in 1..5 {
        let port = process.free();
        let yaml = one(origin.addr(), &format!(", timeout: {n}h, bulkhead: {}", 10 + n));
        let extra = format!("b{n}: {{static: ['{}'], listen: '{port}'}}}}", origin.addr());
        let yaml = format!("{}, {extra}", yaml.strip_suffix('}').unwrap());
        let reply = process.reload(&yaml).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(process.view("a").await.bulkhead.unwrap().in_flight, 1, "the call in flight still counts");
    }
    origin.release(1);
    assert_eq!(call.reply().await.text(), "/2");
    origin.release(1);
    assert_eq!(kept.get("a", "/3", "").await.text(), "/3");
    let view = process.view("a").await;
    assert_eq!((view.bulkhead.unwrap().in_flight, view.endpoints[0].in_flight), (0, 0));
    assert_eq!(view.calls["ok"], 3, "one count over all versions");
}

#[tokio::test]
async fn the_state_of_breaker_and_bulkhead_carries_over() {
    let origin = Origin::answering("HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n").await;
    let process = Process::start(&one(origin.addr(), ", breaker: {min_calls: 4, open_for: 1h}")).await;
    for _ in 0..4 {
        assert_eq!(process.get("a", "/").await.status, 500);
    }
    assert_eq!(process.get("a", "/").await.reason(), "breaker_open");
    for rest in [
        ", timeout: 1s, breaker: {min_calls: 4, open_for: 1h}",
        ", breaker: {min_calls: 5, open_for: 1h}",
        ", bulkhead: 7, breaker: {min_calls: 5, open_for: 2h}",
    ] {
        assert_eq!(process.reload(&one(origin.addr(), rest)).await.status, 200);
        assert_eq!(process.get("a", "/").await.reason(), "breaker_open", "{rest}");
    }
    process.command("breaker a closed").await;
    process.reload(&one(origin.addr(), ", breaker: {min_calls: 1}")).await;
    for _ in 0..3 {
        assert_eq!(process.get("a", "/").await.status, 500, "an operator's word outlives a reload");
    }
    process.reload(&one(origin.addr(), ", breaker: off")).await;
    assert!(process.view("a").await.breaker.is_none());
    process.reload(&one(origin.addr(), "")).await;
    assert_eq!(process.view("a").await.breaker.unwrap().forced, "auto");
}

#[tokio::test]
async fn waiters_are_let_in_by_a_greater_limit() {
    let origin = Held::start().await;
    let process = Process::start(&one(origin.addr(), ", bulkhead: {max: 1, queue: 5, wait: 1h}, timeout: 1h")).await;
    let mut clients = Vec::new();
    for n in 0..3 {
        let mut client = process.client().await;
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        clients.push(client);
    }
    eventually("calls to queue", async || process.view("a").await.bulkhead.unwrap().queued == 2).await;
    process.reload(&one(origin.addr(), ", bulkhead: {max: 3, queue: 5, wait: 1h}, timeout: 1h")).await;
    origin.has_read(3).await;
    origin.release(3);
    for client in &mut clients {
        assert_eq!(client.reply().await.status, 200);
    }
}

#[tokio::test]
async fn another_source_takes_over_without_a_gap() {
    let (old, new) = (Origin::ok("old").await, Origin::ok("new").await);
    let process = Process::start(&one(old.addr(), "")).await;
    let mut client = process.client().await;
    assert_eq!(client.get("a", "/", "").await.text(), "old");
    for (origin, expected) in [(&new, "new"), (&old, "old"), (&new, "new")] {
        process.reload(&one(origin.addr(), "")).await;
        eventually("the new endpoint", async || {
            let reply = process.get("a", "/").await;
            assert_eq!(reply.status, 200);
            reply.text() == expected
        })
        .await;
        assert_eq!(client.get("a", "/", "").await.text(), expected);
    }
    // Both at once, and by file: weights count, and endpoints that stay keep their connections.
    let list = process.file("list.yaml");
    std::fs::write(&list, format!("- {{address: '{}'}}\n- {{address: '{}'}}\n", old.addr(), new.addr())).unwrap();
    let reply = process.reload(&format!("services: {{a: {{file: '{}'}}}}", list.display())).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    eventually("both endpoints", async || process.view("a").await.endpoints.len() == 2).await;
    // One that does not exist yet: what was there stays until it does.
    process.reload(&format!("services: {{a: {{file: '{}'}}}}", process.file("none.yaml").display())).await;
    eventually("the problem to be seen", async || process.view("a").await.source.problem.is_some()).await;
    assert_eq!(process.get("a", "/").await.status, 200);
}

#[tokio::test]
async fn a_service_that_is_gone_is_unknown_and_leaves_no_series() {
    let origin = Held::start().await;
    let two =
        format!("services: {{a: {{static: ['{0}']}}, gone: {{static: ['{0}'], aliases: [away]}}}}", origin.addr());
    let process = Process::start(&two).await;
    origin.release(1);
    assert_eq!(process.get("away", "/").await.status, 200);
    let mut call = process.client().await;
    call.send("GET /last HTTP/1.1\r\nHost: gone\r\n\r\n").await;
    origin.has_read(2).await;
    assert!(process.observe("/metrics").await.text().contains("service=\"gone\""));
    process.reload(&one(origin.addr(), "")).await;
    for name in ["gone", "away"] {
        assert_eq!(process.get(name, "/").await.reason(), "unknown_service");
    }
    origin.release(1);
    assert_eq!(call.reply().await.text(), "/last", "a call that was under way finishes");
    let text = process.observe("/metrics").await.text();
    assert!(!text.contains("\"gone\""), "{text}");
    assert_eq!(process.observe("/api/services/gone").await.status, 404);
    process.reload(&two).await;
    origin.release(1);
    eventually("its return", async || process.get("gone", "/").await.status == 200).await;
}

#[tokio::test]
async fn ports_are_opened_closed_and_passed_on() {
    let (a, b) = (Origin::ok("a").await, Origin::ok("b").await);
    let process = Process::start(&one(a.addr(), "")).await;
    let (first, second) = (process.free(), process.free());
    let yaml = |of_a: Option<_>, of_b: Option<std::net::SocketAddr>| {
        let own = |port: Option<std::net::SocketAddr>| port.map_or(String::new(), |port| format!(", listen: '{port}'"));
        let (of_a, of_b) = (own(of_a), own(of_b));
        format!("services: {{a: {{static: ['{}']{of_a}}}, b: {{static: ['{}']{of_b}}}}}", a.addr(), b.addr())
    };
    let ask = async |port| Client::connect(port).await.get("whatever", "/", "").await;
    assert_eq!(process.reload(&yaml(Some(first), Some(second))).await.status, 200);
    eventually("b", async || ask(second).await.text() == "b").await;
    assert_eq!(ask(first).await.text(), "a");
    let mut kept = Client::connect(first).await;
    assert_eq!(kept.get("x", "/", "").await.text(), "a");
    // Swapped: not for a moment is either port closed.
    process.reload(&yaml(Some(second), Some(first))).await;
    assert_eq!((ask(first).await.text().as_str(), ask(second).await.text().as_str()), ("b", "a"));
    // Passed on to one that had none, and closed.
    process.reload(&yaml(None, Some(second))).await;
    assert_eq!(ask(second).await.text(), "b");
    eventually("the port to close", async || TcpStream::connect(first).await.is_err()).await;
    assert_eq!(kept.get("x", "/", "").await.text(), "a", "who came by a port that is closed now may stay");
    // One that is somebody else's: nothing at all changes.
    let taken = std::net::TcpListener::bind(first).unwrap();
    let reply = process.reload(&yaml(Some(taken.local_addr().unwrap()), None)).await;
    assert_eq!(reply.status, 422);
    assert!(reply.text().contains(&first.to_string()), "{}", reply.text());
    assert_eq!(ask(second).await.text(), "b");
    assert_eq!(process.view("b").await.entry.listen, Some(second));
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_left_alone() {
    let origin = Origin::ok("fine").await;
    let process = Process::start(&one(origin.addr(), "")).await;
    let other = process.free();
    let text = std::fs::read_to_string(process.config()).unwrap();
    process.write_text(&text.replace(&process.observe.to_string(), &other.to_string()));
    let reply = process.admin("/reload").await;
    assert_eq!(reply.status, 200);
    assert!(reply.text().contains("needs a restart: listen.observe"), "{}", reply.text());
    assert_eq!(process.observe("/health/ready").await.status, 200);
    let reply = process.reload(&one(origin.addr(), "")).await;
    assert!(reply.text().contains("nothing has changed"), "{}", reply.text());
}

#[tokio::test]
async fn settings_for_all_take_effect() {
    let origin = Origin::ok("fine").await;
    let process = Process::start(&one(origin.addr(), "")).await;
    let reply =
        process.reload(&format!("log: {{access: ./access.log, level: debug}}\n{}", one(origin.addr(), ""))).await;
    assert!(reply.text().contains("log.access, log.level"), "{}", reply.text());
    assert_eq!(process.get("a", "/seen").await.text(), "fine");
    let log = process.file("access.log");
    eventually("a line", async || std::fs::read_to_string(&log).unwrap_or_default().contains("/seen")).await;
    // Rotated: the signal has the log opened anew.
    std::fs::rename(&log, process.file("access.log.1")).unwrap();
    process.signal("HUP");
    eventually("a line in the new file", async || {
        process.get("a", "/again").await;
        std::fs::read_to_string(&log).unwrap_or_default().contains("/again")
    })
    .await;
}

/// Calls one service without a pause until told to stop; counts what it gets.
async fn caller(http: std::net::SocketAddr, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>, keep: bool) {
    let mut client = Client::connect(http).await;
    while !stop.load(Ordering::SeqCst) {
        if !keep {
            client = Client::connect(http).await;
        }
        let reply = client.get("steady", "/", "").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "steady"), "{}", reply.head);
        answered.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn no_call_is_lost_over_twenty_reloads() {
    let steady = Origin::ok("steady").await;
    let file = |n: usize| {
        let others: String = (0..n % 4)
            .map(|i| {
                format!("  other-{i}: {{static: ['{}'], timeout: {}s, bulkhead: {}}}\n", steady.addr(), n + 1, n + 1)
            })
            .collect();
        format!(
            "workers: 2\nservices:\n  steady: {{static: ['{}'], timeout: {}s, aliases: [s{n}], bulkhead: {}}}\n{others}",
            steady.addr(),
            10 + n,
            50 + n,
        )
    };
    let process = Process::start(&file(0)).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = [true, true, false, false]
        .into_iter()
        .map(|keep| tokio::spawn(caller(process.http, stop.clone(), answered.clone(), keep)))
        .collect();
    for n in 1..=20 {
        let reply = process.reload(&file(n)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let seen = answered.load(Ordering::SeqCst);
        eventually("calls between reloads", async || answered.load(Ordering::SeqCst) >= seen + 20).await;
    }
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    let view = process.view("steady").await;
    assert_eq!(view.calls.keys().collect::<Vec<_>>(), ["ok"]);
    assert_eq!(view.calls["ok"], answered.load(Ordering::SeqCst) as u64);
}

#[tokio::test]
async fn a_drained_endpoint_stays_drained() {
    let (one, two) = (Origin::ok("one").await, Origin::ok("two").await);
    let both = |rest: &str| format!("services: {{a: {{static: ['{}', '{}']{rest}}}}}", one.addr(), two.addr());
    let process = Process::start(&both("")).await;
    process.admin(&format!("/drain/{}", one.addr())).await;
    process.reload(&both(", timeout: 1s")).await;
    // Another source, even, that names the same instance.
    let list = process.file("list.yaml");
    std::fs::write(&list, format!("[{{address: '{}'}}, {{address: '{}', weight: 3}}]", one.addr(), two.addr()))
        .unwrap();
    process.reload(&format!("services: {{a: {{file: '{}'}}}}", list.display())).await;
    eventually("the file's weight", async || process.view("a").await.endpoints.iter().any(|e| e.weight == 3)).await;
    for _ in 0..10 {
        assert_eq!(process.get("a", "/").await.text(), "two");
    }
}
