//! Policy values of one service held against each other: each is fine by itself, and hardly meant together.
//!
//! What is built in, or shared by `defaults:` and then tightened by one service, is no mistake of the file.

use super::{
    Policy, Protocol, Provenance,
    layers::{Leaves, OF_CALLS},
    problem::{Report, join},
    raw::{Entry, Node, Value},
    scalar::switch,
    units,
};
use crate::policy::{balance::Settings as Balance, retry::Hedge};

/// Checks the policies of one service, or of the receiving side, which stands at `path`.
pub(super) fn check(leaves: &Leaves<'_>, path: &str, report: &mut Report<'_>) {
    let pairs = Pairs { leaves, policy: &leaves.policy(), path };
    if pairs.policy.protocol == Protocol::Tcp {
        pairs.bytes(report);
    }
    pairs.limits(report);
    pairs.bulkhead(report);
    pairs.breaker(report);
    pairs.tls(report);
    pairs.cors(report);
    pairs.retry(report);
    pairs.ejection(report);
    pairs.health_check(report);
    pairs.failure_if(report);
}

struct Pairs<'a> {
    leaves: &'a Leaves<'a>,
    policy: &'a Policy,
    path: &'a str,
}

impl Pairs<'_> {
    /// Of two limits, the one that the other makes pointless.
    fn limits(&self, report: &mut Report<'_>) {
        let timeout = &self.policy.timeout;
        let attempt = ("timeout.attempt", timeout.attempt);
        let connect = ("timeout.connect", timeout.connect);
        let request = ("timeout.request", timeout.request);
        let total = ("timeout.total", timeout.total);
        let mut pairs = vec![
            (attempt, request, "it has no effect"),
            (connect, attempt, "it has no effect"),
            (connect, request, "it has no effect"),
            (request, total, "it has no effect"),
        ];
        if let Some(bulkhead) = &self.policy.bulkhead {
            let wait = (bulkhead.queue > 0).then_some(bulkhead.wait);
            pairs.push((("bulkhead.wait", wait), request, "it has no effect"));
        }
        if let Some(breaker) = &self.policy.breaker {
            pairs.push((("breaker.slow_call", breaker.slow_call), request, "no call is ever slow"));
        }
        for ((key, value), (bound_key, bound), so) in pairs {
            let (Some(value), Some(bound)) = (value, bound) else { continue };
            let meant = match self.leaves.provenance_of(key) {
                Provenance::Default => true,
                Provenance::Defaults(_) => matches!(self.leaves.provenance_of(bound_key), Provenance::Service(_)),
                Provenance::Service(_) => false,
            };
            if value > bound && !meant {
                let (value, bound) = (units::show_duration(value), units::show_duration(bound));
                let message = format!("`{key}` ({value}) is longer than `{bound_key}` ({bound}): {so}");
                self.warn(key, message, None, report);
            }
        }
    }

    fn bulkhead(&self, report: &mut Report<'_>) {
        let Some(bulkhead) = &self.policy.bulkhead else { return };
        if bulkhead.per_endpoint.is_some_and(|each| each > bulkhead.max) {
            let message =
                format!("`bulkhead.per_endpoint` is more than `bulkhead.max` ({}): it has no effect", bulkhead.max);
            self.warn("bulkhead.per_endpoint", message, None, report);
        }
    }

    fn breaker(&self, report: &mut Report<'_>) {
        let Some(breaker) = &self.policy.breaker else { return };
        let written = self.leaves.provenance_of("breaker.slow_rate") != Provenance::Default;
        if written && breaker.slow_call.is_none() {
            let message = "`breaker.slow_rate` counts only with `breaker.slow_call`".to_owned();
            self.warn("breaker.slow_rate", message, None, report);
        }
    }

    fn retry(&self, report: &mut Report<'_>) {
        let (Some(retry), request) = (&self.policy.retry, self.policy.timeout.request) else { return };
        if request.is_some_and(|request| retry.backoff >= request) {
            let message =
                "`retry.backoff` is no shorter than `timeout.request`: hardly a retry is ever made".to_owned();
            self.warn("retry.backoff", message, None, report);
        }
        if retry.backoff > retry.max_backoff {
            let message = "`retry.backoff` is longer than `retry.max_backoff`: it has no effect".to_owned();
            self.warn("retry.backoff", message, None, report);
        }
        if let Some(Hedge::After(after)) = self.policy.hedge
            && request.is_some_and(|request| after >= request)
        {
            let message = "`hedge` is no shorter than `timeout.request`: no hedge is ever made".to_owned();
            self.warn("hedge", message, None, report);
        }
    }

    fn ejection(&self, report: &mut Report<'_>) {
        let Some(ejection) = &self.policy.ejection else { return };
        if ejection.first > ejection.longest {
            let message = "`ejection.for` is longer than `ejection.max_for`: it has no effect".to_owned();
            self.warn("ejection.for", message, None, report);
        }
    }

    fn health_check(&self, report: &mut Report<'_>) {
        let kinds = ["tcp", "http", "grpc"].map(|kind| format!("health_check.{kind}"));
        let written = kinds.iter().filter(|path| self.leaves.is_written(path)).count();
        if written > 1 {
            let hint = "keep one of `tcp`, `http` and `grpc`".to_owned();
            self.error("health_check", "an endpoint is checked in one way", hint, report);
        }
    }

    fn failure_if(&self, report: &mut Report<'_>) {
        if self.policy.failure_if.is_none() {
            return;
        }
        for (more, of) in [("failure_if.equals", "failure_if.json"), ("failure_if.value", "failure_if.header")] {
            if self.leaves.is_written(more) && !self.leaves.is_written(of) {
                self.error(more, &format!("`{more}` counts only with `{of}`"), format!("add `{of}`"), report);
            }
        }
    }

    fn tls(&self, report: &mut Report<'_>) {
        let Some(tls) = &self.policy.tls else { return };
        if tls.unverified {
            let message = "no certificate is verified: whoever is on the way can read and change the calls".to_owned();
            let hint = "trust the endpoints' own authority with `ca: FILE`, or their name with `name: NAME`".to_owned();
            self.warn("tls.dangerously_accept_any_certificate", message, Some(hint), report);
        }
    }

    fn cors(&self, report: &mut Report<'_>) {
        let Some(cors) = &self.policy.cors else { return };
        let any = cors.origins.iter().any(|origin| &**origin == "*");
        // An empty list has its problem already.
        if self.leaves.provenance_of("cors.origins") == Provenance::Default {
            let hint = "name the pages that may call: `origins: [https://shop.example]`".to_owned();
            self.error("cors", "`cors` names no origins", hint, report);
        } else if any && cors.credentials {
            let hint = "list the origins: with `*`, any page could call with the user's cookies".to_owned();
            self.error("cors.credentials", "`credentials` and `*` do not go together", hint, report);
        } else if any && cors.origins.len() > 1 {
            self.warn("cors.origins", "beside `*`, the other origins have no effect".to_owned(), None, report);
        }
    }

    /// What a tcp service writes for calls, and bytes have none of.
    fn bytes(&self, report: &mut Report<'_>) {
        let by_service = |key| matches!(self.leaves.provenance_of(key), Provenance::Service(_));
        if by_service("balance") && matches!(self.policy.balance, Balance::Hash(_)) {
            let hint = "with `protocol: tcp`, balance by `p2c`, `round_robin`, `random` or `least_request`".to_owned();
            self.error("balance", "bytes have nothing of a request to hash", hint, report);
        }
        if by_service("cors") && self.policy.cors.is_some() {
            let hint = "with `protocol: tcp`, leave `cors` out".to_owned();
            self.error("cors", "bytes have no origin that could be allowed", hint, report);
        }
        for policy in OF_CALLS.into_iter().filter(|policy| *policy != "cors" && by_service(policy)) {
            if !matches!(self.leaves.text(policy), "off") {
                let hint = format!("with `protocol: tcp`, leave `{policy}` out");
                self.error(policy, &format!("bytes have no use for `{policy}`"), hint, report);
            }
        }
        if by_service("health_check") && matches!(self.leaves.text("health_check"), "http" | "grpc") {
            let hint = "with `protocol: tcp`, write `health_check: tcp`".to_owned();
            self.error("health_check", "what speaks no HTTP cannot be asked by HTTP", hint, report);
        }
        if by_service("timeout.tunnel") && self.leaves.text("timeout.tunnel") != "off" {
            let message = "`timeout.tunnel` has no effect on a tcp service".to_owned();
            let hint = Some("silence is bounded by `timeout.idle`".to_owned());
            self.warn("timeout.tunnel", message, hint, report);
        }
    }

    fn warn(&self, key: &'static str, message: String, hint: Option<String>, report: &mut Report<'_>) {
        report.warning(self.leaves.place(key), &join(self.path, key), message, hint);
    }

    fn error(&self, key: &'static str, message: &str, hint: String, report: &mut Report<'_>) {
        report.error(self.leaves.place(key), &join(self.path, key), message, Some(hint));
    }
}

/// A certificate and its key stand together: in each place that writes one, so that no service mixes its own
/// certificate with the key of `defaults:`.
pub(super) fn key_pair(tls: Option<&Node>, path: &str, report: &mut Report<'_>) {
    let Some(tls) = tls else { return };
    let written = |key: &str| tls.entry(key).filter(|entry| is_file(&entry.node));
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if let (Some(Entry { place, .. }), None) = (written(one), written(other)) {
            let message = format!("`{one}` stands here without `{other}`");
            let hint = Some(format!("add `{other}: FILE`: a certificate and its key are a pair"));
            report.error(*place, &join(path, one), message, hint);
        }
    }
}

/// Whether a file is named; one that cannot be read has its problem already.
pub(super) fn is_file(node: &Node) -> bool {
    match &node.value {
        Value::Text { text, .. } => switch(text) != "off",
        Value::Null | Value::Unfilled | Value::List(_) | Value::Map(_) => true,
    }
}
