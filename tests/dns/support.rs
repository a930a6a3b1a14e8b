//! A responder with some services, clients for it, and a forwarder that says whatever a test makes up.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use outrigger::{
    config::Config,
    model::ServiceName,
    net::resolve::{Ourselves, System},
    service::{Services, Table, now},
    telemetry::Metrics,
    vip::dns::{self, Responder, Settings, Sockets, Summon},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// No wait of a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running responder for the services `orders` (alias `payments.prod`) at 127.84.0.7 and `hidden` without a VIP.
pub struct Trial {
    pub responder: Responder,
    pub metrics: Metrics,
    pub table: Table,
}

/// What a test changes.
#[derive(Default)]
pub struct Setting<'a> {
    /// The section `dns`, in YAML without braces.
    pub dns: &'a str,
    /// How long forwarders may take in all.
    pub timeout: &'a str,
    pub summon: Option<Summon>,
    pub system: Option<System>,
}

pub fn forward_to(servers: &[SocketAddr]) -> String {
    let servers: Vec<_> = servers.iter().map(|addr| format!("'{addr}'")).collect();
    format!("forward: [{}]", servers.join(", "))
}

pub fn config(dns: &str, timeout: &str, services: &str) -> Config {
    let timeout = if timeout.is_empty() { "2s" } else { timeout };
    let yaml = format!(
        "listen: {{ dns: 0 }}\nresolver: {{ timeout: {timeout} }}\ndns: {{ {dns} }}\nvip: {{ range: 127.84.0.0/16 }}\n\
         services: {{ orders: {{ dns: orders:80, aliases: [payments.prod] }}, hidden: {{ dns: hidden:80, vip: off }}{services} }}"
    );
    Config::parse("t.yaml", &yaml, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).config
}

pub fn services(config: &Config, metrics: &Metrics) -> Services {
    let names = config.services.keys().filter(|name| name.as_str() != "hidden");
    let vips: HashMap<ServiceName, Ipv4Addr> =
        names.zip(0..).map(|(name, i)| (name.clone(), Ipv4Addr::new(127, 84, 0, 7 + i))).collect();
    Services::new(config, metrics, None, 1, &vips, None, now()).unwrap()
}

impl Trial {
    pub fn start(setting: Setting<'_>) -> Self {
        Self::on(dns::bind(([127, 0, 0, 1], 0).into()).unwrap(), setting)
    }

    pub fn forwarding(servers: &[SocketAddr]) -> Self {
        Self::start(Setting { dns: &forward_to(servers), ..Setting::default() })
    }

    pub fn on(sockets: Sockets, setting: Setting<'_>) -> Self {
        let Setting { dns, timeout, summon, system } = setting;
        let config = config(dns, timeout, "");
        let metrics = Metrics::new();
        let table = Table::new(services(&config, &metrics));
        let system = system.unwrap_or_else(|| System::with(Ourselves::new(sockets.address())));
        let settings = Settings::of(&config, summon);
        let responder = dns::start(sockets, table.clone(), settings, system, metrics.dns()).unwrap();
        Self { responder, metrics, table }
    }

    pub fn address(&self) -> SocketAddr {
        self.responder.address()
    }

    /// The answer to a question, by UDP with EDNS.
    pub async fn ask(&self, name: &str, kind: RecordType) -> Message {
        Udp::to(self.address()).await.ask(&query(name, kind)).await
    }

    /// The same in short: its code and the data of its records.
    pub async fn short(&self, name: &str, kind: RecordType) -> String {
        short(&self.ask(name, kind).await)
    }

    pub async fn tcp(&self) -> Tcp {
        Tcp(TcpStream::connect(self.address()).await.unwrap())
    }

    /// Queries that ended so.
    pub fn count(&self, result: &str) -> u64 {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let line = format!("outrigger_dns_queries_total{{result=\"{result}\"}} ");
        text.lines().find_map(|l| l.strip_prefix(&*line)).unwrap().parse().unwrap()
    }

