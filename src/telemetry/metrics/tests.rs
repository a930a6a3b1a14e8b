use std::time::Duration;

use super::{series::OPERATIONS, *};
use crate::model::Reason;

#[test]
fn a_service_that_is_gone_leaves_no_series() {
    let metrics = Metrics::new();
    let orders = metrics.service("orders");
    orders.call_ended(Outcome::Failed(Reason::BreakerOpen), Duration::from_millis(3));
    orders.graphql_ended("Buy", Outcome::Ok);
    metrics.discovery_look("orders", SourceKind::Dns, LookResult::Changed);
    let text = String::from_utf8(metrics.render()).unwrap();
    assert!(text.contains(r#"outrigger_calls_total{outcome="breaker_open",service="orders"} 1"#), "{text}");
    drop(orders);
    metrics.forget("orders");
    let text = String::from_utf8(metrics.render()).unwrap();
    assert!(!text.contains("orders"), "{text}");
}

#[test]
fn the_operations_of_a_service_are_a_hundred_over_all_reloads() {
    let metrics = Metrics::new();
    for reload in 0..3 {
        let orders = metrics.service("orders");
        (0..80).for_each(|n| orders.graphql_ended(&format!("Q{reload}x{n}"), Outcome::Ok));
    }
    let text = String::from_utf8(metrics.render()).unwrap();
    let series = text.lines().filter(|line| line.starts_with("outrigger_graphql_operations_total{"));
    assert_eq!(series.count(), OPERATIONS + 1, "and `other`");
    assert!(text.contains(r#"{operation="other",outcome="ok",service="orders"} 140"#), "{text}");
}

/// So many services, and the text of what is told of one of them.
fn among(many: usize, name: &str, happens: impl Fn(&ServiceMetrics)) -> String {
    let metrics = Metrics::new();
    let all: Vec<_> = (0..many).map(|n| metrics.service(&format!("s{n}"))).collect();
    happens(&metrics.service(name));
    let text = String::from_utf8(metrics.render()).unwrap();
    drop(all);
    let label = format!("service=\"{name}\"");
    text.lines().filter(|line| line.contains(&label)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn up_to_a_hundred_services_have_their_series_from_the_start() {
    let text = among(100, "s7", |_| {});
    for line in [
        r#"outrigger_calls_total{outcome="no_endpoints",service="s7"} 0"#,
        r#"outrigger_call_duration_seconds_count{service="s7"} 0"#,
        r#"outrigger_retries_total{reason="connect",service="s7"} 0"#,
        r#"outrigger_breaker_transitions_total{service="s7",to="open"} 0"#,
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
}

#[test]
fn with_more_services_those_that_are_called_have_their_series() {
    let quiet = among(101, "s7", |_| {});
    assert!(quiet.lines().all(|line| !line.contains("_total{") && !line.contains("duration")), "{quiet}");
    for gauge in ["breaker_state", "bulkhead_limit", "bulkhead_in_flight", "endpoints", "discovery_age_seconds"] {
        assert!(quiet.contains(&format!("outrigger_{gauge}{{")), "{gauge} is missing in {quiet}");
    }
    let called = |service: &ServiceMetrics| service.call_ended(Outcome::Ok, Duration::from_millis(3));
    assert_eq!(among(101, "s7", called), among(100, "s7", called), "all of them begin at once");
}

#[test]
fn what_is_no_call_is_told_of_whoever_it_concerns() {
    let text = among(200, "s7", |service| service.breaker_transitions[2].inc());
    assert!(text.contains(r#"outrigger_breaker_transitions_total{service="s7",to="closed"} 0"#), "{text}");
    let text = among(200, "s7", |service| service.ejected("health_check"));
    assert!(text.contains(r#"outrigger_ejections_total{reason="health_check",service="s7"} 1"#), "{text}");
    assert!(!text.contains("calls_total"), "{text}");
}

#[test]
fn services_under_one_label_count_together_and_leave_it_behind() {
    let metrics = Metrics::new();
    let all = ["one", "two", "three"].map(|name| metrics.service_as(name, "*"));
    for (n, service) in all.iter().enumerate() {
        service.call_ended(Outcome::Ok, Duration::ZERO);
        service.mirror(&Mirror { breaker: n as i64 % 2, in_flight: 2, age: n as f64, ..Mirror::default() });
    }
    metrics.discovery_look("two", SourceKind::Dns, LookResult::Changed);
    metrics.health_checked("three", false);
    let told = [
        r#"outrigger_calls_total{outcome="ok",service="*"} 3"#,
        r#"outrigger_breaker_state{service="*"} 1"#,
        r#"outrigger_bulkhead_in_flight{service="*"} 6"#,
        r#"outrigger_discovery_age_seconds{service="*"} 2"#,
        r#"outrigger_discovery_updates_total{result="changed",service="*",source="dns"} 1"#,
        r#"outrigger_health_checks_total{result="failed",service="*"} 1"#,
    ];
    let text = String::from_utf8(metrics.render()).unwrap();
    told.iter().for_each(|line| assert!(text.lines().any(|has| has == *line), "{line} is missing in {text}"));
    assert!(!text.contains("service=\"one\"") && !text.contains("service=\"three\""), "{text}");

    ["one", "two", "three"].iter().for_each(|name| metrics.forget(name));
    metrics.clear_mirrors();
    let text = String::from_utf8(metrics.render()).unwrap();
    assert!(text.contains(told[0]) && text.contains(r#"outrigger_bulkhead_in_flight{service="*"} 0"#), "{text}");
    metrics.forget("*");
    assert!(!String::from_utf8(metrics.render()).unwrap().contains("service=\"*\""));
}

#[test]
fn a_service_that_gets_an_entry_of_its_own_counts_under_its_own_name() {
    let metrics = Metrics::new();
    metrics.service_as("orders", "*").call_ended(Outcome::Ok, Duration::ZERO);
    metrics.service("orders").call_ended(Outcome::Ok, Duration::ZERO);
    metrics.health_checked("orders", true);
    let text = String::from_utf8(metrics.render()).unwrap();
    for label in ["*", "orders"] {
        let line = format!("outrigger_calls_total{{outcome=\"ok\",service=\"{label}\"}} 1");
        assert!(text.contains(&line), "{line} is missing in {text}");
    }
    assert!(text.contains(r#"outrigger_health_checks_total{result="ok",service="orders"} 1"#), "{text}");
}

/// Several services under a label, and one after the other, whatever its pages are.
#[test]
fn each_family_has_one_head_and_stands_together() {
    let metrics = Metrics::new();
    let all: Vec<_> = (0..300).map(|n| metrics.service(&format!("s{n:03}"))).collect();
    all.iter().for_each(|service| service.call_ended(Outcome::Ok, Duration::ZERO));
    for service in all.iter().take(40) {
        (0..OPERATIONS + 1).for_each(|n| service.graphql_ended(&format!("Operation{n}"), Outcome::Ok));
    }
    let pages: Vec<String> = metrics.pages().collect();
    assert!(pages.len() > 10 && pages.iter().all(|page| page.len() < 128 * 1024 && page.ends_with('\n')));
    let text = pages.concat();
    let (mut families, mut services) = (Vec::new(), std::collections::HashMap::<&str, Vec<&str>>::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            families.push(rest.split(' ').next().unwrap());
        } else if !line.starts_with('#') {
            let family = families.last().unwrap();
            assert!(line.starts_with(family), "{line} stands under {family}");
            let service = line.split("service=\"").nth(1).and_then(|rest| rest.split('"').next());
            services.entry(family).or_default().extend(service);
        }
    }
    assert_eq!(text.matches("# TYPE ").count(), families.len());
    assert!(families.is_sorted_by(|one, next| one < next), "{families:?}");
    for (family, services) in services {
        assert!(services.is_sorted(), "{family}");
    }
}

#[test]
fn latencies_are_told_as_a_histogram() {
    let text = among(1, "s0", |service| {
        for ms in [0, 1, 1, 2, 70_000] {
            service.call_ended(Outcome::Ok, Duration::from_millis(ms));
        }
    });
    for (le, count) in [("0.0005", 1), ("0.001", 3), ("0.0025", 4), ("60", 4), ("+Inf", 5)] {
        let line = format!("outrigger_call_duration_seconds_bucket{{service=\"s0\",le=\"{le}\"}} {count}\n");
        assert!(text.contains(&line), "{line} is missing in {text}");
    }
    assert!(text.contains("outrigger_call_duration_seconds_sum{service=\"s0\"} 70.004\n"), "{text}");
    assert!(text.contains("outrigger_call_duration_seconds_count{service=\"s0\"} 5\n"), "{text}");
}

/// Words that other modules count by are words of this one.
#[test]
fn whatever_is_counted_by_a_word_has_a_series() {
    use crate::policy::{bulkhead::Priority, ejection::Reason};
    let text = among(1, "s0", |service| {
        Priority::ALL.iter().for_each(|priority| service.shed(priority.as_str()));
        Reason::ALL.iter().for_each(|reason| service.ejected(reason.as_str()));
        RETRY_REASONS.iter().for_each(|reason| service.retried(reason));
    });
    for (family, count) in [("bulkhead_shed_total", 4), ("ejections_total", 4), ("retries_total", RETRY_REASONS.len())]
    {
        let lines =
            text.lines().filter(|line| line.starts_with(&format!("outrigger_{family}")) && line.ends_with(" 1"));
        assert_eq!(lines.count(), count, "{family} in {text}");
    }
}
