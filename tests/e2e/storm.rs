//! Everything restarts, in any order, under a steady caller: afterwards all calls succeed again by themselves.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    server::Server,
    support::{Client, Exchange, Origin, Process, eventually, free, ok, within},
};

/// Steps of one storm.
const STEPS: usize = 16;

/// A stream of numbers that a seed decides (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// What the sidecar depends on. Each part is there or is not; each comes back at its old address.
struct Neighbours {
    dns: SocketAddr,
    server: Option<Server>,
    addrs: Vec<SocketAddr>,
    origins: Vec<Option<Origin>>,
}

impl Neighbours {
    async fn start() -> Self {
        // Addresses of their own: nobody takes the port of one that is away.
        let port = free().port();
        let addrs: Vec<_> = (0..3).map(|_| SocketAddr::new(free().ip(), port)).collect();
        let origins = addrs.iter().map(|_| None).collect();
        let mut all = Self { dns: free(), server: None, addrs, origins };
        all.all_come_back().await;
        all
    }

    fn port(&self) -> u16 {
        self.addrs[0].port()
    }

    /// The name server goes, or comes back.
    async fn server(&mut self) {
        if self.server.take().is_none() {
            let server = within("the name server's port", Server::start_at(self.dns)).await;
            let ips: Vec<_> = self.addrs.iter().map(|addr| addr.ip().to_string()).collect();
            server.a("a.test", &ips.iter().map(String::as_str).collect::<Vec<_>>());
            self.server = Some(server);
        }
    }

    /// An endpoint goes, or comes back.
    async fn origin(&mut self, which: usize) {
        if self.origins[which].take().is_none() {
            let addr = self.addrs[which];
            // The one that was there may not have left yet.
            eventually("the endpoint's port", async || std::net::TcpListener::bind(addr).is_ok()).await;
            self.origins[which] = Some(Origin::scripted_at(addr, serve).await);
        }
    }

    async fn all_come_back(&mut self) {
        if self.server.is_none() {
            self.server().await;
        }
        for which in 0..self.origins.len() {
            if self.origins[which].is_none() {
                self.origin(which).await;
            }
        }
    }
}

async fn serve(mut exchange: Exchange) {
    while exchange.request().await.is_some() {
        exchange.send(ok("fine")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_restarts_in_any_order_calls_succeed_again() {
    for seed in 1..=4 {
        storm(seed).await;
    }
}

async fn storm(seed: u64) {
    let mut dice = Dice(seed);
    let mut neighbours = Neighbours::start().await;
    let yaml = format!(
        "ready: 1s\ndrain: 300ms\nresolver: {{servers: ['{}'], ttl: {{min: 20ms, max: 100ms}}, timeout: 200ms}}\n\
         services: {{a: {{dns: 'a.test:{}', timeout: {{request: 2s, connect: 200ms}}, breaker: {{open_for: 200ms}}, \
         ejection: {{for: 200ms, max_for: 400ms}}}}}}",
        neighbours.dns,
        neighbours.port()
    );
    let mut process = Process::start(&yaml).await;
    let over = Arc::new(AtomicBool::new(false));
    let caller = tokio::spawn({
        let (over, http) = (over.clone(), process.http);
        async move {
            let mut good = 0;
            while !over.load(Ordering::Relaxed) {
                good += usize::from(one_call(http).await == Some(200));
            }
            good
        }
    });

    let mut steps = Vec::new();
    for _ in 0..STEPS {
        let step = dice.below(6);
        steps.push(step);
        match step {
            0 => neighbours.server().await,
            1 => process.restart("KILL").await,
            2 => process.restart("TERM").await,
            which => neighbours.origin(which as usize - 3).await,
        }
        // Somebody notices before the next thing happens, or nobody does.
        for _ in 0..dice.below(20) {
            one_call(process.http).await;
        }
    }

    // All are there again, and nobody lends the sidecar a hand.
    neighbours.all_come_back().await;
    let what = format!("a hundred good calls in a row after {steps:?} (seed {seed})");
    within(&what, async {
        let mut in_a_row = 0;
        while in_a_row < 100 {
            in_a_row = if one_call(process.http).await == Some(200) { in_a_row + 1 } else { 0 };
        }
    })
    .await;
    over.store(true, Ordering::Relaxed);
    assert!(caller.await.unwrap() > 0, "the caller had its part in it");
}

/// One call on a connection of its own; its status, if it comes to that.
async fn one_call(http: SocketAddr) -> Option<u16> {
    let mut client = Client::on(TcpStream::connect(http).await.ok()?);
    client.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.ok()?;
    client.try_reply(false).await.map(|reply| reply.status)
}
