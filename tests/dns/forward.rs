//! Names of others, passed on to servers of every kind.

use std::net::SocketAddr;

use hickory_resolver::proto::{
    op::ResponseCode,
    rr::{
        Name, RData, RecordType,
        rdata::{A, CNAME, SOA, opt::EdnsOption},
    },
};
use outrigger::net::resolve::{Ourselves, System};
use tokio::{net::UdpSocket, time::Instant};

use super::{
    server::{Asked, Say, Server, Transport, addresses, full},
    support::{Forwarder, Setting, Trial, Udp, forward_to, query, reply, short},
};

fn a(addr: [u8; 4]) -> RData {
    RData::A(A(addr.into()))
}

#[tokio::test]
async fn an_answer_is_passed_on_and_kept() {
    let server = Server::start().await;
    server.a("www.lan", &["10.0.0.1", "10.0.0.2"]);
    let trial = Trial::forwarding(&[server.addr]);
    let first = trial.ask("Www.LAN.", RecordType::A).await;
    assert_eq!(short(&first), "NOERROR 10.0.0.1 10.0.0.2");
    assert_eq!(first.queries[0].name().to_ascii(), "Www.LAN.");
    assert!(first.metadata.recursion_available && !first.metadata.authoritative && !first.metadata.authentic_data);
    assert_eq!(trial.short("www.lan.", RecordType::A).await, "NOERROR 10.0.0.1 10.0.0.2");
    assert_eq!(server.log().len(), 1);
    assert_eq!((trial.count("forwarded"), trial.count("cached")), (1, 1));
    assert_eq!(trial.short("www.lan.", RecordType::AAAA).await, "NOERROR");
    assert_eq!(trial.short("nobody.lan.", RecordType::A).await, "NXDOMAIN");
}

#[tokio::test]
async fn a_no_is_kept_as_long_as_its_soa_says() {
    let server = Forwarder::saying(|query| {
        let mut no = reply(query, vec![]);
        no.metadata.response_code = ResponseCode::NXDomain;
        let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 60);
        no.add_authority(super::server::record("lan", 900, RData::SOA(soa)));
        vec![no]
    });
    let trial = Trial::forwarding(&[server.addr]);
    for _ in 0..3 {
        let no = trial.ask("nobody.lan.", RecordType::A).await;
        assert_eq!((short(&no), no.authorities.len()), ("NXDOMAIN".into(), 1));
    }
    assert_eq!(server.names(), ["nobody.lan."]);
}

#[tokio::test]
async fn one_question_of_many_clients_is_asked_once() {
    let server = Server::start().await;
    server.a("www.lan", &["10.0.0.1"]);
    server.silent(true);
    let trial = Trial::forwarding(&[server.addr]);
    let mut clients = Vec::new();
    for _ in 0..50 {
        let udp = Udp::to(trial.address()).await;
        udp.send(&query("www.lan.", RecordType::A).to_vec().unwrap()).await;
        clients.push(udp);
    }
    server.asked_more(1).await;
    server.silent(false);
    for client in &clients {
        assert_eq!(client.receive().await[3] & 15, 0);
    }
    assert!(server.log().len() <= 4, "once, and again when it did not hear: {:?}", server.log());
    assert_eq!(trial.count("forwarded"), 50);
}

