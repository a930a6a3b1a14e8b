//! What lookups come to, and how it is read out of messages: pure, so that odd messages need no server.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::proto::{
    op::Message,
    rr::{Name, RData, Record, RecordType},
};

use super::{Failure, MAX_ALIASES};

/// What a lookup of one kind of record came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// These are the records.
    Found {
        /// At least one.
        records: Vec<T>,
        /// The lowest TTL on the way to them, unclamped.
        ttl: Duration,
    },
    /// The name is there and has no such record (NOERROR without an answer, RFC 2308 §2.2).
    NoRecords,
    /// The name is not there (NXDOMAIN, RFC 2308 §2.1).
    NoName,
    /// Nobody knows: SERVFAIL, REFUSED, silence, garbage.
    Failed(Failure),
}

impl<T> Answer<T> {
    /// Whether there are records.
    pub fn is_found(&self) -> bool {
        matches!(self, Self::Found { .. })
    }
}

/// The addresses of a host, by family: what one family came to says nothing of the other.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// From A records.
    pub v4: Answer<IpAddr>,
    /// From AAAA records.
    pub v6: Answer<IpAddr>,
}

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The lowest is used first.
    pub priority: u16,
    /// Its share within its priority, relative to its peers.
    pub weight: u16,
    /// Where the service listens.
    pub port: u16,
    /// The host, lower case, without its last dot; `.` means that the service is not offered (RFC 2782).
    pub host: Arc<str>,
}

/// What an SRV lookup came to.
#[derive(Debug, Clone)]
pub struct Targets {
    /// The records.
    pub targets: Answer<Target>,
    /// Addresses that came with the answer, by host: a target found here needs no lookup of its own.
    pub glue: HashMap<Arc<str>, Vec<IpAddr>>,
}

/// Where the aliases of one message lead, with the lowest TTL on the way.
pub(super) enum Followed {
    /// To a name that has records in this message.
    To(Name, u32),
    /// To a name that has none here.
    Onward(Name, u32),
    /// There is neither record nor alias for the name.
    Nowhere,
    /// In a circle.
    Loop,
}

pub(super) fn follow(message: &Message, from: &Name, kind: RecordType) -> Followed {
    let mut name = from.clone();
    let mut ttl = u32::MAX;
    for _ in 0..MAX_ALIASES {
        let lowest = message.answers.iter().filter(|r| r.name == name && r.record_type() == kind).map(ttl_of).min();
        if let Some(lowest) = lowest {
            return Followed::To(name, ttl.min(lowest));
        }
        let alias = message.answers.iter().filter(|r| r.name == name).find_map(|r| match &r.data {
            RData::CNAME(alias) => Some((alias.0.clone(), ttl_of(r))),
            _ => None,
        });
        match alias {
            Some((next, t)) => {
                ttl = ttl.min(t);
                name = next;
            }
            None if &name == from => return Followed::Nowhere,
            None => return Followed::Onward(name, ttl),
        }
    }
    Followed::Loop
}

pub(super) fn addresses_in(found: Result<(Message, Duration), Answer<IpAddr>>) -> Answer<IpAddr> {
    let (message, ttl) = match found {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    let records: Vec<IpAddr> = message.answers.iter().filter_map(|r| address(&r.data)).collect();
    if records.is_empty() { Answer::NoRecords } else { Answer::Found { records, ttl } }
}

/// A record's TTL in seconds; 32 bits are a TTL of 0 (RFC 2181 §8).
fn ttl_of(record: &Record) -> u32 {
    if record.ttl > i32::MAX as u32 { 0 } else { record.ttl }
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(a.0.into()),
        RData::AAAA(aaaa) => Some(aaaa.0.into()),
        _ => None,
    }
}

pub(super) fn targets_in(message: &Message, mut ttl: Duration) -> Targets {
    let mut records = Vec::new();
    for record in &message.answers {
        if let RData::SRV(srv) = &record.data {
            let host = host_of(&srv.target);
            records.push(Target { priority: srv.priority, weight: srv.weight, port: srv.port, host });
        }
    }
    let hosts: HashSet<Arc<str>> = records.iter().map(|t| Arc::clone(&t.host)).collect();
    let mut glue: HashMap<Arc<str>, Vec<IpAddr>> = HashMap::new();
    for record in &message.additionals {
        let Some(addr) = address(&record.data) else { continue };
        let host = host_of(&record.name);
        if hosts.contains(&host) {
            ttl = ttl.min(Duration::from_secs(ttl_of(record).into()));
            glue.entry(host).or_default().push(addr);
        }
    }
    let targets = if records.is_empty() { Answer::NoRecords } else { Answer::Found { records, ttl } };
    Targets { targets, glue }
}

fn host_of(name: &Name) -> Arc<str> {
    let text = name.to_ascii().to_ascii_lowercase();
    match text.strip_suffix('.') {
        Some("") | None => text.into(),
        Some(host) => host.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_resolver::proto::{
        op::OpCode,
        rr::rdata::{A, CNAME},
    };

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_str(text).unwrap()
    }

    fn message(records: &[(&str, u32, &str)]) -> Message {
        let mut message = Message::response(0, OpCode::Query);
        for (owner, ttl, data) in records {
            let data = match data.parse() {
                Ok(addr) => RData::A(A(addr)),
                Err(_) => RData::CNAME(CNAME(name(data))),
            };
            message.add_answer(Record::from_rdata(name(owner), *ttl, data));
        }
        message
    }

    fn followed(records: &[(&str, u32, &str)]) -> String {
        match follow(&message(records), &name("orders."), RecordType::A) {
            Followed::To(end, ttl) => format!("to {end} {ttl}"),
            Followed::Onward(end, ttl) => format!("onward {end} {ttl}"),
            Followed::Nowhere => "nowhere".into(),
            Followed::Loop => "loop".into(),
        }
    }

    #[test]
    fn aliases_are_followed_in_any_order_and_the_lowest_ttl_counts() {
        assert_eq!(followed(&[("orders.", 60, "10.0.0.1"), ("ORDERS.", 30, "10.0.0.2")]), "to orders. 30");
        assert_eq!(followed(&[("a.", 60, "10.0.0.1"), ("orders.", 5, "a.")]), "to a. 5");
        assert_eq!(followed(&[("orders.", 50, "a."), ("a.", 40, "b.")]), "onward b. 40");
        assert_eq!(followed(&[("users.", 50, "10.0.0.1")]), "nowhere");
        assert_eq!(followed(&[]), "nowhere");
        assert_eq!(followed(&[("orders.", 50, "a."), ("a.", 40, "orders.")]), "loop");
        assert_eq!(followed(&[("orders.", 50, "orders.")]), "loop");
    }

    #[test]
    fn a_ttl_of_32_bits_is_none() {
        assert_eq!(followed(&[("orders.", u32::MAX, "10.0.0.1")]), "to orders. 0");
        assert_eq!(followed(&[("orders.", i32::MAX as u32, "10.0.0.1")]), "to orders. 2147483647");
    }
}
