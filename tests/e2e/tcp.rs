//! Services that speak no HTTP: bytes both ways, and what becomes of them when a side fails.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use outrigger::model::Random;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

use crate::support::{Client, Exchange, Origin, Process, Sidecar, admin, eventually, within};

/// A sidecar before these endpoints of service `a`; `rest` is more of its YAML, as `, key: value`.
async fn before(endpoints: &[SocketAddr], rest: &str) -> Sidecar {
    Sidecar::start(&yaml(endpoints, rest)).await
}

fn yaml(endpoints: &[SocketAddr], rest: &str) -> String {
    let list: Vec<String> = endpoints.iter().map(|addr| format!("'{addr}'")).collect();
    format!(
        "workers: 2\nservices: {{a: {{static: [{}], protocol: tcp, listen: '127.0.0.1:0'{rest}}}}}",
        list.join(", ")
    )
}

async fn echo(mut exchange: Exchange) {
    while let Some(bytes) = exchange.some().await {
        exchange.send(bytes).await;
    }
}

async fn silent(mut exchange: Exchange) {
    exchange.closed().await;
}

async fn connect(sidecar: &Sidecar) -> Client {
    Client::connect(sidecar.port_of("a")).await
}

/// A connection whose first byte has come back from an echo.
async fn echoed(sidecar: &Sidecar) -> Client {
    let mut client = connect(sidecar).await;
    client.send("x").await;
    assert_eq!(client.exactly(1).await, b"x");
    client
}

/// How a connection ends: what came before, and whether it was reset.
async fn ends(client: &mut Client) -> (Vec<u8>, bool) {
    let mut bytes = client.take_buffered();
    let read = within("the end of the connection", client.stream.read_to_end(&mut bytes)).await;
    let reset = read.is_err_and(|error| {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        true
    });
    (bytes, reset)
}

/// A connection that gets nothing but a reset; one that is fast enough meets an app that still connects.
async fn is_refused(sidecar: &Sidecar) -> bool {
    match TcpStream::connect(sidecar.port_of("a")).await {
        Ok(mut stream) => stream.read(&mut [0]).await.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// Whether a byte comes back from an echo.
async fn is_carried(port: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(port).await else { return false };
    stream.write_all(b"x").await.is_ok() && stream.read(&mut [0]).await.is_ok_and(|n| n == 1)
}

/// Nothing is open any more, on either side.
async fn nothing_is_left(sidecar: &Sidecar) {
    for (service, side) in [("", "downstream"), ("a", "upstream")] {
        eventually("every connection to go", async || sidecar.open(service, side).await == 0).await;
    }
}

async fn retries(sidecar: &Sidecar) -> u64 {
    sidecar.metrics().await["outrigger_retries_total{reason=\"connect\",service=\"a\"}"] as u64
}

/// An address where nothing listens: it was free a moment ago.
fn nowhere() -> SocketAddr {
    crate::support::free()
}

/// A listener whose queue is full: the kernel lets further connections wait in silence.
struct Full {
    listener: socket2::Socket,
    _waiting: Vec<std::net::TcpStream>,
}

impl Full {
    fn start() -> Self {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let waiting =
            std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200)).ok());
        Self { listener, _waiting: waiting.take(64).collect() }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }
}

