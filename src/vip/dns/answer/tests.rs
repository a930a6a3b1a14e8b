//! Questions and what they are answered with.

use hickory_resolver::proto::op::Edns;

use super::{super::testing::services, *};

const FILE: &str = "
vip: { range: 127.84.0.0/16, ports: [80, 8080] }
services:
  orders: { dns: orders:80 }
  payments: { dns: payments:80, aliases: [payments.prod] }
  postgres: { dns: postgres:5432, vip: { ports: [5432] } }
  hidden: { dns: hidden:80, vip: off }
";
const VIPS: [(&str, &str); 3] = [("orders", "127.84.0.7"), ("payments", "127.84.0.8"), ("postgres", "127.84.0.9")];

/// A responder in which everything can be switched.
struct Trial {
    bare: bool,
    wildcard: bool,
    recursion: bool,
    ourselves: Ourselves,
}

impl Default for Trial {
    fn default() -> Self {
        let ourselves = Ourselves::new(([127, 0, 0, 1], 53).into());
        Self { bare: false, wildcard: false, recursion: true, ourselves }
    }
}

impl Trial {
    fn verdict(&self, query: &Message) -> Verdict {
        let services = services(FILE, &VIPS);
        let zone = Zone::new(&services);
        answer(query, &self.rules(&zone, &services))
    }

    fn rules<'a>(&'a self, zone: &'a Zone, services: &'a Services) -> Rules<'a> {
        let &Self { bare, wildcard, recursion, ref ourselves } = self;
        Rules { zone, services, bare, ttl: 5, wildcard, recursion, ourselves }
    }

    /// What is done with a question: `CODE flags: answers / authorities / additionals`, or what else.
    fn ask(&self, name: &str, kind: RecordType) -> String {
        shown(self.verdict(&query(name, kind)))
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query
}

fn shown(verdict: Verdict) -> String {
    let reply = match verdict {
        Verdict::Reply(reply, result) => {
            let expected = match (reply.metadata.response_code, reply.answers.is_empty()) {
                (ResponseCode::NoError, false) => DnsResult::Own,
                (ResponseCode::NoError, true) => DnsResult::NoData,
                (ResponseCode::NXDomain, _) => DnsResult::NoName,
                (ResponseCode::Refused, _) => DnsResult::Refused,
                _ => DnsResult::Malformed,
            };
            assert_eq!(result, expected);
            reply
        }
        Verdict::Forward(relay) => return format!("forward {}", relay.query.name()),
        Verdict::Summon(name) => return format!("summon {name}"),
        Verdict::Loop(_) => return "loop".into(),
    };
    let data = |record: &Record| match &record.data {
        RData::SOA(soa) => format!("SOA {}", soa.minimum),
        data => format!("{} {data}", record.record_type()),
    };
    let section = |records: &[Record]| {
        let texts = records.iter().map(|r| {
            assert_eq!(r.ttl, 5);
            format!("{} {}", r.name, data(r))
        });
        texts.collect::<Vec<_>>().join(", ")
    };
    let aa = if reply.metadata.authoritative { " aa" } else { "" };
    let sections = [&reply.answers, &reply.authorities, &reply.additionals].map(|records| section(records));
    format!("{:?}{aa}: {}", reply.metadata.response_code, sections.join(" / ")).trim_end_matches([' ', '/', ':']).into()
}

#[test]
fn services_have_an_address_and_no_other() {
    let ask = |name, kind| Trial::default().ask(name, kind);
    assert_eq!(ask("orders.vip.internal.", RecordType::A), "NoError aa: orders.vip.internal. A 127.84.0.7");
    assert_eq!(
        ask("payments.prod.vip.internal.", RecordType::A),
        "NoError aa: payments.prod.vip.internal. A 127.84.0.8"
    );
    assert_eq!(ask("oRDeRS.viP.iNTernal.", RecordType::A), "NoError aa: oRDeRS.viP.iNTernal. A 127.84.0.7");
    assert_eq!(ask("orders.vip.internal.", RecordType::ANY), "NoError aa: orders.vip.internal. A 127.84.0.7");
    for kind in [RecordType::AAAA, RecordType::HTTPS, RecordType::MX, RecordType::TXT, RecordType::Unknown(999)] {
        assert_eq!(ask("orders.vip.internal.", kind), "NoError aa:  / vip.internal. SOA 5");
        assert_eq!(ask("users.vip.internal.", kind), "NXDomain aa:  / vip.internal. SOA 5");
    }
    for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::ANY] {
        assert_eq!(ask("hidden.vip.internal.", kind), "NoError aa:  / vip.internal. SOA 5");
        assert_eq!(ask("prod.vip.internal.", kind), "NoError aa:  / vip.internal. SOA 5");
        assert_eq!(ask("_tcp.orders.vip.internal.", kind), "NoError aa:  / vip.internal. SOA 5");
        assert_eq!(ask("users.vip.internal.", kind), "NXDomain aa:  / vip.internal. SOA 5");
    }
}

