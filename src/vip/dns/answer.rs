//! What a query is answered with: a pure decision, from the query, the services and the rules.
//!
//! A name of ours is never denied for the sake of a type: AAAA of a service is NOERROR without data, so that musl,
//! which asks for A and AAAA together, finds the A. Each "no" carries a SOA, so that it is kept as short as an answer.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use hickory_resolver::proto::{
    op::{Message, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, NS, PTR, SOA, SRV},
    },
};

use super::{
    message,
    zone::{Place, Zone},
};
use crate::{
    model::ServiceName,
    net::resolve::{Ourselves, Relay, Sent},
    service::{Service, Services},
    telemetry::metrics::DnsResult,
};

/// What a decision rests on, beside the query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// Our names.
    pub(super) zone: &'a Zone,
    /// Whose they are.
    pub(super) services: &'a Services,
    /// Whether services are found by their names alone.
    pub(super) bare: bool,
    /// Seconds that an answer may be kept.
    pub(super) ttl: u32,
    /// Whether a service is made of a name that nobody bears.
    pub(super) wildcard: bool,
    /// Whether other names are passed on for this client.
    pub(super) recursion: bool,
    /// By whose mark our own queries are known.
    pub(super) ourselves: &'a Ourselves,
}

/// What is to be done with a query.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Answer this.
    Reply(Message, DnsResult),
    /// Pass it on.
    Forward(Relay),
    /// Have a service made of this name. If there is one, it is the answer; else decide again, without wildcards.
    Summon(ServiceName),
    /// It is our own question to this server, which asks us in turn: refuse it.
    Loop(Sent),
}

/// Decides on a query, which has one question.
pub(super) fn answer(query: &Message, rules: &Rules<'_>) -> Verdict {
    let question = &query.queries[0];
    let fail = |code, result| Verdict::Reply(message::failure(query, code), result);
    let own = query.edns.as_ref().and_then(|edns| rules.ourselves.sent(edns));
    if query.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return fail(ResponseCode::BADVERS, DnsResult::Malformed);
    }
    if let Some(sent) = own.filter(|sent| sent.is_relayed()) {
        return Verdict::Loop(sent);
    }
    if question.query_class != DNSClass::IN {
        return fail(ResponseCode::Refused, DnsResult::Refused);
    }
    match u16::from(question.query_type) {
        // What is no type of a record of a zone; transfers are for servers of zones.
        0 | 41 => return fail(ResponseCode::FormErr, DnsResult::Malformed),
        128..=254 => return fail(ResponseCode::Refused, DnsResult::Refused),
        _ => {}
    }
    // A lookup of the sidecar's own, which another server has passed on to us: endpoints are what it wants, and never
    // ourselves again.
    let place = match own {
        Some(_) => match rules.zone.place(question.name(), rules.services, false) {
            Place::Foreign { .. } => Place::Foreign { would_be: None },
            Place::Localhost => Place::Localhost,
            _ => return fail(ResponseCode::Refused, DnsResult::Refused),
        },
        None => rules.zone.place(question.name(), rules.services, rules.bare),
    };
    let mut draft = Draft { query, rules, reply: message::reply(query) };
    match place {
        Place::Service { service, ports, labels } => {
            draft.service(service, ports);
            draft.end(&question.name().trim_to(labels.into()))
        }
        Place::Empty { labels } => draft.end(&question.name().trim_to(labels.into())),
        Place::Reverse { service, labels } => {
            draft.reverse(service);
            draft.end(&question.name().trim_to(labels.into()))
        }
        Place::Apex => {
            draft.apex();
            draft.end(rules.zone.apex())
        }
        Place::Localhost => {
            draft.localhost();
            draft.end(&question.name().trim_to(1))
        }
        Place::Nobody { would_be: Some(name), .. } if rules.wildcard => Verdict::Summon(name),
        Place::Nobody { labels, .. } => {
            draft.reply.metadata.response_code = ResponseCode::NXDomain;
            draft.end(&question.name().trim_to(labels.into()))
        }
        Place::Foreign { would_be: Some(name) } if rules.wildcard => Verdict::Summon(name),
        // Who does not wish for recursion wants to know what we know ourselves, and that is nothing.
        Place::Foreign { .. } if rules.recursion && query.metadata.recursion_desired => Verdict::Forward(Relay {
            query: Query::query(question.name().to_lowercase(), question.query_type),
            dnssec_ok: query.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
            checking_disabled: query.metadata.checking_disabled,
            except: own,
        }),
        Place::Foreign { .. } => fail(ResponseCode::Refused, DnsResult::Refused),
    }
}