#[tokio::test]
async fn bytes_go_both_ways_whatever_they_are() {
    let origin = Origin::scripted(echo).await;
    let sidecar = before(&[origin.addr()], "").await;
    let mut client = connect(&sidecar).await;
    for text in ["\0\x16\x03\x01", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\r\n\r\n"]
    {
        client.send(text).await;
        assert_eq!(client.exactly(text.len()).await, text.as_bytes());
    }
    let bulkhead = sidecar.view("a").await.bulkhead.unwrap();
    assert_eq!(bulkhead.in_flight, 1, "a connection is a call for as long as it lives");
    assert_eq!((sidecar.open("", "downstream").await, sidecar.open("a", "upstream").await), (1, 1));
    assert_eq!(sidecar.attempts("a", "ok").await, 0);
    client.stream.shutdown().await.unwrap();
    assert_eq!(ends(&mut client).await, (Vec::new(), false));
    sidecar.settles("a", &[("ok", 1)]).await;
    assert_eq!(sidecar.attempts("a", "ok").await, 1);
    nothing_is_left(&sidecar).await;
}

#[tokio::test]
async fn the_endpoint_may_speak_first() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.send("welcome").await;
        assert_eq!(exchange.exactly(5).await.unwrap(), b"hello");
        exchange.send("bye").await;
    })
    .await;
    let sidecar = before(&[origin.addr()], "").await;
    let mut client = connect(&sidecar).await;
    assert_eq!(client.exactly(7).await, b"welcome");
    client.send("hello").await;
    assert_eq!(client.exactly(3).await, b"bye");
    assert_eq!(ends(&mut client).await, (Vec::new(), false));
    drop(client);
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn the_app_may_speak_and_end_before_anything_is_connected() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.closed().await;
        let said = exchange.take_buffered();
        exchange.send(said.len().to_string()).await;
    })
    .await;
    let sidecar = before(&[origin.addr()], "").await;
    for n in [0, 1, 100_000] {
        let mut client = connect(&sidecar).await;
        client.send(vec![b'x'; n]).await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(ends(&mut client).await, (n.to_string().into_bytes(), false), "half a connection still carries");
    }
    sidecar.settles("a", &[("ok", 3)]).await;
}

#[tokio::test]
async fn an_endpoint_that_has_ended_still_hears_the_app() {
    let heard = Arc::new(AtomicUsize::new(0));
    let origin = Origin::scripted({
        let heard = heard.clone();
        move |mut exchange| {
            let heard = heard.clone();
            async move {
                exchange.stream.shutdown().await.unwrap();
                exchange.closed().await;
                heard.store(exchange.take_buffered().len(), Ordering::SeqCst);
            }
        }
    })
    .await;
    let sidecar = before(&[origin.addr()], "").await;
    let mut client = connect(&sidecar).await;
    assert_eq!(ends(&mut client).await, (Vec::new(), false));
    for _ in 0..10 {
        client.send("still here").await;
    }
    drop(client);
    sidecar.settles("a", &[("ok", 1)]).await;
    eventually("all of it", async || heard.load(Ordering::SeqCst) == 100).await;
}

#[tokio::test]
async fn large_transfers_arrive_whole_both_ways_at_once() {
    let origin = Origin::scripted(echo).await;
    let sidecar = before(&[origin.addr()], "").await;
    let mut transfers = tokio::task::JoinSet::new();
    for n in 0..4_u32 {
        let client = connect(&sidecar).await;
        transfers.spawn(async move {
            let sent: Arc<[u8]> = (0..16_000_000_u32).map(|i| (i.wrapping_mul(n + 7) >> 5) as u8).collect();
            let (mut from, mut to) = client.stream.into_split();
            let sending = tokio::spawn({
                let sent = sent.clone();
                async move {
                    to.write_all(&sent).await.unwrap();
                    to.shutdown().await.unwrap();
                    to
                }
            });
            let mut back = Vec::new();
            within("all of it", from.read_to_end(&mut back)).await.unwrap();
            assert!(back == *sent, "{} bytes came back of {}", back.len(), sent.len());
            sending.await.unwrap();
        });
    }
    while let Some(transfer) = transfers.join_next().await {
        transfer.unwrap();
    }
    sidecar.settles("a", &[("ok", 4)]).await;
}

#[tokio::test]
async fn many_connections_are_spread_by_how_many_there_are() {
    let (one, two) = (Origin::scripted(echo).await, Origin::scripted(echo).await);
    let sidecar = before(&[one.addr(), two.addr()], ", bulkhead: 500").await;
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(echoed(&sidecar).await);
    }
    let spread = [one.connections(), two.connections()];
    assert!(spread.iter().all(|&n| n > 80), "{spread:?}");
    drop(clients);
    sidecar.settles("a", &[("ok", 200)]).await;
    nothing_is_left(&sidecar).await;
}