#[test]
fn ports_are_found_by_srv() {
    let ask = |name, kind| Trial::default().ask(name, kind);
    for name in ["_http._tcp.orders.vip.internal.", "_x._tcp.orders.vip.internal.", "orders.vip.internal."] {
        assert_eq!(
            ask(name, RecordType::SRV),
            format!(
                "NoError aa: {name} SRV 0 0 80 orders.vip.internal., {name} SRV 1 0 8080 orders.vip.internal. /  / \
                 orders.vip.internal. A 127.84.0.7"
            )
        );
    }
    let postgres = ask("_postgresql._tcp.postgres.vip.internal.", RecordType::SRV);
    assert!(postgres.contains("SRV 0 0 5432 ") && postgres.contains("SRV 1 0 80 "), "{postgres}");
    let alias = ask("_http._tcp.payments.prod.vip.internal.", RecordType::SRV);
    assert!(alias.contains("80 payments.vip.internal."), "{alias}");
    assert_eq!(ask("_http._tcp.orders.vip.internal.", RecordType::A), "NoError aa:  / vip.internal. SOA 5");
    assert_eq!(ask("_http._tcp.hidden.vip.internal.", RecordType::SRV), "NoError aa:  / vip.internal. SOA 5");
    assert_eq!(ask("_http._udp.orders.vip.internal.", RecordType::SRV), "NXDomain aa:  / vip.internal. SOA 5");
}

#[test]
fn the_domain_itself_is_a_zone() {
    let ask = |name, kind| Trial::default().ask(name, kind);
    assert_eq!(ask("vip.internal.", RecordType::SOA), "NoError aa: vip.internal. SOA 5");
    assert_eq!(ask("VIP.internal.", RecordType::NS), "NoError aa: VIP.internal. NS vip.internal.");
    assert_eq!(ask("vip.internal.", RecordType::A), "NoError aa:  / vip.internal. SOA 5");
}

#[test]
fn addresses_lead_back_to_names() {
    let ask = |name, kind| Trial::default().ask(name, kind);
    let ptr = "NoError aa: 7.0.84.127.in-addr.arpa. PTR orders.vip.internal.";
    assert_eq!(ask("7.0.84.127.in-addr.arpa.", RecordType::PTR), ptr);
    assert_eq!(ask("7.0.84.127.in-addr.arpa.", RecordType::ANY), ptr);
    assert_eq!(ask("7.0.84.127.in-addr.arpa.", RecordType::A), "NoError aa:  / 84.127.in-addr.arpa. SOA 5");
    assert_eq!(ask("1.1.84.127.in-addr.arpa.", RecordType::PTR), "NXDomain aa:  / 84.127.in-addr.arpa. SOA 5");
    assert_eq!(ask("0.84.127.in-addr.arpa.", RecordType::PTR), "NoError aa:  / 84.127.in-addr.arpa. SOA 5");
    assert_eq!(ask("1.0.0.10.in-addr.arpa.", RecordType::PTR), "forward 1.0.0.10.in-addr.arpa.");
}

#[test]
fn bare_names_are_answered_where_they_are_switched_on() {
    let bare = Trial { bare: true, ..Trial::default() };
    assert_eq!(bare.ask("orders.", RecordType::A), "NoError aa: orders. A 127.84.0.7");
    assert_eq!(bare.ask("orders.", RecordType::AAAA), "NoError aa:  / orders. SOA 5");
    assert_eq!(bare.ask("payments.prod.", RecordType::AAAA), "NoError aa:  / payments.prod. SOA 5");
    assert_eq!(bare.ask("_tcp.orders.", RecordType::A), "NoError aa:  / orders. SOA 5");
    assert!(bare.ask("_http._tcp.orders.", RecordType::SRV).contains("SRV 0 0 80 orders.vip.internal."));
    assert_eq!(bare.ask("users.", RecordType::A), "forward users.");
    assert_eq!(Trial::default().ask("orders.", RecordType::A), "forward orders.");
}

#[test]
fn localhost_never_leaves_the_host() {
    let ask = |kind| Trial { recursion: false, ..Trial::default() }.ask("app.localhost.", kind);
    assert_eq!(ask(RecordType::A), "NoError aa: app.localhost. A 127.0.0.1");
    assert_eq!(ask(RecordType::AAAA), "NoError aa: app.localhost. AAAA ::1");
    assert_eq!(ask(RecordType::MX), "NoError aa:  / localhost. SOA 5");
}

#[test]
fn other_names_are_passed_on_for_whom_may_ask() {
    assert_eq!(Trial::default().ask("WWW.example.com.", RecordType::A), "forward www.example.com.");
    assert_eq!(Trial::default().ask(".", RecordType::NS), "forward .");
    let refused = Trial { recursion: false, ..Trial::default() };
    assert_eq!(refused.ask("www.example.com.", RecordType::A), "Refused");
    assert_eq!(refused.ask("orders.vip.internal.", RecordType::A), "NoError aa: orders.vip.internal. A 127.84.0.7");
    let mut undesired = query("www.example.com.", RecordType::A);
    undesired.metadata.recursion_desired = false;
    assert_eq!(shown(Trial::default().verdict(&undesired)), "Refused");
    let mut signed = query("www.example.com.", RecordType::A);
    signed.edns.get_or_insert_with(Edns::new).set_dnssec_ok(true);
    signed.metadata.checking_disabled = true;
    let Verdict::Forward(relay) = Trial::default().verdict(&signed) else { panic!("it is not ours") };
    assert!(relay.dnssec_ok && relay.checking_disabled);
}