    /// All queries that ended.
    pub fn counted(&self) -> u64 {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let of_dns = text.lines().filter(|l| l.starts_with("outrigger_dns_queries_total{"));
        of_dns.map(|l| l.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

/// The code of a reply and the data of its answers.
pub fn short(reply: &Message) -> String {
    let mut data: Vec<_> = reply.answers.iter().map(|r| r.data.to_string()).collect();
    data.sort();
    let tc = if reply.metadata.truncation { " tc" } else { "" };
    let code = match reply.metadata.response_code {
        ResponseCode::NoError => "NOERROR".into(),
        code => format!("{code:?}").to_ascii_uppercase(),
    };
    format!("{code}{tc} {}", data.join(" ")).trim_end().into()
}

pub fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query.edns.get_or_insert_with(Edns::new).set_max_payload(1232);
    query
}

/// A client by UDP that hears one server alone.
pub struct Udp(pub UdpSocket);

impl Udp {
    pub async fn to(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(server).await.unwrap();
        Self(socket)
    }

    pub async fn send(&self, bytes: &[u8]) {
        self.0.send(bytes).await.unwrap();
    }

    pub async fn receive(&self) -> Vec<u8> {
        let mut reply = vec![0; 65_535];
        let length = timeout(PATIENCE, self.0.recv(&mut reply)).await.expect("a reply").unwrap();
        reply.truncate(length);
        reply
    }

    pub async fn ask(&self, query: &Message) -> Message {
        self.send(&query.to_vec().unwrap()).await;
        loop {
            let reply = Message::from_vec(&self.receive().await).unwrap();
            if reply.metadata.id == query.metadata.id {
                return reply;
            }
        }
    }
}

/// A client by TCP.
pub struct Tcp(pub TcpStream);

impl Tcp {
    pub async fn send(&mut self, query: &Message) {
        let bytes = query.to_vec().unwrap();
        let framed = [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
        self.0.write_all(&framed).await.unwrap();
    }

    pub async fn receive(&mut self) -> Message {
        let read = async {
            let mut reply = vec![0; self.0.read_u16().await.unwrap().into()];
            self.0.read_exact(&mut reply).await.unwrap();
            Message::from_vec(&reply).unwrap()
        };
        timeout(PATIENCE, read).await.expect("a reply")
    }

    /// Waits until the server closes the connection.
    pub async fn closed(&mut self) {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("it must be closed");
        assert_eq!(rest, b"");
    }
}

/// A forwarder that answers by UDP whatever `say` makes of a query, and remembers what it was asked. It has a thread of its
/// own, since what it says may take it time.
pub struct Forwarder {
    pub addr: SocketAddr,
    pub asked: Arc<Mutex<Vec<Message>>>,
    over: Arc<AtomicBool>,
}

impl Forwarder {
    pub fn saying(say: impl Fn(&Message) -> Vec<Message> + Send + 'static) -> Self {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let addr = socket.local_addr().unwrap();
        let (asked, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, ended) = (asked.clone(), over.clone());
        std::thread::spawn(move || {
            let mut bytes = vec![0; 65_535];
            while !ended.load(Ordering::Relaxed) {
                let Ok((length, peer)) = socket.recv_from(&mut bytes) else { continue };
                let query = Message::from_vec(&bytes[..length]).unwrap();
                log.lock().unwrap().push(query.clone());
                for reply in say(&query) {
                    socket.send_to(&reply.to_vec().unwrap(), peer).unwrap();
                }
            }
        });
        Self { addr, asked, over }
    }

    pub fn names(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|query| query.queries[0].name().to_ascii()).collect()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A reply with these records, to be changed.
pub fn reply(query: &Message, records: Vec<(&str, u32, RData)>) -> Message {
    let mut reply = query.clone().into_response();
    for (name, ttl, data) in records {
        reply.add_answer(super::server::record(name, ttl, data));
    }
    reply
}
