//! A DNS server in the test process, on UDP and TCP, that says what the test tells it to.
//!
//! Written by hand over hickory's messages, because most of what it has to do no honest server does:
//! fall silent, lie, truncate, count.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, SRV},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::JoinSet,
};

/// What to say to a query.
#[derive(Clone, Debug)]
pub enum Say {
    /// These records, and these additional ones.
    Records(Vec<Record>, Vec<Record>),
    /// An empty answer with this code.
    Code(ResponseCode),
    /// Nothing.
    Silence,
    /// Over UDP only that the answer does not fit; the records over TCP.
    Truncated(Vec<Record>),
    /// These bytes, behind the right id.
    Garbage(Vec<u8>),
    /// First an answer with another id and a lie in it, then this one.
    AfterForgery(Vec<Record>),
    /// A referral to other servers, as from one that does not recurse.
    Referral,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// One query that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub name: String,
    pub kind: RecordType,
    pub transport: Transport,
}

#[derive(Default)]
struct Zone {
    says: HashMap<(String, RecordType), Say>,
    silent: bool,
    stuck: bool,
    log: Vec<Asked>,
}

/// The server; gone when dropped.
pub struct Server {
    pub addr: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: watch::Sender<usize>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_on(([127, 0, 0, 1], 0).into()).await
    }

    pub async fn start_on(addr: SocketAddr) -> Self {
        Self::on(bind(addr).await)
    }

    /// One at an address, as soon as that is free: a server that restarts. It knows no name yet.
    #[allow(dead_code, reason = "the end-to-end tests restart theirs")]
    pub async fn start_at(addr: SocketAddr) -> Self {
        loop {
            if let (Ok(udp), Ok(tcp)) = (UdpSocket::bind(addr).await, TcpListener::bind(addr).await) {
                return Self::on((udp, tcp));
            }
            tokio::task::yield_now().await;
        }
    }

    fn on((udp, tcp): (UdpSocket, TcpListener)) -> Self {
        let addr = udp.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone::default()));
        let asked = watch::Sender::new(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, Arc::clone(&zone), asked.clone()));
        tasks.spawn(serve_tcp(tcp, Arc::clone(&zone), asked.clone()));
        Self { addr, zone, asked, _tasks: tasks }
    }

    /// What is said from now on to queries for a name and kind. The rest of a known name has no records;
    /// unknown names do not exist.
    pub fn say(&self, name: &str, kind: RecordType, say: Say) {
        self.zone.lock().unwrap().says.insert((name.to_ascii_lowercase(), kind), say);
    }

    /// A records with a TTL of 600 s, as from Docker.
    pub fn a(&self, name: &str, addrs: &[&str]) {
        self.say(name, RecordType::A, Say::Records(addresses(name, addrs), vec![]));
    }

    pub fn aaaa(&self, name: &str, addrs: &[&str]) {
        self.say(name, RecordType::AAAA, Say::Records(addresses(name, addrs), vec![]));
    }

    pub fn srv(&self, name: &str, targets: &[(u16, u16, u16, &str)], additional: Vec<Record>) {
        let records = targets
            .iter()
            .map(|&(priority, weight, port, target)| {
                record(name, 600, RData::SRV(SRV::new(priority, weight, port, full(target))))
            })
            .collect();
        self.say(name, RecordType::SRV, Say::Records(records, additional));
    }

    /// The name does not exist any more.
    pub fn forget(&self, name: &str) {
        self.zone.lock().unwrap().says.retain(|(n, _), _| n != name);
    }

    /// Whether the server says nothing at all.
    pub fn silent(&self, silent: bool) {
        self.zone.lock().unwrap().silent = silent;
    }

    /// Whether TCP connections that are opened from now on get stuck: they stay open, and say nothing for good.
    pub fn stuck(&self, stuck: bool) {
        self.zone.lock().unwrap().stuck = stuck;
    }

    pub fn log(&self) -> Vec<Asked> {
        self.zone.lock().unwrap().log.clone()
    }

    /// Waits for this many more queries.
    pub async fn asked_more(&self, more: usize) {
        let mut asked = self.asked.subscribe();
        let enough = *asked.borrow() + more;
        let wait = asked.wait_for(|n| *n >= enough);
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("queries must keep coming").unwrap();
    }
}

pub fn full(name: &str) -> Name {
    let mut name = Name::from_str(name).unwrap();
    name.set_fqdn(true);
    name
}

