//! What is believed of a forwarder's answer, and for how long: pure.
//!
//! A forwarder answers one question, and is believed on that alone: records that are not on the way from the name in
//! question, and names of ours, are dropped. So is an address of a VIP behind a foreign name, by which a page of that
//! name's owner would speak to services of this host (DNS rebinding).

use std::{collections::HashSet, time::Duration};

use hickory_resolver::proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};

use super::zone::Zone;
use crate::net::resolve::{Relay, Relayed};

/// How long an answer is kept at most.
const LONGEST: u32 = 3600;
/// How long a "no" is kept at most.
const LONGEST_NO: u32 = 300;
/// How long a failure is kept (RFC 9520 §3.2): a server that is ill is not asked by every retry of every client.
const FAILURE: Duration = Duration::from_secs(1);
/// Bytes of an answer that is kept at most.
const LARGEST: usize = 4096;
/// Aliases on the way to an answer.
const ALIASES: usize = 16;

/// What is known of a question.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    /// NOERROR, NXDOMAIN, SERVFAIL or REFUSED.
    pub(super) code: ResponseCode,
    /// The records, with the aliases on the way to them.
    pub(super) answers: Vec<Record>,
    /// The SOA of a "no", with its proofs where they are wanted.
    pub(super) authorities: Vec<Record>,
    /// How long it may be kept; zero: not at all.
    pub(super) keep: Duration,
}

impl Known {
    /// There is no answer.
    pub(super) fn failure(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authorities: Vec::new(), keep: FAILURE }
    }
}

/// What is believed of an answer.
pub(super) fn believed(relay: &Relay, relayed: Relayed, zone: &Zone) -> Known {
    let asked = relay.query.query_type;
    let way = way(relay.query.name(), &relayed.answers);
    let is_proof =
        |kind: RecordType| relay.dnssec_ok && matches!(kind, RecordType::RRSIG | RecordType::NSEC | RecordType::NSEC3);
    let is_vip = |data: &RData| match data {
        RData::A(a) => zone.may_own(a.0),
        RData::AAAA(aaaa) => aaaa.0.to_ipv4_mapped().is_some_and(|v4| zone.may_own(v4)),
        _ => false,
    };
    let is_ours = |record: &Record| zone.has(&record.name) || is_vip(&record.data);
    let fits = |record: &Record| {
        let kind = record.record_type();
        let wanted = kind == asked || asked == RecordType::ANY || kind == RecordType::CNAME || is_proof(kind);
        wanted && way.contains(&record.name) && !is_ours(record)
    };
    let nothing_said = relayed.answers.is_empty();
    let mut answers: Vec<Record> = relayed.answers.into_iter().filter(fits).collect();
    if answers.is_empty() && !nothing_said {
        // Whatever that was, it was no answer to this.
        return Known::failure(ResponseCode::ServFail);
    }
    let has_what_was_asked = answers.iter().any(|r| r.record_type() == asked || asked == RecordType::ANY);
    let mut authorities = relayed.authorities;
    authorities.retain(|record| {
        let is_above = way.iter().any(|name| record.name.zone_of(name));
        let kind = record.record_type();
        !zone.has(&record.name) && (kind == RecordType::SOA && is_above || is_proof(kind))
    });
    if has_what_was_asked {
        authorities.clear();
    }
    answers.iter_mut().for_each(|record| record.ttl = ttl(record).min(LONGEST));
    authorities.iter_mut().for_each(|record| record.ttl = ttl(record).min(LONGEST_NO));
    let of_answers = answers.iter().map(|record| record.ttl).min();
    let seconds =
        if has_what_was_asked { of_answers } else { of_no(&authorities).map(|no| no.min(of_answers.unwrap_or(no))) };
    let mut known = Known { code: relayed.code, answers, authorities, keep: Duration::ZERO };
    if size(&known) <= LARGEST {
        known.keep = Duration::from_secs(seconds.unwrap_or(0).into());
    }
    known
}

/// The names on the way from the one in question, by its aliases.
fn way(from: &Name, answers: &[Record]) -> HashSet<Name> {
    let mut way = HashSet::from([from.clone()]);
    let mut name = from.clone();
    for _ in 0..ALIASES {
        let alias = answers.iter().filter(|record| record.name == name).find_map(|record| match &record.data {
            RData::CNAME(alias) => Some(alias.0.clone()),
            _ => None,
        });
        match alias {
            Some(alias) if way.insert(alias.clone()) => name = alias,
            _ => break,
        }
    }
    way
}

/// How long a "no" may be kept (RFC 2308 §5); one without a SOA may not.
fn of_no(authorities: &[Record]) -> Option<u32> {
    authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    })
}

/// A record's TTL in seconds; 32 bits are a TTL of 0 (RFC 2181 §8).
fn ttl(record: &Record) -> u32 {
    if record.ttl > i32::MAX as u32 { 0 } else { record.ttl }
}

