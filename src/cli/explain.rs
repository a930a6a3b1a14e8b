//! `outrigger explain`: what a service's name means right now, and why.

use std::fmt::Write;

use super::{
    Failure, find,
    layout::{Table, duration, printable},
    print,
};
use crate::{
    model::ServiceName,
    service::view::{
        AdaptiveView, BreakerView, BulkheadView, EndpointView, EntryView, ServiceView, SourceView, VipView,
    },
};

/// Which service.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The service, by name or alias
    #[arg(value_parser = find::name)]
    name: ServiceName,
    /// The view as JSON, as the observe port gives it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: find::Place,
}

/// The answer of `/api/services`, of which only the names matter here.
#[derive(serde::Deserialize)]
struct Services {
    services: Vec<ServiceView>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let door = args.place.for_questions()?;
    let answer = door.get(&format!("/api/services/{}", args.name))?;
    if answer.status == 404 {
        let Services { services } = door.get("/api/services")?.accepted()?.json()?;
        return Err(Failure::No(unknown(&args.name, &services)));
    }
    let view: ServiceView = answer.accepted()?.json()?;
    if args.json {
        let text = serde_json::to_string_pretty(&view).map_err(|error| Failure::Internal(error.to_string()))?;
        return print(&format!("{text}\n"));
    }
    print(&render(&view))
}

fn unknown(name: &ServiceName, services: &[ServiceView]) -> String {
    let names = services.iter().flat_map(|view| std::iter::once(&view.name).chain(&view.entry.hosts));
    let close = names
        .map(|known| (strsim::jaro_winkler(name.as_str(), known), known))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match (close, services) {
        (Some((_, known)), _) => format!("no service has the name or alias {name}; did you mean {}?", printable(known)),
        (None, []) => format!("no service has the name or alias {name}; the sidecar has no services"),
        (None, services) => {
            let names: Vec<_> = services.iter().take(20).map(|view| printable(&view.name)).collect();
            let more = if services.len() > names.len() { ", ..." } else { "" };
            format!("no service has the name or alias {name}; there are: {}{more}", names.join(", "))
        }
    }
}

fn render(view: &ServiceView) -> String {
    let mut text = format!("{}\n\n", printable(&view.name));
    let mut line = |name: &str, value: &str| {
        writeln!(text, "  {name:<9} {}", printable(value)).expect("writing to memory cannot fail");
    };
    if view.made {
        line("made", "a service of `*`, forgotten when nobody calls it");
    }
    for (n, way) in entry(&view.entry).iter().enumerate() {
        line(if n == 0 { "entry" } else { "" }, way);
    }
    for (n, part) in source(&view.source).iter().enumerate() {
        line(if n == 0 { "source" } else { "" }, part);
    }
    line("breaker", &view.breaker.as_ref().map_or_else(|| "off".into(), breaker));
    line("bulkhead", &view.bulkhead.as_ref().map_or_else(|| "off".into(), bulkhead));
    let calls: Vec<_> = view.calls.iter().map(|(outcome, n)| format!("{n} {outcome}")).collect();
    line("calls", &if calls.is_empty() { "none yet".into() } else { calls.join(", ") });

    let tables = [("no endpoints", endpoints(view)), ("no policy", policy(view))];
    for (without, table) in tables {
        text.push('\n');
        match table {
            Some(table) => table.lines().for_each(|row| text.extend(["  ", &row, "\n"])),
            None => text.extend(["  ", without, "\n"]),
        }
    }
    text
}

