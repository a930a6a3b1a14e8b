//! Parts of the demo to run alone: an upstream, a caller.
//!
//! Each is the only process of a container without a shell: it prints whole lines, needs nothing but
//! its arguments, and leaves at once when it is told to, as process 1 has no default for that.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::Serialize;
use tokio::{
    net::TcpListener,
    time::{Instant, sleep_until},
};

use super::{
    Failure,
    caller::{Calls, OUTSTANDING, lock},
    character::Character,
    duration, end_asked_for,
    figures::{counted, grouped, millis},
    screen::say,
    statistics::{ServiceStatistics, Statistics, Tally},
    story,
    upstream::{Upstream, hostname},
};
use crate::model::ServiceName;

/// A part of the demo.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Part {
    /// An upstream that says who it is: /, /status/NNN, /delay/MS, /bytes/N.
    Upstream {
        /// Where it listens.
        #[arg(long, value_name = "ADDR")]
        listen: SocketAddr,
        /// The service that it is an instance of.
        #[arg(long)]
        name: String,
        /// What it is like.
        #[arg(long, default_value = "steady")]
        behaviour: Character,
    },
    /// A caller at a steady rate that prints what it sees, a line a second.
    Caller {
        /// The sidecar's shared port: http://IP:PORT. Without it, services are called by their names alone, as
        /// http://NAME/
        #[arg(long, value_name = "URL", value_parser = via)]
        via: Option<SocketAddr>,
        /// The services to call.
        #[arg(long, value_delimiter = ',', required = true, value_parser = service)]
        services: Vec<ServiceName>,
        /// Calls per second to each of them.
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=2_000))]
        rate: u32,
        /// End after this time (20s, 2m) with a summary.
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        length: Option<Duration>,
        /// Print a JSON object a second, and one with the totals at the end.
        #[arg(long)]
        json: bool,
    },
}

impl Part {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match self {
                Self::Upstream { listen, name, behaviour } => upstream(*listen, name, *behaviour).await,
                Self::Caller { via, services, rate, length, json } => {
                    let services: Vec<_> = services.iter().map(|name| name.as_str().to_owned()).collect();
                    let calls = Calls { via: *via, services, rate: *rate, outstanding: OUTSTANDING };
                    caller(calls, *length, if *json { Form::Json } else { Form::Text }).await
                }
            }
        })
    }
}

async fn upstream(listen: SocketAddr, name: &str, behaviour: Character) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await.map_err(|error| Failure::Listen(listen, error))?;
    let listen = listener.local_addr()?;
    let instance = hostname();
    say(&format!("{name}: instance {instance} listens on {listen}\n"))?;
    let upstream = Arc::new(Upstream::new(name, &instance, behaviour, Instant::now()));
    tokio::select! {
        served = upstream.serve(listener) => served.map_err(|error| Failure::Listen(listen, error)),
        asked = end_asked_for() => Ok(asked?),
    }
}

/// How the caller tells what it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

async fn caller(calls: Calls, length: Option<Duration>, form: Form) -> Result<(), Failure> {
    let start = Instant::now();
    let statistics = Arc::new(Mutex::new(Statistics::new(calls.services.iter().map(String::as_str))));
    let report = async {
        for second in 1u64.. {
            sleep_until(start + Duration::from_secs(second)).await;
            let figures = lock(&statistics).clone();
            say(&(told(&figures, second, form) + "\n"))?;
        }
        Ok(())
    };
    tokio::select! {
        // The last second is told before the end that falls together with it.
        biased;
        reported = report => return reported.map_err(Failure::Output),
        asked = end_asked_for() => asked?,
        () = at_end(start, length) => {}
        () = calls.make(start, Arc::clone(&statistics)) => {}
    }
    let figures = lock(&statistics).clone();
    say(&match form {
        Form::Text => story::totals(start.elapsed(), &figures),
        Form::Json => json(&figures, start.elapsed().as_secs(), true, |service| service.total.clone()) + "\n",
    })?;
    Ok(())
}