pub fn record(name: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(full(name), ttl, data)
}

pub fn alias(name: &str, to: &str) -> Record {
    record(name, 600, RData::CNAME(CNAME(full(to))))
}

pub fn addresses(name: &str, addrs: &[&str]) -> Vec<Record> {
    addrs.iter().map(|addr| record(name, 600, IpAddr::from_str(addr).unwrap().into())).collect()
}

/// A sound answer, without its id: what garbage is made of.
pub fn answer_bytes(name: &str, kind: RecordType, records: Vec<Record>) -> Vec<u8> {
    let mut answer = Message::response(0, OpCode::Query);
    answer.add_query(Query::query(full(name), kind));
    answer.add_answers(records);
    answer.to_vec().unwrap().split_off(2)
}

/// One free port for both transports.
async fn bind(addr: SocketAddr) -> (UdpSocket, TcpListener) {
    for _ in 0..50 {
        let udp = UdpSocket::bind(addr).await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free on both transports");
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>, asked: watch::Sender<usize>) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else { continue };
        for answer in answers(&buffer[..len], Transport::Udp, &zone, &asked) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>, asked: watch::Sender<usize>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.spawn(serve_connection(stream, Arc::clone(&zone), asked.clone()));
    }
}

async fn serve_connection(mut stream: TcpStream, zone: Arc<Mutex<Zone>>, asked: watch::Sender<usize>) {
    let stuck = zone.lock().unwrap().stuck;
    while let Ok(len) = stream.read_u16().await {
        let mut query = vec![0; len.into()];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        for answer in answers(&query, Transport::Tcp, &zone, &asked) {
            if stuck {
                continue;
            }
            let len = u16::try_from(answer.len()).unwrap();
            let framed = [&len.to_be_bytes()[..], &answer].concat();
            if stream.write_all(&framed).await.is_err() {
                return;
            }
        }
    }
}

/// The messages to send for one query, in order.
fn answers(query: &[u8], transport: Transport, zone: &Mutex<Zone>, asked: &watch::Sender<usize>) -> Vec<Vec<u8>> {
    let Ok(query) = Message::from_vec(query) else { return vec![] };
    let Some(question) = query.queries.first().cloned() else { return vec![] };
    let name = question.name().to_ascii().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
    let kind = question.query_type();
    let say = {
        let mut zone = zone.lock().unwrap();
        zone.log.push(Asked { name: name.clone(), kind, transport });
        let known = zone.says.keys().any(|(n, _)| *n == name);
        let default = if known { ResponseCode::NoError } else { ResponseCode::NXDomain };
        let say = zone.says.get(&(name, kind)).cloned().unwrap_or(Say::Code(default));
        if zone.silent { Say::Silence } else { say }
    };
    asked.send_modify(|n| *n += 1);

    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_available = true;
    answer.add_query(question.clone());
    match say {
        Say::Records(records, additional) => {
            answer.add_answers(records);
            answer.add_additionals(additional);
            let bytes = answer.to_vec().unwrap();
            if transport == Transport::Udp && bytes.len() > query.max_payload().into() {
                return vec![answer.truncate().to_vec().unwrap()];
            }
            vec![bytes]
        }
        Say::Code(code) => {
            answer.metadata.response_code = code;
            vec![answer.to_vec().unwrap()]
        }
        Say::Silence => vec![],
        Say::Truncated(records) => {
            match transport {
                Transport::Udp => answer.metadata.truncation = true,
                Transport::Tcp => drop(answer.add_answers(records)),
            }
            vec![answer.to_vec().unwrap()]
        }
        Say::Garbage(bytes) => vec![[&query.metadata.id.to_be_bytes()[..], &bytes].concat()],
        Say::AfterForgery(records) => {
            let mut forged = answer.clone();
            forged.metadata.id = query.metadata.id.wrapping_add(1);
            forged.add_answers(addresses(&question.name().to_ascii(), &["192.0.2.66"]));
            answer.add_answers(records);
            vec![forged.to_vec().unwrap(), answer.to_vec().unwrap()]
        }
        Say::Referral => {
            use hickory_resolver::proto::rr::rdata::NS;
            answer.metadata.recursion_available = false;
            answer.add_authority(record("internal", 600, RData::NS(NS(full("ns.elsewhere")))));
            vec![answer.to_vec().unwrap()]
        }
    }
}