#[test]
fn what_is_no_plain_question_is_declined() {
    let ask = |kind| Trial::default().ask("orders.vip.internal.", kind);
    assert_eq!(ask(RecordType::AXFR), "Refused");
    assert_eq!(ask(RecordType::IXFR), "Refused");
    assert_eq!(ask(RecordType::TSIG), "Refused");
    assert_eq!(ask(RecordType::OPT), "FormErr");
    assert_eq!(ask(RecordType::ZERO), "FormErr");
    for class in [DNSClass::CH, DNSClass::HS, DNSClass::ANY, DNSClass::NONE, DNSClass::Unknown(7)] {
        let mut other = query("orders.vip.internal.", RecordType::A);
        other.queries[0].query_class = class;
        assert_eq!(shown(Trial::default().verdict(&other)), "Refused");
    }
    let mut future = query("orders.vip.internal.", RecordType::A);
    future.edns.get_or_insert_with(Edns::new).set_version(1);
    let Verdict::Reply(reply, DnsResult::Malformed) = Trial::default().verdict(&future) else {
        panic!("no such version")
    };
    assert_eq!((reply.metadata.response_code, reply.edns.unwrap().version()), (ResponseCode::BADVERS, 0));
}

#[test]
fn a_wildcard_makes_services_of_names_that_nobody_bears() {
    let ask = |bare, name| Trial { wildcard: true, bare, ..Trial::default() }.ask(name, RecordType::AAAA);
    assert_eq!(ask(false, "users.vip.internal."), "summon users");
    assert_eq!(ask(false, "_http._tcp.Users.vip.internal."), "summon users");
    assert_eq!(ask(false, "a.b.vip.internal."), "summon a.b");
    assert_eq!(ask(false, "prod.vip.internal."), "NoError aa:  / vip.internal. SOA 5");
    assert_eq!(ask(false, "_odd.vip.internal."), "NXDomain aa:  / vip.internal. SOA 5");
    assert_eq!(ask(false, "users."), "forward users.");
    assert_eq!(ask(true, "users."), "summon users");
    assert_eq!(ask(true, "www.example.com."), "forward www.example.com.");
    assert_eq!(ask(true, "9.9.84.127.in-addr.arpa."), "NXDomain aa:  / 84.127.in-addr.arpa. SOA 5");
}

#[test]
fn a_service_that_was_made_of_a_name_answers_to_it() {
    let trial = Trial { wildcard: true, bare: true, ..Trial::default() };
    let services = services(FILE, &VIPS);
    let zone = Zone::new(&services);
    let orders = services.find("orders").unwrap();
    let ask = |name, kind| shown(summoned(&query(name, kind), orders, &trial.rules(&zone, &services)));
    assert_eq!(ask("users.vip.internal.", RecordType::A), "NoError aa: users.vip.internal. A 127.84.0.7");
    assert_eq!(ask("users.vip.internal.", RecordType::AAAA), "NoError aa:  / vip.internal. SOA 5");
    assert_eq!(ask("users.", RecordType::AAAA), "NoError aa:  / users. SOA 5");
    assert_eq!(ask("_http._tcp.users.vip.internal.", RecordType::A), "NoError aa:  / vip.internal. SOA 5");
}

/// What comes back to us bears our mark: on what way it came decides what may be said.
#[test]
fn our_own_questions_are_known_when_they_come_back() {
    let trial = Trial { bare: true, wildcard: true, ..Trial::default() };
    let marked = |name, option| {
        let mut query = query(name, RecordType::A);
        query.edns.get_or_insert_with(Edns::new).options_mut().insert(option);
        shown(trial.verdict(&query))
    };
    let server = ([192, 0, 2, 1], 53).into();
    let relayed = || trial.ourselves.mark_to(server, true);
    assert_eq!(marked("www.example.com.", relayed()), "loop");
    assert_eq!(marked("orders.vip.internal.", relayed()), "loop");
    let looked_up = || trial.ourselves.mark_to(server, false);
    assert_eq!(marked("orders.vip.internal.", looked_up()), "Refused", "a source must not lead to ourselves");
    assert_eq!(marked("orders.", looked_up()), "forward orders.");
    assert_eq!(marked("users.", looked_up()), "forward users.", "a service must not wait for itself");
    let stranger = Ourselves::new(([127, 0, 0, 1], 53).into());
    assert_eq!(marked("orders.", stranger.mark_to(server, true)), "NoError aa: orders. A 127.84.0.7");
}