/// The ways in: by name on the shared port, which has no names for TCP and none for our own app; by the own port.
fn entry(view: &EntryView) -> Vec<String> {
    let EntryView { hosts, shared, listen, vip } = view;
    let vip = vip.iter().flat_map(|VipView { address, ports, names }| {
        let scheme = if hosts.is_empty() { "tcp" } else { "http" };
        let name = names.first().map_or("", String::as_str);
        ports.iter().map(move |port| match (scheme, port) {
            ("http", 80) => format!("http://{name} (VIP {address})"),
            _ => format!("{scheme}://{name}:{port} (VIP {address})"),
        })
    });
    let mut ways = match (hosts.is_empty(), listen) {
        (true, None) if view.vip.is_some() => Vec::new(),
        (true, None) => vec!["callers of our own app come in at `inbound.listen`".into()],
        (true, Some(own)) => vec![format!("tcp://{own}")],
        (false, own) => {
            let by_name = format!("http://{shared} with Host {}", hosts.join(" or "));
            std::iter::once(by_name).chain(own.map(|own| format!("http://{own}"))).collect()
        }
    };
    ways.extend(vip);
    ways
}

/// What the source is and how it does; then what is wrong with it.
fn source(view: &SourceView) -> Vec<String> {
    let answered = match view.age_ms {
        Some(age) => format!("answered {} ago", duration(age as f64)),
        None => "has not answered yet".into(),
    };
    let mut lines = vec![format!("{} {}, {answered}, revision {}", view.kind, view.detail, view.revision)];
    if let Some(problem) = &view.problem {
        lines.push(format!("problem: {problem}"));
    }
    if let Some(left) = view.dropped_in_ms {
        lines.push(format!("says that there are no endpoints; the last ones are dropped in {}", duration(left as f64)));
    }
    lines
}

fn breaker(view: &BreakerView) -> String {
    let BreakerView { state, forced, mode, calls, failures, slow, probes_in_ms } = view;
    let mut text = match (state.as_str(), forced.as_str()) {
        (state, "auto") => state.replace('_', "-"),
        (_, forced) => format!("forced {forced}"),
    };
    if mode == "observe" {
        text.push_str(" (observes only, refuses nothing)");
    }
    if let Some(left) = probes_in_ms {
        text.push_str(&format!(", probes in {}", duration(*left as f64)));
    }
    text + &format!("; of {calls} attempts in the window {failures} failed, {slow} were slow")
}

fn bulkhead(view: &BulkheadView) -> String {
    let BulkheadView { in_flight, limit, queued, queue, adaptive } = view;
    let mut text = match queue {
        0 => format!("{in_flight} of {limit} calls, no queue"),
        _ => format!("{in_flight} of {limit} calls, {queued} of {queue} waiting"),
    };
    if let Some(AdaptiveView { floor, ceiling, latency_ms, long_term_ms, gradient }) = adaptive {
        text += &format!(
            "; the limit follows latency between {floor} and {ceiling}: {} of late, {} in the long run, gradient {gradient:.2}",
            duration(*latency_ms),
            duration(*long_term_ms)
        );
    }
    text
}

/// An endpoint's state, and for one that is out why, since when and until when.
fn state(view: &EndpointView) -> String {
    let mut text = view.state.clone();
    if let (Some(why), Some(out)) = (&view.why, view.out_ms) {
        text += &format!(" ({why}, {} ago", duration(out as f64));
        text += &view.probe_in_ms.map_or(")".to_owned(), |left| format!(", probed in {})", duration(left as f64)));
    }
    text
}

fn endpoints(view: &ServiceView) -> Option<Table> {
    let mut table = Table::new(["ENDPOINT", "STATE", "WEIGHT", "PRIORITY", "IN FLIGHT", "LATENCY", "FROM"]);
    for endpoint in &view.endpoints {
        table.row([
            endpoint.addr.to_string(),
            state(endpoint),
            endpoint.weight.to_string(),
            endpoint.priority.to_string(),
            endpoint.in_flight.to_string(),
            duration(endpoint.latency_ms),
            endpoint.origin.clone(),
        ]);
    }
    (!view.endpoints.is_empty()).then_some(table)
}

fn policy(view: &ServiceView) -> Option<Table> {
    let mut table = Table::new(["POLICY", "VALUE", "FROM"]);
    for (key, value) in &view.policy {
        table.row([key.clone(), value.value.clone(), value.from.clone()]);
    }
    (!view.policy.is_empty()).then_some(table)
}

#[cfg(test)]
mod tests;
