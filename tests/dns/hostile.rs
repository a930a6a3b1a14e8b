//! Noise, floods, and clients that do not let go.

use std::time::Duration;

use hickory_resolver::proto::rr::RecordType;
use outrigger::{model::Random, vip::dns};
use tokio::{io::AsyncWriteExt, net::UdpSocket, time::Instant};

use super::{
    server::Server,
    support::{Setting, Trial, Udp, query, short},
};

/// What must not be answered, or only with an error, and that the next question is answered all the same: replies come
/// in the order of questions.
#[tokio::test]
async fn noise_is_answered_shortly_or_not_at_all() {
    let trial = Trial::start(Setting { dns: "forward: off", ..Setting::default() });
    let udp = Udp::to(trial.address()).await;
    let good = query("orders.vip.internal.", RecordType::A);
    let bytes = good.to_vec().unwrap();
    let changed = |at: usize, value: u8| {
        let mut changed = bytes.clone();
        changed[at] = value;
        changed
    };
    let silent = [vec![0], bytes[..11].to_vec(), changed(2, 0x81), vec![0xff; 4000]];
    for noise in &silent {
        udp.send(noise).await;
        assert_eq!(short(&udp.ask(&good).await), "NOERROR 127.84.0.7", "{noise:x?}");
    }
    for (noise, code) in [
        (bytes[..20].to_vec(), 1),
        (changed(5, 2), 1),
        (changed(2, 0x29), 4),
        ([&bytes[..12], &[0xc0, 12, 0, 1, 0, 1]].concat(), 1),
        ([&bytes[..12], &[0; 60_000]].concat(), 1),
    ] {
        udp.send(&noise).await;
        let reply = udp.receive().await;
        assert_eq!((&reply[..2], reply[3] & 15, reply.len()), (&bytes[..2], code, 12));
    }
    assert_eq!(trial.count("malformed"), silent.len() as u64 + 5);
}