/// The answer of a service that was made of the name in question.
pub(super) fn summoned(query: &Message, service: &Arc<Service>, rules: &Rules<'_>) -> Verdict {
    let mut draft = Draft { query, rules, reply: message::reply(query) };
    let name = query.queries[0].name();
    let ports = name.iter().next().is_some_and(|label| label.starts_with(b"_"));
    draft.service(service, ports);
    let zone = if rules.zone.has(name) { rules.zone.apex().clone() } else { name.trim_to(1) };
    draft.end(&zone)
}

/// A reply of our own, as it is made.
struct Draft<'a> {
    query: &'a Message,
    rules: &'a Rules<'a>,
    reply: Message,
}

impl Draft<'_> {
    fn question(&self) -> &Query {
        &self.query.queries[0]
    }

    /// Whether these records are asked for. Of all records at once, one kind is enough (RFC 8482).
    fn wants(&self, kind: RecordType) -> bool {
        let asked = self.question().query_type;
        asked == kind || asked == RecordType::ANY && self.reply.answers.is_empty()
    }

    fn record(&self, owner: &Name, data: RData) -> Record {
        Record::from_rdata(owner.clone(), self.rules.ttl, data)
    }

    /// A record at the name in question.
    fn say(&mut self, data: RData) {
        let record = self.record(self.question().name(), data);
        self.reply.add_answer(record);
    }

    fn service(&mut self, service: &Service, ports: bool) {
        let Some(vip) = service.vip() else { return };
        if !ports && self.wants(RecordType::A) {
            self.say(RData::A(A(vip)));
        }
        if self.wants(RecordType::SRV) {
            self.ports(service, vip);
        }
    }

    /// One record a port, the service's own before those of all: clients try them in this order.
    fn ports(&mut self, service: &Service, vip: Ipv4Addr) {
        let Some(target) = self.rules.zone.name_of(service) else { return };
        let own = &service.config().vip.ports;
        let of_all = self.rules.services.vips().map(|vips| vips.ports.as_slice()).unwrap_or_default();
        let others = of_all.iter().filter(|port| !own.contains(port));
        for (port, priority) in own.iter().chain(others).zip(0..) {
            self.say(RData::SRV(SRV::new(priority, 0, *port, target.clone())));
        }
        if !self.reply.answers.is_empty() {
            let address = self.record(&target, RData::A(A(vip)));
            self.reply.add_additional(address);
        }
    }

    fn reverse(&mut self, service: &Service) {
        if self.wants(RecordType::PTR)
            && let Some(name) = self.rules.zone.name_of(service)
        {
            self.say(RData::PTR(PTR(name)));
        }
    }

    fn apex(&mut self) {
        let apex = self.rules.zone.apex();
        if self.wants(RecordType::SOA) {
            self.say(RData::SOA(self.soa(apex)));
        }
        if self.wants(RecordType::NS) {
            self.say(RData::NS(NS(apex.clone())));
        }
    }

    fn localhost(&mut self) {
        if self.wants(RecordType::A) {
            self.say(RData::A(A(Ipv4Addr::LOCALHOST)));
        }
        if self.wants(RecordType::AAAA) {
            self.say(RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)));
        }
    }

    /// The reply, with the zone's SOA where it says "no".
    fn end(mut self, zone: &Name) -> Verdict {
        self.reply.metadata.authoritative = true;
        self.reply.metadata.recursion_available = self.rules.recursion;
        let result = match (self.reply.metadata.response_code, self.reply.answers.is_empty()) {
            (ResponseCode::NoError, false) => DnsResult::Own,
            (ResponseCode::NoError, true) => DnsResult::NoData,
            _ => DnsResult::NoName,
        };
        if result != DnsResult::Own {
            let soa = self.record(zone, RData::SOA(self.soa(zone)));
            self.reply.add_authority(soa);
        }
        Verdict::Reply(self.reply, result)
    }

    /// Nobody transfers the zone or writes to its owner: only the last number means something.
    fn soa(&self, zone: &Name) -> SOA {
        SOA::new(zone.clone(), Name::root(), 1, 3600, 600, 86_400, self.rules.ttl)
    }
}

#[cfg(test)]
mod tests;