async fn at_end(start: Instant, length: Option<Duration>) {
    match length.and_then(|length| start.checked_add(length)) {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// The second before this one, told.
fn told(figures: &Statistics, second: u64, form: Form) -> String {
    match form {
        Form::Json => json(figures, second, false, |service| service.before(second, 1)),
        Form::Text => {
            let services: Vec<_> = figures.services.iter().map(|service| text(service, second)).collect();
            format!("{second:>4} s | {}", services.join(" | "))
        }
    }
}

fn text(service: &ServiceStatistics, second: u64) -> String {
    let tally = service.before(second, 1);
    let mut text = format!("{} {}/s ok {}", service.name, grouped(tally.calls), grouped(tally.ok()));
    let troubles = [("upstream_error", tally.upstream_errors()), ("no answer", tally.no_answer), ("late", tally.late)];
    let local = tally.local_replies().map(|(reason, count)| (reason.as_str(), count));
    for (word, count) in troubles.into_iter().filter(|&(_, count)| count > 0).chain(local) {
        text.push_str(&format!(", {word} {}", grouped(count)));
    }
    let p99 = millis(tally.latency.quantile(0.99));
    let instances = counted(tally.instances.len() as u64, "instance");
    text.push_str(&format!(", p99 {p99} ms, {instances}"));
    text
}

/// One line of the JSON form.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// Seconds since the start.
    second: u64,
    /// Whether this is all of the run instead of its last second.
    total: bool,
    services: std::collections::BTreeMap<&'a str, Figures>,
}

#[derive(Debug, Serialize)]
struct Figures {
    calls: u64,
    ok: u64,
    upstream_error: u64,
    no_answer: u64,
    late: u64,
    unsent: u64,
    local: std::collections::BTreeMap<&'static str, u64>,
    instances: Vec<String>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

fn json(figures: &Statistics, second: u64, total: bool, of: impl Fn(&ServiceStatistics) -> Tally) -> String {
    let services = figures.services.iter().map(|service| (service.name.as_str(), figures_of(of(service)))).collect();
    serde_json::to_string(&Line { second, total, services }).expect("text keys and finite numbers are valid JSON")
}

fn figures_of(tally: Tally) -> Figures {
    let ms = |share| tally.latency.quantile(share).map(|time| time.as_secs_f64() * 1e3);
    Figures {
        calls: tally.calls,
        ok: tally.ok(),
        upstream_error: tally.upstream_errors(),
        no_answer: tally.no_answer,
        late: tally.late,
        unsent: tally.unsent,
        local: tally.local_replies().map(|(reason, count)| (reason.as_str(), count)).collect(),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        instances: tally.instances.iter().map(|name| name.to_string()).collect(),
    }
}

/// Reads `http://IP:PORT`.
fn via(url: &str) -> Result<SocketAddr, String> {
    const FORM: &str = "it is written http://IP:PORT, with an IP address or localhost";
    let rest = url.strip_prefix("http://").ok_or(FORM)?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if let Some(port) = authority.strip_prefix("localhost:") {
        return port
            .parse()
            .map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
            .map_err(|_| FORM.to_owned());
    }
    authority.parse().map_err(|_| FORM.to_owned())
}

fn service(name: &str) -> Result<ServiceName, String> {
    ServiceName::parse(name).map_err(|reason| reason.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::demo::statistics::{Ended, NoAnswer},
        model::{Outcome, Reason},
    };

    fn figures() -> Statistics {
        let mut statistics = Statistics::new(["orders", "payments"]);
        let outcomes = [Ok(Outcome::Ok), Ok(Outcome::Ok), Ok(Outcome::Failed(Reason::BreakerOpen)), Err(NoAnswer)];
        for (number, outcome) in outcomes.into_iter().enumerate() {
            let (at, took) = (Duration::from_millis(500), Duration::from_micros(12));
            let instance = outcome.is_ok().then(|| Arc::from(format!("orders-{}", number % 2)));
            statistics.ended(&Ended { service: 0, at, took, late: number == 3, outcome, instance });
        }
        statistics
    }

    #[test]
    fn a_second_is_a_line() {
        let line = "   1 s | orders 4/s ok 2, no answer 1, late 1, breaker_open 1, p99 0.01 ms, 2 instances \
                    | payments 0/s ok 0, p99 - ms, 0 instances";
        assert_eq!(told(&figures(), 1, Form::Text), line);
    }

    #[test]
    fn a_second_is_a_json_object() {
        let line: serde_json::Value = serde_json::from_str(&told(&figures(), 1, Form::Json)).unwrap();
        let expected = serde_json::json!({
            "calls": 4, "ok": 2, "upstream_error": 0, "no_answer": 1, "late": 1, "unsent": 0,
            "local": { "breaker_open": 1 }, "instances": ["orders-0", "orders-1"], "p50_ms": 0.012, "p99_ms": 0.012
        });
        assert_eq!(line["services"]["orders"], expected);
        assert_eq!((&line["second"], &line["total"]), (&1.into(), &false.into()));
        assert_eq!(line["services"]["payments"]["p99_ms"], serde_json::Value::Null);
    }

    #[test]
    fn the_way_to_the_sidecar_is_an_address() {
        assert_eq!(via("http://[::1]:80/").unwrap().port(), 80);
        assert_eq!(via("http://localhost:8470").unwrap().to_string(), "127.0.0.1:8470");
        for url in [
            "",
            "http://",
            "127.0.0.1:80",
            "http://a:80",
            "http://127.0.0.1",
            "http://localhost:x",
            "http://127.0.0.1:80/x",
        ] {
            assert!(via(url).is_err(), "{url}");
        }
    }
}
