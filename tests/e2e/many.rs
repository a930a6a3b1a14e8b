//! Thousands of services: what is told of those that nobody calls, and that it arrives whole.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Origin, Process, Sidecar};

/// So many services at one origin.
fn services(many: usize, origin: &Origin) -> String {
    let service = |n| format!("  s{n}: {{static: ['{}']}}\n", origin.addr());
    format!("services:\n{}", (0..many).map(service).collect::<String>())
}

/// The lines of the metrics that are about one service.
fn of<'a>(text: &'a str, service: &str) -> Vec<&'a str> {
    let label = format!("service=\"{service}\"");
    text.lines().filter(|line| line.contains(&label)).collect()
}

fn counters<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let is_counter = |line: &&&str| line.contains("_total{") || line.contains("_duration_seconds");
    lines.iter().filter(is_counter).filter(|line| !line.contains("discovery_updates")).copied().collect()
}

#[tokio::test]
async fn the_series_of_many_services_begin_with_their_first_call() {
    let origin = Origin::ok("here").await;
    let sidecar = Sidecar::start(&services(2_000, &origin)).await;
    let before = sidecar.observe("/metrics").await.text();
    for service in ["s0", "s7", "s1999"] {
        assert_eq!(counters(&of(&before, service)), [""; 0], "nobody has called {service}");
        let ready = format!("outrigger_endpoints{{service=\"{service}\",state=\"ready\"}} 1");
        assert!(of(&before, service).contains(&ready.as_str()), "{service} can be seen to have an endpoint");
    }
    assert_eq!(sidecar.get("s7", "/").await.text(), "here");
    sidecar.settles("s7", &[("ok", 1)]).await;
    let after = sidecar.observe("/metrics").await.text();
    let begun = counters(&of(&after, "s7"));
    for series in [
        "outrigger_calls_total{outcome=\"ok\",service=\"s7\"} 1",
        "outrigger_attempts_total{outcome=\"connect_refused\",service=\"s7\"} 0",
        "outrigger_breaker_transitions_total{service=\"s7\",to=\"open\"} 0",
        "outrigger_call_duration_seconds_count{service=\"s7\"} 1",
    ] {
        assert!(begun.contains(&series), "{series} is missing in {begun:?}");
    }
    assert_eq!(counters(&of(&after, "s8")), [""; 0]);
}

#[tokio::test]
async fn a_long_list_arrives_whole_in_either_version_of_http() {
    let origin = Origin::ok("here").await;
    let sidecar = Sidecar::start(&services(500, &origin)).await;
    let whole = sidecar.observe("/api/services").await;
    assert!(whole.status == 200 && whole.complete);
    for path in ["/metrics", "/api/services"] {
        let mut stream = tokio::net::TcpStream::connect(sidecar.observer_addr()).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200") && !head.contains("chunked"), "{head}");
        assert!(body.len() > 200_000 && body.ends_with('\n'), "{path} ends with {:?}", &body[body.len() - 80..]);
        assert!((0..500).all(|n| body.contains(&format!("\"s{n}\""))), "{path}");
    }
    let names = |body: &[u8]| -> Vec<String> {
        let list: serde_json::Value = serde_json::from_slice(body).unwrap();
        list["services"].as_array().unwrap().iter().map(|view| view["name"].as_str().unwrap().to_owned()).collect()
    };
    let mut expected: Vec<_> = (0..500).map(|n| format!("s{n}")).collect();
    expected.sort();
    assert_eq!(names(&whole.body), expected);
}

#[tokio::test]
async fn a_reload_to_fewer_services_brings_the_zeros_back() {
    let origin = Origin::ok("here").await;
    let process = Process::start(&services(101, &origin)).await;
    let quiet = process.observe("/metrics").await.text();
    assert_eq!(counters(&of(&quiet, "s7")), [""; 0]);
    assert_eq!(process.reload(&services(100, &origin)).await.status, 200);
    let text = process.observe("/metrics").await.text();
    assert!(counters(&of(&text, "s7")).len() > 40, "{:?}", of(&text, "s7"));
    assert_eq!(of(&text, "s100"), [""; 0], "and the one that is gone has left nothing");
}