#[tokio::test]
async fn a_full_bulkhead_resets_and_queues() {
    let origin = Origin::scripted(echo).await;
    let sidecar = before(&[origin.addr()], ", bulkhead: {max: 2, queue: 1, wait: 1h}, timeout: 1h").await;
    let (first, _second) = (echoed(&sidecar).await, echoed(&sidecar).await);
    let mut waiting = connect(&sidecar).await;
    waiting.send("patience").await;
    waiting.stream.shutdown().await.unwrap();
    eventually("it to queue", async || sidecar.view("a").await.bulkhead.unwrap().queued == 1).await;
    assert!(is_refused(&sidecar).await);
    assert_eq!(sidecar.calls("a", "bulkhead_full").await, 1);
    assert_eq!(sidecar.view("a").await.breaker.unwrap().failures, 0);
    assert_eq!(origin.connections(), 2);
    drop(first);
    assert_eq!(ends(&mut waiting).await, (b"patience".to_vec(), false), "and an end is no reason to leave the queue");
}

#[tokio::test]
async fn who_leaves_the_queue_or_the_connecting_is_not_waited_for() {
    let full = Full::start();
    let sidecar =
        before(&[full.addr()], ", bulkhead: {max: 1, queue: 1, wait: 1h}, timeout: {request: 1h, connect: 1h}").await;
    let connecting = connect(&sidecar).await;
    eventually("it to begin", async || sidecar.view("a").await.bulkhead.unwrap().in_flight == 1).await;
    let waiting = connect(&sidecar).await;
    eventually("it to queue", async || sidecar.view("a").await.bulkhead.unwrap().queued == 1).await;
    for client in [waiting, connecting] {
        client.stream.set_zero_linger().unwrap();
        drop(client);
    }
    sidecar.settles("a", &[("cancelled", 2)]).await;
    assert_eq!(sidecar.attempts("a", "cancelled").await, 1);
    assert_eq!(sidecar.view("a").await.breaker.unwrap().calls, 0, "nobody is judged by that");
    nothing_is_left(&sidecar).await;
}