#[tokio::test]
async fn what_is_too_long_comes_and_goes_by_tcp() {
    let server = Server::start().await;
    let many: Vec<_> = (0..200).map(|i| format!("10.0.0.{i}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    server.say("many.lan", RecordType::A, Say::Truncated(addresses("many.lan", &many)));
    let trial = Trial::forwarding(&[server.addr]);
    assert_eq!(trial.short("many.lan.", RecordType::A).await, "NOERROR tc");
    let transports: Vec<_> = server.log().iter().map(|asked: &Asked| asked.transport).collect();
    assert_eq!(transports, [Transport::Udp, Transport::Tcp]);
    let mut tcp = trial.tcp().await;
    tcp.send(&query("many.lan.", RecordType::A)).await;
    assert_eq!(tcp.receive().await.answers.len(), 200);
    let mut plain = query("many.lan.", RecordType::A);
    plain.edns = None;
    let short = Udp::to(trial.address()).await.ask(&plain).await;
    assert!(short.metadata.truncation && short.edns.is_none());
}

#[tokio::test]
async fn a_dead_or_unwilling_forwarder_is_passed_over() {
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let unwilling = Server::start().await;
    unwilling.say("www.lan", RecordType::A, Say::Code(ResponseCode::Refused));
    unwilling.say("other.lan", RecordType::A, Say::Code(ResponseCode::ServFail));
    let good = Server::start().await;
    good.a("www.lan", &["10.0.0.1"]);
    good.a("other.lan", &["10.0.0.2"]);
    let trial = Trial::forwarding(&[dead.local_addr().unwrap(), unwilling.addr, good.addr]);
    assert_eq!(trial.short("www.lan.", RecordType::A).await, "NOERROR 10.0.0.1");
    assert_eq!(trial.short("other.lan.", RecordType::A).await, "NOERROR 10.0.0.2");
}

#[tokio::test]
async fn a_failure_is_told_and_not_asked_for_again_at_once() {
    let server = Server::start().await;
    server.say("www.lan", RecordType::A, Say::Code(ResponseCode::ServFail));
    let trial = Trial::forwarding(&[server.addr]);
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(trial.short("www.lan.", RecordType::A).await, "SERVFAIL");
    }
    let seconds = start.elapsed().as_secs() as usize;
    assert!(server.log().len() <= 1 + seconds, "{:?}", server.log());
    assert_eq!(trial.count("failed"), 20);
}

#[tokio::test]
async fn forged_and_broken_answers_change_nothing() {
    let server = Server::start().await;
    server.say("www.lan", RecordType::A, Say::AfterForgery(addresses("www.lan", &["10.0.0.1"])));
    for (i, bytes) in
        [vec![], vec![0x80; 3], vec![0xff; 600], [0x81, 0x80, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 0xc0, 12].into()]
            .into_iter()
            .enumerate()
    {
        server.say(&format!("broken-{i}.lan"), RecordType::A, Say::Garbage(bytes));
    }
    let dns = forward_to(&[server.addr]);
    let trial = Trial::start(Setting { dns: &dns, timeout: "500ms", ..Setting::default() });
    assert_eq!(trial.short("www.lan.", RecordType::A).await, "NOERROR 10.0.0.1");
    for i in 0..4 {
        assert_eq!(trial.short(&format!("broken-{i}.lan."), RecordType::A).await, "SERVFAIL");
    }
    assert_eq!(trial.short("orders.vip.internal.", RecordType::A).await, "NOERROR 127.84.0.7");
}

/// Answers to another question, and from another port than was asked.
#[tokio::test]
async fn answers_that_nobody_asked_for_are_not_heard() {
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = Forwarder::saying(move |query| {
        let name = query.queries[0].name().to_ascii();
        let mut other = reply(query, vec![(&name, 60, a([10, 6, 6, 6]))]);
        other.queries[0].name = full("bank.example");
        vec![other, reply(query, vec![(&name, 60, a([10, 0, 0, 1]))])]
    });
    let trial = Trial::forwarding(&[server.addr]);
    assert_eq!(trial.short("www.lan.", RecordType::A).await, "NOERROR 10.0.0.1");
    // Whoever guesses the id of a question must guess its port, too, and be its server: this one knows neither.
    let forged = reply(&query("www.lan.", RecordType::A), vec![("www.lan", 60, a([10, 6, 6, 6]))]).to_vec().unwrap();
    stranger.send_to(&forged, trial.address()).unwrap();
    assert_eq!(trial.short("www.lan.", RecordType::A).await, "NOERROR 10.0.0.1");
    assert_eq!(trial.count("malformed"), 1, "a reply to the responder is no question");
}

#[tokio::test]
async fn ids_and_ports_are_different_each_time() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let trial = Trial::forwarding(&[socket.local_addr().unwrap()]);
    let udp = Udp::to(trial.address()).await;
    let (mut ids, mut ports) = (std::collections::HashSet::new(), std::collections::HashSet::new());
    for i in 0..64 {
        udp.send(&query(&format!("n{i}.lan."), RecordType::A).to_vec().unwrap()).await;
        let mut bytes = [0; 512];
        let (_, peer) = socket.recv_from(&mut bytes).await.unwrap();
        ids.insert([bytes[0], bytes[1]]);
        ports.insert(peer.port());
    }
    assert!(ids.len() > 55 && ports.len() > 55, "{} ids, {} ports", ids.len(), ports.len());
}

