use super::*;
use crate::service::view::{EndpointView, EntryView, PolicyValueView};

fn full() -> ServiceView {
    let endpoint = |last: u8, state: &str, latency_ms| EndpointView {
        why: None,
        out_ms: None,
        probe_in_ms: None,
        addr: ([10, 0, 0, last], 8080).into(),
        weight: 1,
        priority: 0,
        origin: "dns orders".into(),
        state: state.into(),
        in_flight: u32::from(last),
        latency_ms,
    };
    let value = |value: &str, from: &str| PolicyValueView { value: value.into(), from: from.into() };
    ServiceView {
        made: false,
        name: "orders".into(),
        entry: EntryView {
            hosts: vec!["orders".into(), "orders.vip.internal".into()],
            shared: ([127, 0, 0, 1], 8470).into(),
            listen: Some(([127, 0, 0, 1], 7001).into()),
            vip: None,
        },
        source: SourceView {
            kind: "dns".into(),
            detail: "orders:8080".into(),
            revision: 3,
            age_ms: Some(1_234),
            problem: Some("SERVFAIL from 127.0.0.11:53".into()),
            dropped_in_ms: None,
        },
        endpoints: vec![endpoint(1, "ready", 3.12), endpoint(12, "draining", 0.0)],
        policy: [
            ("timeout.request".to_owned(), value("800ms", "service (line 12)")),
            ("bulkhead.max".to_owned(), value("100", "default")),
        ]
        .into(),
        breaker: Some(BreakerView {
            state: "half_open".into(),
            forced: "auto".into(),
            mode: "on".into(),
            calls: 40,
            failures: 2,
            slow: 0,
            probes_in_ms: None,
        }),
        bulkhead: Some(BulkheadView { in_flight: 3, limit: 100, queued: 0, queue: 0, adaptive: None }),
        calls: [("ok".to_owned(), 120), ("breaker_open".to_owned(), 3)].into(),
    }
}

#[test]
fn a_service_in_full() {
    assert_eq!(
        render(&full()),
        "\
orders

  entry     http://127.0.0.1:8470 with Host orders or orders.vip.internal
            http://127.0.0.1:7001
  source    dns orders:8080, answered 1.2 s ago, revision 3
            problem: SERVFAIL from 127.0.0.11:53
  breaker   half-open; of 40 attempts in the window 2 failed, 0 were slow
  bulkhead  3 of 100 calls, no queue
  calls     3 breaker_open, 120 ok

  ENDPOINT        STATE     WEIGHT  PRIORITY  IN FLIGHT  LATENCY  FROM
  10.0.0.1:8080   ready     1       0         1          3.1 ms   dns orders
  10.0.0.12:8080  draining  1       0         12         0 ms     dns orders

  POLICY           VALUE  FROM
  bulkhead.max     100    default
  timeout.request  800ms  service (line 12)
"
    );
}

#[test]
fn a_service_of_which_nothing_is_known_yet() {
    let view = ServiceView {
        entry: EntryView { listen: None, ..full().entry },
        source: SourceView { age_ms: None, problem: None, revision: 0, ..full().source },
        endpoints: vec![],
        policy: Default::default(),
        breaker: None,
        bulkhead: None,
        calls: Default::default(),
        ..full()
    };
    assert_eq!(
        render(&view),
        "\
orders

  entry     http://127.0.0.1:8470 with Host orders or orders.vip.internal
  source    dns orders:8080, has not answered yet, revision 0
  breaker   off
  bulkhead  off
  calls     none yet

  no endpoints

  no policy
"
    );
}

#[test]
fn each_state_of_a_breaker_has_its_words() {
    let text = |state: &str, forced: &str, mode: &str, probes_in_ms| {
        let view = BreakerView {
            state: state.into(),
            forced: forced.into(),
            mode: mode.into(),
            probes_in_ms,
            ..full().breaker.unwrap()
        };
        breaker(&view).split(';').next().unwrap().to_owned()
    };
    assert_eq!(text("closed", "auto", "on", None), "closed");
    assert_eq!(text("open", "auto", "on", Some(2_500)), "open, probes in 2.5 s");
    assert_eq!(text("open", "open", "on", None), "forced open");
    assert_eq!(text("open", "auto", "observe", Some(10)), "open (observes only, refuses nothing), probes in 10 ms");
}

#[test]
fn what_comes_from_elsewhere_cannot_drive_the_terminal() {
    let mut view = full();
    view.source.problem = Some("\u{1b}]0;owned\u{7}\nbreaker   closed".into());
    view.endpoints[0].origin = "dns \u{9b}2J".into();
    let text = render(&view);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert_eq!(text.lines().count(), render(&full()).lines().count());
}

#[test]
fn an_unknown_name_is_met_with_those_there_are() {
    let name = |text| ServiceName::parse(text).unwrap();
    assert!(unknown(&name("ordres"), &[full()]).ends_with("did you mean orders?"));
    assert!(unknown(&name("zzz"), &[full()]).ends_with("there are: orders"));
    assert!(unknown(&name("zzz"), &[]).ends_with("the sidecar has no services"));
    let many: Vec<_> = (0..25).map(|n| ServiceView { name: format!("s{n}"), ..full() }).collect();
    assert!(unknown(&name("zzz"), &many).ends_with("s19, ..."));
}

#[test]
fn the_shared_port_is_named_only_where_it_leads_to_the_service() {
    let [own, shared] = [6379, 8470].map(|port| std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    let tcp = EntryView { hosts: vec![], shared, listen: Some(own), vip: None };
    assert_eq!(entry(&tcp), ["tcp://127.0.0.1:6379"]);
    let inbound = EntryView { hosts: vec![], shared, listen: None, vip: None };
    assert_eq!(entry(&inbound), ["callers of our own app come in at `inbound.listen`"]);
}

#[test]
fn a_service_of_the_wildcard_says_so() {
    let text = render(&ServiceView { made: true, ..full() });
    assert!(text.contains("a service of `*`, forgotten when nobody calls it"), "{text}");
    assert!(!render(&full()).contains("`*`"));
}
