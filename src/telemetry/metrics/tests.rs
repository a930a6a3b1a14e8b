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