#[tokio::test]
async fn no_bytes_are_odd_enough_to_stop_it() {
    let trial = Trial::start(Setting { dns: "forward: off", ..Setting::default() });
    let udp = Udp::to(trial.address()).await;
    let bytes = query("orders.vip.internal.", RecordType::A).to_vec().unwrap();
    for seed in 0..20_000 {
        let mut random = Random::seeded(seed);
        let mut noise = bytes.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(noise.len() as u32) as usize;
            noise[at] = random.below(256) as u8;
        }
        udp.send(&noise).await;
        if seed % 50 == 0 {
            let good = query("orders.vip.internal.", RecordType::A);
            assert_eq!(short(&udp.ask(&good).await).split(' ').next(), Some("NOERROR"), "after seed {seed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_does_not_keep_others_waiting() {
    let trial = Trial::start(Setting { dns: "forward: off", ..Setting::default() });
    let address = trial.address();
    let flood = tokio::spawn(async move {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let bytes = query("users.vip.internal.", RecordType::A).to_vec().unwrap();
        loop {
            let _ = socket.send_to(&bytes, address).await;
        }
    });
    let mut tcp = trial.tcp().await;
    let start = Instant::now();
    for _ in 0..200 {
        tcp.send(&query("orders.vip.internal.", RecordType::A)).await;
        assert_eq!(short(&tcp.receive().await), "NOERROR 127.84.0.7");
    }
    let took = start.elapsed();
    flood.abort();
    println!("200 answers during {} of a flood took {took:?}", trial.count("nxdomain"));
    assert!(trial.count("nxdomain") > 1000 && took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn questions_that_nobody_answers_are_bounded_and_our_names_go_on() {
    let server = Server::start().await;
    server.silent(true);
    let trial = Trial::forwarding(&[server.addr]);
    let udp = Udp::to(trial.address()).await;
    let mut failed = 0;
    for i in 0..3000 {
        udp.send(&query(&format!("n{i}.lan."), RecordType::A).to_vec().unwrap()).await;
        // Too many at once would be lost in the socket's buffer, and not in the responder's limits.
        if i % 50 == 0 {
            let good = query("orders.vip.internal.", RecordType::A);
            udp.send(&good.to_vec().unwrap()).await;
            loop {
                let reply = udp.receive().await;
                // Some of thousands of questions have the same id.
                if reply[3] & 15 == 0 {
                    assert_eq!(reply[..2], good.metadata.id.to_be_bytes());
                    break;
                }
                assert_eq!(reply[3] & 15, 2);
                failed += 1;
            }
        }
    }
    assert!(failed > 1500, "{failed} were turned away at once");
    let names: std::collections::HashSet<_> = server.log().into_iter().map(|asked| asked.name).collect();
    assert!(names.len() <= 1024, "512 at once, and once more after their time-out: {}", names.len());
    assert_eq!(trial.count("own"), 60);
}

#[tokio::test]
async fn connections_are_limited_and_those_that_are_there_are_served() {
    let trial = Trial::start(Setting { dns: "forward: off", ..Setting::default() });
    let mut held = Vec::new();
    for _ in 0..256 {
        let mut tcp = trial.tcp().await;
        tcp.send(&query("orders.vip.internal.", RecordType::A)).await;
        assert_eq!(short(&tcp.receive().await), "NOERROR 127.84.0.7");
        held.push(tcp);
    }
    trial.tcp().await.closed().await;
    held[0].send(&query("orders.vip.internal.", RecordType::A)).await;
    assert_eq!(short(&held[0].receive().await), "NOERROR 127.84.0.7");
    assert_eq!(trial.short("orders.vip.internal.", RecordType::A).await, "NOERROR 127.84.0.7");
    drop(held);
    // Places come back as their connections go.
    loop {
        let mut tcp = trial.tcp().await;
        tcp.send(&query("orders.vip.internal.", RecordType::A)).await;
        let mut length = [0; 2];
        if tcp.0.readable().await.is_ok() && matches!(tcp.0.try_read(&mut length), Ok(2)) {
            break;
        }
    }
}

#[tokio::test]
async fn a_connection_that_says_too_much_or_nothing_is_closed() {
    let trial = Trial::start(Setting { dns: "forward: off", ..Setting::default() });
    let mut large = trial.tcp().await;
    large.0.write_all(&[0x10, 0x01]).await.unwrap();
    large.closed().await;
    let (mut silent, mut slow) = (trial.tcp().await, trial.tcp().await);
    slow.0.write_all(&[0, 40, 1, 2, 3]).await.unwrap();
    let start = Instant::now();
    tokio::join!(silent.closed(), slow.closed());
    assert!(start.elapsed() > Duration::from_secs(9), "{:?}", start.elapsed());
}

#[tokio::test]
async fn who_closes_its_side_still_gets_its_answers() {
    let trial = Trial::start(Setting { dns: "forward: off", ..Setting::default() });
    let mut tcp = trial.tcp().await;
    for _ in 0..100 {
        tcp.send(&query("orders.vip.internal.", RecordType::A)).await;
    }
    tcp.0.shutdown().await.unwrap();
    for _ in 0..100 {
        assert_eq!(short(&tcp.receive().await), "NOERROR 127.84.0.7");
    }
    tcp.closed().await;
}

#[tokio::test]
async fn a_stop_frees_the_port_and_questions_under_way_do_not_hold_it_up() {
    let server = Server::start().await;
    server.silent(true);
    let trial = Trial::forwarding(&[server.addr]);
    let address = trial.address();
    let udp = Udp::to(address).await;
    udp.send(&query("www.lan.", RecordType::A).to_vec().unwrap()).await;
    server.asked_more(1).await;
    let start = Instant::now();
    trial.responder.stop();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let again = dns::bind(address).unwrap();
    assert!(dns::bind(again.address()).is_err(), "and a second one is told that it is taken");
}
