//! Hundreds of calls at once against an origin that does everything wrong that can be, and apps that do, too.
//! Whatever happens, everything that was lent comes back.
//!
//! The seed is printed; `OUTRIGGER_CHAOS_SEED` runs one again, `OUTRIGGER_CHAOS_CALLS` makes it longer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use outrigger::model::Random;
use tokio::io::AsyncWriteExt;

use crate::support::{Client, Exchange, Origin, Sidecar, eventually, origin::ok};

/// Panics anywhere in the process but in this test's own thread, where they fail it by themselves.
fn count_panics_of_workers() -> Arc<AtomicUsize> {
    let panics = Arc::new(AtomicUsize::new(0));
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new({
        let panics = panics.clone();
        move |info| {
            let thread = std::thread::current();
            if thread.name().is_some_and(|name| name.starts_with("worker-") || name == "acceptor" || name == "control")
            {
                panics.fetch_add(1, Ordering::SeqCst);
            }
            before(info);
        }
    }));
    panics
}

fn env<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// One request, answered well or badly; tells whether the connection goes on.
async fn misbehave(exchange: &mut Exchange, dice: u32) -> bool {
    let head = "HTTP/1.1 200 OK\r\n";
    match dice {
        0 => return false,
        1 => exchange.send("HTTP/1.1 200").await,
        2 => exchange.send("\0garbage\r\n\r\n").await,
        3 => exchange.send(format!("{head}content-length: 100\r\n\r\nshort")).await,
        4 => exchange.send(format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")).await,
        5 => exchange.send(format!("{head}transfer-encoding: chunked\r\n\r\nxyz\r\n")).await,
        6 => exchange.send(format!("{head}{}\r\n", "x: y\r\n".repeat(200))).await,
        7 => exchange.send(format!("{head}\r\nuntil the end")).await,
        8 => exchange.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n").await,
        9 => exchange.send(format!("{head}content-length: 2\r\nconnection: close\r\n\r\nhi")).await,
        10 => exchange.closed().await,
        11 => {
            exchange.send(ok("right") + &ok("wrong")).await;
            return true;
        }
        12 => {
            exchange.send(format!("HTTP/1.1 100 Continue\r\n\r\n{}", ok("interim"))).await;
            return true;
        }
        13 => {
            exchange.send("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy").await;
            return true;
        }
        14 => {
            exchange.send(format!("{head}content-length: 3000000\r\n\r\n")).await;
            exchange.send(vec![b'x'; 3_000_000]).await;
            return true;
        }
        _ => {
            exchange.send(ok("well")).await;
            return true;
        }
    }
    false
}

async fn chaotic_origin(seed: u64) -> Origin {
    let connections = Arc::new(AtomicUsize::new(0));
    Origin::scripted(move |mut exchange| {
        let nth = connections.fetch_add(1, Ordering::SeqCst) as u64;
        async move {
            let mut random = Random::seeded(seed ^ (nth << 20));
            loop {
                let dice = random.below(30);
                // An answer to a head alone is an early one when a body follows.
                let read = if dice.is_multiple_of(7) { exchange.head().await } else { exchange.request().await };
                let Some(request) = read else { return };
                if request.contains("chunked") {
                    exchange.until(b"0\r\n\r\n").await;
                }
                if !misbehave(&mut exchange, dice).await {
                    if dice.is_multiple_of(2) {
                        exchange.reset();
                    }
                    return;
                }
            }
        }
    })
    .await
}

/// How a call ended, as its app saw it.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Answer,
    Closed,
    Left,
}

async fn call(sidecar: &Sidecar, client: &mut Client, random: &mut Random) -> Seen {
    let length = 1 + random.below(200_000) as usize;
    let request = match random.below(8) {
        0 => format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length)),
        1 => format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{}\r\n0\r\n\r\n",
            "x".repeat(length)
        ),
        2 => format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\ntoo short"),
        3 => "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnot hex\r\n".into(),
        4 => "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".into(),
        5 => "GET / HTTP/1.0\r\nHost: a\r\n\r\n".into(),
        6 => "\x01\x02\x03\r\n\r\n".into(),
        _ => "GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
    };
    if client.stream.write_all(request.as_bytes()).await.is_err() {
        return Seen::Closed;
    }
    if request.ends_with("too short") || random.below(6) == 0 {
        // Leaves: at once, or once the call is under way.
        if random.below(2) == 0 {
            sidecar.view("a").await;
        }
        return Seen::Left;
    }
    match client.try_reply(false).await {
        Some(reply) if reply.status == 101 || !reply.complete => Seen::Closed,
        Some(_) => Seen::Answer,
        None => Seen::Closed,
    }
}

#[tokio::test]
async fn everything_comes_back() {
    let seed = env("OUTRIGGER_CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 16 | 0x5eed);
    let calls = env("OUTRIGGER_CHAOS_CALLS").unwrap_or(600);
    println!("OUTRIGGER_CHAOS_SEED={seed} OUTRIGGER_CHAOS_CALLS={calls}");
    let panics = count_panics_of_workers();
    let origin = chaotic_origin(seed).await;
    let policy = ", timeout: {request: 300ms, idle: 300ms, tunnel: 300ms}, breaker: off, bulkhead: {max: 64, queue: 64, wait: 100ms}";
    let sidecar = Arc::new(Sidecar::before(&origin, policy).await);
    let apps: Vec<_> = (0..60)
        .map(|app| {
            let sidecar = sidecar.clone();
            tokio::spawn(async move {
                let mut random = Random::seeded(seed ^ (app << 40));
                let mut client = sidecar.client().await;
                for n in 0..calls / 60 {
                    let seen =
                        tokio::time::timeout(Duration::from_secs(30), call(&sidecar, &mut client, &mut random)).await;
                    match seen {
                        Ok(Seen::Answer) => {}
                        Ok(Seen::Closed | Seen::Left) => client = sidecar.client().await,
                        Err(_) => panic!("call {n} of app {app} got neither an answer nor an end"),
                    }
                }
            })
        })
        .collect();
    for app in apps {
        app.await.unwrap();
    }
    eventually("every permit and slot to come back", async || sidecar.is_quiet("a").await).await;
    eventually("every app's connection to go", async || sidecar.open("", "downstream").await == 0).await;
    eventually("every connection upstream to go, idle ones too", async || sidecar.open("a", "upstream").await == 0)
        .await;
    assert_eq!(panics.load(Ordering::SeqCst), 0, "no worker panicked");

    let steady = Origin::ok("after all").await;
    let after = Sidecar::before(&steady, "").await;
    assert_eq!(after.get("a", "/").await.text(), "after all");
    let metrics = sidecar.metrics().await;
    let ended = |outcome: &str| {
        metrics.get(&format!("outrigger_calls_total{{outcome=\"{outcome}\",service=\"a\"}}")).copied().unwrap_or(0.0)
    };
    for outcome in
        ["ok", "upstream_error", "upstream_reset", "bad_response", "bad_request", "cancelled", "request_timeout"]
    {
        assert!(ended(outcome) > 0.0, "chaos has lost its teeth: no call ended as {outcome}");
    }
}