#[tokio::test]
async fn per_endpoint_limits_hold() {
    let (one, two) = (Origin::scripted(echo).await, Origin::scripted(echo).await);
    let sidecar = before(&[one.addr(), two.addr()], ", bulkhead: {max: 10, per_endpoint: 1}, balance: random").await;
    let _both = [echoed(&sidecar).await, echoed(&sidecar).await];
    assert_eq!((one.connections(), two.connections()), (1, 1));
    assert!(is_refused(&sidecar).await);
    assert_eq!(sidecar.calls("a", "bulkhead_full").await, 1);
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_made_up_for_by_another() {
    let origin = Origin::scripted(echo).await;
    let sidecar = before(&[nowhere(), origin.addr()], ", balance: round_robin, breaker: off").await;
    for n in 1..=10 {
        drop(echoed(&sidecar).await);
        assert_eq!(origin.connections(), n);
    }
    sidecar.settles("a", &[("ok", 10)]).await;
    let refused = sidecar.attempts("a", "connect_refused").await;
    assert_eq!(refused, retries(&sidecar).await);
    assert!((3..=7).contains(&refused), "about every second one begins at the wrong one: {refused}");
    assert_eq!(sidecar.attempts("a", "ok").await, 10);
}

#[tokio::test]
async fn each_endpoint_is_tried_before_any_is_tried_again() {
    let origin = Origin::scripted(echo).await;
    for balance in ["p2c", "round_robin", "random", "least_request"] {
        let endpoints = [nowhere(), nowhere(), origin.addr()];
        let sidecar = before(
            &endpoints,
            &format!(", balance: {balance}, breaker: off, retry: {{budget: 100%, min_per_second: 100}}"),
        )
        .await;
        for _ in 0..20 {
            drop(echoed(&sidecar).await);
        }
        sidecar.settles("a", &[("ok", 20)]).await;
    }
}

#[tokio::test]
async fn where_all_refuse_three_attempts_are_enough() {
    for endpoints in [vec![nowhere()], vec![nowhere(), nowhere()], (0..5).map(|_| nowhere()).collect()] {
        let sidecar = before(&endpoints, "").await;
        assert!(is_refused(&sidecar).await);
        sidecar.settles("a", &[("connect_refused", 1)]).await;
        assert_eq!((sidecar.attempts("a", "connect_refused").await, retries(&sidecar).await), (3, 2));
        assert_eq!(sidecar.view("a").await.breaker.unwrap().failures, 3);
    }
}

#[tokio::test]
async fn an_endpoint_that_comes_back_within_a_moment_is_found() {
    // A machine that stands still for too long makes even the third attempt come too early; then it begins again.
    eventually("an attempt after the first to be accepted", async || {
        let addr = nowhere();
        let sidecar = before(&[addr], ", breaker: off").await;
        let connection = tokio::spawn(is_carried(sidecar.port_of("a")));
        eventually("an attempt", async || sidecar.attempts("a", "connect_refused").await >= 1).await;
        let _origin = Origin::scripted_at(addr, echo).await;
        connection.await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_does_not_accept_is_left_for_another() {
    let (full, origin) = (Full::start(), Origin::scripted(echo).await);
    let sidecar = before(&[full.addr(), origin.addr()], ", balance: round_robin, timeout: {connect: 50ms}").await;
    for _ in 0..4 {
        drop(echoed(&sidecar).await);
    }
    sidecar.settles("a", &[("ok", 4)]).await;
    let late = sidecar.attempts("a", "connect_timeout").await;
    assert_eq!(late, retries(&sidecar).await);
    assert!((1..=3).contains(&late), "{late}");
}

#[tokio::test]
async fn request_bounds_all_attempts_together() {
    let full = Full::start();
    let sidecar = before(&[full.addr()], ", timeout: {connect: 1h, request: 100ms}").await;
    assert!(is_refused(&sidecar).await);
    sidecar.settles("a", &[("connect_timeout", 1)]).await;
    assert_eq!((sidecar.attempts("a", "connect_timeout").await, retries(&sidecar).await), (1, 0));
    assert_eq!(sidecar.view("a").await.breaker.unwrap().failures, 1);
}

#[tokio::test]
async fn request_bounds_the_queue_too() {
    let origin = Origin::scripted(echo).await;
    let sidecar = before(&[origin.addr()], ", bulkhead: {max: 1, queue: 1, wait: 1h}, timeout: 100ms").await;
    let _first = echoed(&sidecar).await;
    assert!(is_refused(&sidecar).await);
    assert_eq!(sidecar.calls("a", "request_timeout").await, 1);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn no_endpoint_is_a_reset_too() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("endpoints.yaml");
    let sidecar = Sidecar::start_unready(&format!(
        "services: {{a: {{file: '{}', protocol: tcp, listen: '127.0.0.1:0'}}}}",
        list.display()
    ));
    assert!(is_refused(&sidecar).await);
    sidecar.settles("a", &[("no_endpoints", 1)]).await;
    let origin = Origin::scripted(echo).await;
    std::fs::write(&list, format!("[{{address: '{}'}}]", origin.addr())).unwrap();
    eventually("the endpoint", async || !sidecar.view("a").await.endpoints.is_empty()).await;
    drop(echoed(&sidecar).await);
    sidecar.settles("a", &[("no_endpoints", 1), ("ok", 1)]).await;
}

#[tokio::test]
async fn the_breaker_opens_on_refused_connections_and_closes_again() {
    let addr = nowhere();
    let sidecar = before(&[addr], ", breaker: {min_calls: 4, open_for: 50ms}").await;
    assert!(is_refused(&sidecar).await);
    // The fourth failure opens it in the middle of the second connection, which then is not tried again.
    assert!(is_refused(&sidecar).await);
    assert_eq!(sidecar.calls("a", "connect_refused").await, 2);
    assert_eq!(sidecar.attempts("a", "connect_refused").await, 4);
    admin(sidecar.admin(), "/breaker/a/open").await;
    assert!(is_refused(&sidecar).await);
    assert_eq!(sidecar.calls("a", "breaker_open").await, 1);
    admin(sidecar.admin(), "/breaker/a/auto").await;
    let _origin = Origin::scripted_at(addr, echo).await;
    eventually("a connection to go through", async || is_carried(sidecar.port_of("a")).await).await;
    assert_eq!(sidecar.view("a").await.breaker.unwrap().state, "closed");
}

#[tokio::test]
async fn the_breaker_learns_of_a_connection_when_it_stands_and_of_nothing_later() {
    let origin = Origin::scripted(echo).await;
    let sidecar = before(&[origin.addr()], ", breaker: {min_calls: 1, slow_call: 1s}").await;
    let client = echoed(&sidecar).await;
    let breaker = sidecar.view("a").await.breaker.unwrap();
    assert_eq!((breaker.calls, breaker.failures), (1, 0));
    drop(origin);
    drop(client);
    eventually("everything to be given back", async || sidecar.is_quiet("a").await).await;
    let breaker = sidecar.view("a").await.breaker.unwrap();
    assert_eq!((breaker.calls, breaker.failures, breaker.state.as_str()), (1, 0, "closed"));
}

#[tokio::test]
async fn silence_in_both_directions_ends_it() {
    let origin = Origin::scripted(echo).await;
    let sidecar = before(&[origin.addr()], ", timeout: {idle: 300ms}").await;
    let mut client = echoed(&sidecar).await;
    assert_eq!(ends(&mut client).await, (Vec::new(), true));
    sidecar.settles("a", &[("request_timeout", 1)]).await;
    assert_eq!(sidecar.attempts("a", "request_timeout").await, 1);
    nothing_is_left(&sidecar).await;
}

#[tokio::test]
async fn one_direction_that_moves_is_no_silence() {
    let origin = Origin::scripted(|mut exchange| async move {
        for _ in 0..30 {
            exchange.send("tick").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let sidecar = before(&[origin.addr()], ", timeout: {request: 200ms, idle: 300ms}").await;
    let mut client = connect(&sidecar).await;
    let (bytes, reset) = ends(&mut client).await;
    assert_eq!((bytes.len(), reset), (30 * 4, false));
    drop(client);
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn total_bounds_it_all() {
    let origin = Origin::scripted(|mut exchange| async move {
        let mut probe = [0];
        while exchange.stream.try_read(&mut probe).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            exchange.send("x").await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let sidecar = before(&[origin.addr()], ", timeout: {total: 200ms}").await;
    let (bytes, reset) = ends(&mut connect(&sidecar).await).await;
    assert!(!bytes.is_empty() && reset);
    sidecar.settles("a", &[("request_timeout", 1)]).await;
}

#[tokio::test]
async fn an_endpoint_that_resets_is_heard_out_and_passed_on() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.some().await;
        exchange.send("too many clients").await;
        // The word has to be there before the reset: a kernel may drop what it finds in its way.
        exchange.some().await;
        exchange.reset();
    })
    .await;
    let sidecar = before(&[origin.addr()], "").await;
    let mut client = connect(&sidecar).await;
    client.send("hello").await;
    assert_eq!(client.exactly(16).await, b"too many clients");
    client.send("well?").await;
    assert_eq!(ends(&mut client).await, (Vec::new(), true));
    sidecar.settles("a", &[("upstream_reset", 1)]).await;
    assert_eq!(sidecar.attempts("a", "upstream_reset").await, 1);
    assert_eq!(sidecar.view("a").await.breaker.unwrap().failures, 0, "it did accept the connection");
    nothing_is_left(&sidecar).await;
}

#[tokio::test]
async fn what_an_endpoint_says_before_it_takes_no_more_arrives() {
    // It says why and closes, with the app's bytes unread: its kernel resets the connection then.
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.send("go away").await;
        let mut first = [0];
        exchange.stream.read_exact(&mut first).await.unwrap();
    })
    .await;
    let sidecar = before(&[origin.addr()], "").await;
    for _ in 0..20 {
        let mut client = connect(&sidecar).await;
        // More than it reads, less than a socket takes without being read.
        client.send(vec![b'x'; 20_000]).await;
        assert_eq!(client.exactly(7).await, b"go away");
        ends(&mut client).await;
    }
    eventually("everything to be given back", async || sidecar.is_quiet("a").await).await;
    assert_eq!(sidecar.calls("a", "ok").await + sidecar.calls("a", "upstream_reset").await, 20);
    nothing_is_left(&sidecar).await;
}

#[tokio::test]
async fn an_app_that_resets_is_passed_on() {
    let resets = Arc::new(AtomicUsize::new(0));
    let origin = Origin::scripted({
        let resets = resets.clone();
        move |mut exchange| {
            let resets = resets.clone();
            async move {
                let mut byte = [0];
                exchange.stream.read_exact(&mut byte).await.unwrap();
                exchange.send(byte).await;
                if exchange.stream.read(&mut byte).await.is_err() {
                    resets.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    })
    .await;
    let sidecar = before(&[origin.addr()], "").await;
    let client = echoed(&sidecar).await;
    client.stream.set_zero_linger().unwrap();
    drop(client);
    sidecar.settles("a", &[("cancelled", 1)]).await;
    assert_eq!(sidecar.attempts("a", "cancelled").await, 1);
    eventually("the endpoint to be told", async || resets.load(Ordering::SeqCst) == 1).await;
    nothing_is_left(&sidecar).await;
}

#[tokio::test]
async fn a_receiver_that_does_not_read_stops_its_sender() {
    let go = Arc::new(Semaphore::new(0));
    let origin = Origin::scripted({
        let go = go.clone();
        move |mut exchange| {
            let go = go.clone();
            async move {
                go.acquire().await.unwrap().forget();
                exchange.closed().await;
                let n = exchange.take_buffered().len();
                exchange.send(n.to_string()).await;
            }
        }
    })
    .await;
    let sidecar = before(&[origin.addr()], "").await;
    let mut client = connect(&sidecar).await;
    // Until the kernels of both hops, and our one buffer, are full: for a second, nothing more is taken.
    let chunk = vec![b'x'; 1 << 16];
    let mut sent = 0;
    while let Ok(n) = tokio::time::timeout(Duration::from_secs(1), client.stream.write(&chunk)).await {
        sent += n.unwrap();
        assert!(sent < 64 << 20, "somebody swallows it all");
    }
    go.add_permits(1);
    client.stream.shutdown().await.unwrap();
    assert_eq!(ends(&mut client).await, (sent.to_string().into_bytes(), false), "and nothing was lost");
}

#[tokio::test]
async fn a_stop_lets_connections_end_and_then_cuts_them() {
    let origin = Origin::scripted(echo).await;
    let yaml = |drain: &str| format!("drain: {{for: {drain}}}\n{}", yaml(&[origin.addr()], ""));
    let sidecar = Sidecar::start(&yaml("1h")).await;
    let mut client = echoed(&sidecar).await;
    let stopping = tokio::spawn(sidecar.stop());
    for _ in 0..100 {
        client.send("still here").await;
        assert_eq!(client.exactly(10).await, b"still here");
    }
    assert!(!stopping.is_finished());
    client.stream.shutdown().await.unwrap();
    assert_eq!(ends(&mut client).await, (Vec::new(), false));
    within("the stop", stopping).await.unwrap();

    let sidecar = Sidecar::start(&yaml("100ms")).await;
    let mut client = echoed(&sidecar).await;
    let ((), ended) = tokio::join!(sidecar.stop(), ends(&mut client));
    assert_eq!(ended, (Vec::new(), true));
}

#[tokio::test]
async fn a_stop_ends_who_still_waits() {
    let full = Full::start();
    let rest = ", bulkhead: {max: 1, queue: 1, wait: 1h}, timeout: {request: 1h, connect: 1h}";
    let sidecar = Sidecar::start(&format!("drain: {{for: 50ms}}\n{}", yaml(&[full.addr()], rest))).await;
    let mut connecting = connect(&sidecar).await;
    eventually("it to begin", async || sidecar.view("a").await.bulkhead.unwrap().in_flight == 1).await;
    let mut waiting = connect(&sidecar).await;
    eventually("it to queue", async || sidecar.view("a").await.bulkhead.unwrap().queued == 1).await;
    let ((), one, two) = tokio::join!(sidecar.stop(), ends(&mut connecting), ends(&mut waiting));
    assert_eq!((one, two), ((Vec::new(), true), (Vec::new(), true)));
}

#[tokio::test]
async fn a_service_that_is_removed_keeps_its_connections_for_the_drain_limit() {
    let origin = Origin::scripted(echo).await;
    let process = Process::start("services: {}").await;
    let port = process.free();
    let services = format!("services: {{a: {{static: ['{}'], protocol: tcp, listen: '{port}'}}}}", origin.addr());
    let reply = process.reload(&services).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    eventually("readiness", async || process.observe("/health/ready").await.status == 200).await;
    let mut client = Client::connect(port).await;
    client.send("x").await;
    assert_eq!(client.exactly(1).await, b"x");
    let reply = process.reload("drain: {for: 2s}\nservices: {}").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    client.send("still here").await;
    assert_eq!(client.exactly(10).await, b"still here");
    assert!(TcpStream::connect(port).await.is_err(), "nobody is let in any more");
    assert_eq!(ends(&mut client).await, (Vec::new(), true), "cut in the end");
}

#[tokio::test]
async fn a_service_may_change_its_protocol() {
    let origin = Origin::ok("fine").await;
    let process = Process::start("services: {}").await;
    let port = process.free();
    let service = |protocol| {
        format!("services: {{a: {{static: ['{}'], listen: '{port}', protocol: {protocol}}}}}", origin.addr())
    };
    assert_eq!(process.reload(&service("http1")).await.status, 200);
    eventually("readiness", async || process.observe("/health/ready").await.status == 200).await;
    let mut before = Client::connect(port).await;
    assert_eq!(before.get("a", "/", "").await.text(), "fine");
    assert_eq!(process.reload(&service("tcp")).await.status, 200);
    assert_eq!(
        before.get("a", "/", "").await.reason(),
        "bad_request",
        "what began as HTTP cannot become anything else"
    );
    let mut carried = Client::connect(port).await;
    assert_eq!(carried.get("whoever", "/", "").await.text(), "fine", "not a byte of it is read");
    assert_eq!(process.reload(&service("auto")).await.status, 200);
    assert_eq!(carried.get("whoever", "/", "").await.text(), "fine", "it stays what it was");
    assert_eq!(Client::connect(port).await.get("a", "/", "").await.text(), "fine");
}

/// One side's part in a conversation, as the dice have it.
async fn converse(mut stream: TcpStream, mut random: Random) {
    let mut buffer = vec![0; 100_000];
    for _ in 0..random.below(12) {
        match random.below(8) {
            0 => drop(stream.shutdown().await),
            1 => {
                let n = random.below(100_000) as usize;
                let _ = tokio::time::timeout(Duration::from_millis(20), stream.write_all(&buffer[..n])).await;
            }
            2 | 3 => drop(stream.write_all(b"a word").await),
            _ => drop(tokio::time::timeout(Duration::from_millis(5), stream.read(&mut buffer)).await),
        }
    }
    if random.below(3) == 0 {
        stream.set_zero_linger().unwrap();
    }
}

/// Hundreds of connections between apps and endpoints that write, end and reset as they like: whatever was lent comes
/// back. The seed is printed; `OUTRIGGER_CHAOS_SEED` runs one again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_both_sides_do_everything_is_given_back() {
    let seed = std::env::var("OUTRIGGER_CHAOS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_123);
    println!("replay with OUTRIGGER_CHAOS_SEED={seed}");
    let next = Arc::new(AtomicUsize::new(0));
    let random = move || Random::seeded(seed + next.fetch_add(1, Ordering::SeqCst) as u64);
    let origin = Origin::scripted({
        let random = random.clone();
        move |exchange| converse(exchange.stream, random())
    })
    .await;
    let rest = ", breaker: off, timeout: {connect: 50ms, idle: 200ms}, bulkhead: {max: 40, queue: 20, wait: 20ms}";
    let sidecar = before(&[origin.addr(), nowhere()], rest).await;
    let port = sidecar.port_of("a");
    let mut apps = tokio::task::JoinSet::new();
    for _ in 0..600 {
        let random = random();
        apps.spawn(async move {
            // One that is refused may hear of it while it connects.
            if let Ok(stream) = TcpStream::connect(port).await {
                converse(stream, random).await;
            }
        });
        if apps.len() >= 60 {
            apps.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(app) = apps.join_next().await {
        app.unwrap();
    }
    nothing_is_left(&sidecar).await;
    assert!(sidecar.is_quiet("a").await);
    let ended: u64 = sidecar.view("a").await.calls.values().sum();
    assert_eq!(ended, 600, "each connection is a call, and counts once: {:?}", sidecar.view("a").await.calls);
    let metrics = sidecar.metrics().await;
    let attempts: f64 = metrics.iter().filter(|(name, _)| name.contains("attempts_total{")).map(|(_, n)| n).sum();
    assert!(attempts >= origin.connections() as f64, "{attempts} of {}", origin.connections());
    println!("{:?}, {} retries", sidecar.view("a").await.calls, retries(&sidecar).await);
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_left_after_the_drain_limit() {
    let (gone, stays) = (Origin::scripted(echo).await, Origin::scripted(echo).await);
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("endpoints.yaml");
    let write = |addrs: &[SocketAddr]| {
        let text: String = addrs.iter().map(|addr| format!("- address: '{addr}'\n")).collect();
        let new = folder.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &list).unwrap();
    };
    write(&[gone.addr()]);
    let sidecar = Sidecar::start(&format!(
        "drain: {{for: 100ms}}\nservices: {{a: {{file: '{}', protocol: tcp, listen: '127.0.0.1:0'}}}}",
        list.display()
    ))
    .await;
    let mut old = echoed(&sidecar).await;
    write(&[stays.addr()]);
    eventually("the change", async || sidecar.view("a").await.endpoints[0].addr == stays.addr()).await;
    let mut new = echoed(&sidecar).await;
    assert_eq!(ends(&mut old).await, (Vec::new(), true));
    new.send("untouched").await;
    assert_eq!(new.exactly(9).await, b"untouched");
    assert_eq!((sidecar.calls("a", "upstream_reset").await, sidecar.attempts("a", "cancelled").await), (1, 1));
}

#[tokio::test]
async fn the_shared_port_says_that_it_is_the_wrong_one() {
    let origin = Origin::scripted(silent).await;
    let sidecar = before(&[origin.addr()], "").await;
    let reply = sidecar.get("a", "/").await;
    assert_eq!((reply.status, reply.reason().as_str()), (400, "bad_request"));
    assert!(reply.text().contains("protocol: tcp") && reply.text().contains("its own port"), "{}", reply.text());
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn each_connection_has_a_line_in_the_access_log() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.exactly(5).await;
        exchange.send("hello yourself").await;
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let sidecar = Sidecar::start(&format!(
        "log: {{access: '{}'}}\nservices:\n  a: {{static: ['{}'], protocol: tcp, listen: '127.0.0.1:0'}}\n  \
         b: {{static: ['{}'], protocol: tcp, listen: '127.0.0.1:0'}}",
        log.display(),
        origin.addr(),
        nowhere()
    ))
    .await;
    let mut client = connect(&sidecar).await;
    client.send("hello").await;
    ends(&mut client).await;
    drop(client);
    sidecar.settles("a", &[("ok", 1)]).await;
    ends(&mut Client::connect(sidecar.port_of("b")).await).await;
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    eventually("two lines", async || {
        sidecar.observe("/health/live").await;
        lines().len() == 2
    })
    .await;
    let [one, two] = &lines()[..] else { unreachable!() };
    assert_eq!((&one["service"], &one["method"], &one["path"]), (&"a".into(), &"TCP".into(), &"".into()));
    assert_eq!(
        (&one["outcome"], &one["attempts"], &one["bytes_in"], &one["bytes_out"]),
        (&"ok".into(), &1.into(), &5.into(), &14.into())
    );
    assert_eq!((&one["endpoint"], &one["details"]), (&origin.addr().to_string().into(), &serde_json::Value::Null));
    assert_eq!(
        (&two["service"], &two["outcome"], &two["attempts"]),
        (&"b".into(), &"connect_refused".into(), &3.into())
    );
    assert!(two["details"].as_str().unwrap().contains("refused"), "{two}");
}