#[tokio::test]
async fn a_lie_about_our_names_is_dropped() {
    let server = Forwarder::saying(|query| {
        let ours = RData::CNAME(CNAME(full("orders.vip.internal")));
        vec![match &*query.queries[0].name().to_ascii() {
            "beside.lan." => {
                reply(query, vec![("beside.lan", 60, a([10, 0, 0, 1])), ("users.vip.internal", 60, a([10, 6, 6, 6]))])
            }
            "alias.lan." => reply(query, vec![("alias.lan", 60, ours), ("orders.vip.internal", 60, a([10, 6, 6, 6]))]),
            _ => reply(query, vec![("rebound.lan", 60, a([127, 84, 0, 7]))]),
        }]
    });
    let trial = Trial::forwarding(&[server.addr]);
    assert_eq!(trial.short("beside.lan.", RecordType::A).await, "NOERROR 10.0.0.1");
    assert_eq!(trial.short("alias.lan.", RecordType::A).await, "NOERROR orders.vip.internal.");
    assert_eq!(trial.short("rebound.lan.", RecordType::A).await, "SERVFAIL");
    assert_eq!(trial.short("users.vip.internal.", RecordType::A).await, "NXDOMAIN");
}

#[tokio::test]
async fn a_question_is_passed_on_with_its_wishes_and_our_mark() {
    let server = Forwarder::saying(|query| vec![reply(query, vec![])]);
    let trial = Trial::forwarding(&[server.addr]);
    let mut signed = query("www.lan.", RecordType::A);
    signed.edns.as_mut().unwrap().set_dnssec_ok(true);
    signed.metadata.checking_disabled = true;
    Udp::to(trial.address()).await.ask(&signed).await;
    trial.ask("www.lan.", RecordType::A).await;
    let asked = server.asked.lock().unwrap().clone();
    let wishes: Vec<_> = asked
        .iter()
        .map(|query| (query.edns.as_ref().unwrap().flags().dnssec_ok, query.metadata.checking_disabled))
        .collect();
    assert_eq!(wishes, [(true, true), (false, false)]);
    let marks = |query: &hickory_resolver::proto::op::Message| {
        let options = query.edns.as_ref().unwrap().options().as_ref().to_vec();
        options.iter().filter(|(_, option)| matches!(option, EdnsOption::Unknown(65_001..=65_534, _))).count()
    };
    assert!(asked.iter().all(|query| marks(query) == 1), "{asked:?}");
}

/// A folder with a resolv.conf, and a file behind it.
fn system(folder: &std::path::Path, server: SocketAddr, ours: SocketAddr) -> System {
    let (path, behind) = (folder.join("resolv.conf"), folder.join("behind"));
    std::fs::write(&path, "nameserver 127.0.0.1\n").unwrap();
    System { path, port: server.port(), behind: vec![behind], ourselves: Some(Ourselves::new(ours)) }
}

#[tokio::test]
async fn the_systems_resolvers_are_found_behind_ourselves() {
    let folder = tempfile::tempdir().unwrap();
    // The responder and the server behind it share a port, as they do in real life.
    let (server, sockets) = loop {
        let server = Server::start_on(([127, 0, 7, 7], 0).into()).await;
        match outrigger::vip::dns::bind(([127, 0, 0, 1], server.addr.port()).into()) {
            Ok(sockets) => break (server, sockets),
            Err(_) => continue,
        }
    };
    server.a("www.lan", &["10.0.0.1"]);
    server.a("new.lan", &["10.0.0.2"]);
    let system = system(folder.path(), server.addr, sockets.address());
    let (resolv_conf, behind) = (system.path.clone(), system.behind[0].clone());
    let trial = Trial::on(sockets, Setting { dns: "forward: system", system: Some(system), ..Setting::default() });
    assert_eq!(trial.short("www.lan.", RecordType::A).await, "REFUSED", "there is nobody but ourselves");
    std::fs::write(&behind, "nameserver 127.0.7.7\n").unwrap();
    assert_eq!(trial.short("new.lan.", RecordType::A).await, "NOERROR 10.0.0.2", "systemd-resolved has come up");
    std::fs::remove_file(&behind).unwrap();
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1\nnameserver 127.0.7.7\n").unwrap();
    assert_eq!(trial.short("more.lan.", RecordType::A).await, "NXDOMAIN");
}