fn size(known: &Known) -> usize {
    let mut message = Message::response(0, OpCode::Query);
    message.answers.clone_from(&known.answers);
    message.authorities.clone_from(&known.authorities);
    message.to_vec().map_or(usize::MAX, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::{
        op::Query,
        rr::rdata::{A, CNAME, NS, SOA, TXT},
    };

    use super::{super::testing::services, *};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    /// `owner ttl data`: an address, a name (CNAME), `soa MINIMUM`, `ns` or `text BYTES`.
    fn record(text: &str) -> Record {
        let words: Vec<&str> = text.split(' ').collect();
        let data = match words[2..] {
            ["soa", minimum] => RData::SOA(SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, minimum.parse().unwrap())),
            ["ns"] => RData::NS(NS(name("ns.evil."))),
            ["text", bytes] => {
                let texts = vec!["x".repeat(200); bytes.parse::<usize>().unwrap() / 200];
                RData::TXT(TXT::new(texts))
            }
            [data] => data.parse().map_or_else(|_| RData::CNAME(CNAME(name(data))), |addr| RData::A(A(addr))),
            _ => panic!("{text}"),
        };
        Record::from_rdata(name(words[0]), words[1].parse().unwrap(), data)
    }

    fn known(kind: RecordType, code: ResponseCode, answers: &[&str], authorities: &[&str]) -> Known {
        let services = services("vip: { range: 127.84.0.0/16 }\nservices: { a: { dns: a:80 } }", &[]);
        let relay = Relay {
            query: Query::query(name("www.lan."), kind),
            dnssec_ok: false,
            checking_disabled: false,
            except: None,
        };
        let records = |texts: &[&str]| texts.iter().map(|text| record(text)).collect();
        let relayed = Relayed { code, answers: records(answers), authorities: records(authorities) };
        believed(&relay, relayed, &Zone::new(&services))
    }

    /// What is believed of an answer to "A of www.lan": its code, owners and data, and seconds.
    fn a(answers: &[&str], authorities: &[&str]) -> String {
        let known = known(RecordType::A, ResponseCode::NoError, answers, authorities);
        let shown = |records: &[Record]| {
            let texts = records.iter().map(|r| format!("{} {} {}", r.name, r.ttl, r.record_type()));
            texts.collect::<Vec<_>>().join(", ")
        };
        format!(
            "{}: {} / {} for {}",
            known.code.low(),
            shown(&known.answers),
            shown(&known.authorities),
            known.keep.as_secs()
        )
    }

    #[test]
    fn the_way_to_the_records_is_believed_and_nothing_beside_it() {
        assert_eq!(a(&["www.lan. 60 10.0.0.1"], &[]), "0: www.lan. 60 A /  for 60");
        let chain = ["b.lan. 30 10.0.0.1", "www.lan. 60 a.lan.", "A.lan. 90 b.lan."];
        assert_eq!(a(&chain, &[]), "0: b.lan. 30 A, www.lan. 60 CNAME, A.lan. 90 CNAME /  for 30");
        let beside = ["www.lan. 60 10.0.0.1", "bank.example. 60 10.6.6.6", "www.lan. 60 text 200"];
        assert_eq!(a(&beside, &["lan. 60 ns"]), "0: www.lan. 60 A /  for 60");
        assert_eq!(a(&["bank.example. 60 10.6.6.6"], &[]), "2:  /  for 1", "no answer to the question");
        assert_eq!(a(&["www.lan. 60 www.lan."], &[]), "0: www.lan. 60 CNAME /  for 0", "a circle is not kept");
    }

    #[test]
    fn names_and_addresses_of_ours_are_never_believed() {
        assert_eq!(
            a(&["www.lan. 60 a.vip.internal.", "a.vip.internal. 60 10.6.6.6"], &[]),
            "0: www.lan. 60 CNAME /  for 0"
        );
        assert_eq!(a(&["www.lan. 60 127.84.0.9"], &[]), "2:  /  for 1");
        assert_eq!(a(&["www.lan. 60 127.84.0.9", "www.lan. 60 10.0.0.1"], &[]), "0: www.lan. 60 A /  for 60");
        assert_eq!(a(&[], &["vip.internal. 60 soa 60"]), "0:  /  for 0");
    }

    #[test]
    fn times_are_bounded() {
        assert_eq!(a(&["www.lan. 90000 10.0.0.1"], &[]), "0: www.lan. 3600 A /  for 3600");
        assert_eq!(a(&["www.lan. 4294967295 10.0.0.1"], &[]), "0: www.lan. 0 A /  for 0");
        assert_eq!(a(&["www.lan. 0 10.0.0.1"], &[]), "0: www.lan. 0 A /  for 0");
        assert_eq!(a(&[], &["lan. 900 soa 20"]), "0:  / lan. 300 SOA for 20");
        assert_eq!(a(&[], &["lan. 10 soa 20"]), "0:  / lan. 10 SOA for 10");
        assert_eq!(a(&[], &["lan. 9000 soa 9000"]), "0:  / lan. 300 SOA for 300");
        assert_eq!(a(&["www.lan. 7 a.lan."], &["lan. 900 soa 20"]), "0: www.lan. 7 CNAME / lan. 300 SOA for 7");
        assert_eq!(a(&[], &["evil. 900 soa 900"]), "0:  /  for 0", "who is not above the name cannot deny it");
        let denied = known(RecordType::A, ResponseCode::NXDomain, &[], &["lan. 900 soa 30"]);
        assert_eq!((denied.code, denied.keep.as_secs()), (ResponseCode::NXDomain, 30));
    }

    #[test]
    fn what_is_large_is_passed_on_and_not_kept() {
        let large = known(RecordType::TXT, ResponseCode::NoError, &["www.lan. 60 text 8000"], &[]);
        assert_eq!((large.answers.len(), large.keep.as_secs()), (1, 0));
    }
}
