//! Which endpoint gets the call.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::support::{Client, Held, Origin, Sidecar, eventually, ok};

/// Upstreams that answer with their own number.
async fn numbered(n: usize) -> Vec<Origin> {
    let mut origins = Vec::new();
    for i in 0..n {
        origins.push(Origin::ok(&i.to_string()).await);
    }
    origins
}

fn list<'a>(origins: impl IntoIterator<Item = &'a Origin>) -> String {
    let addrs: Vec<_> = origins.into_iter().map(|origin| format!("'{}'", origin.addr())).collect();
    format!("[{}]", addrs.join(", "))
}

/// Calls so often; how often each upstream answered.
async fn spread(sidecar: &Sidecar, calls: usize) -> BTreeMap<String, usize> {
    let mut client = sidecar.client().await;
    let mut spread = BTreeMap::new();
    for _ in 0..calls {
        *spread.entry(client.get("a", "/", "").await.text()).or_insert(0) += 1;
    }
    spread
}

#[tokio::test]
async fn round_robin_follows_the_weights_of_the_file_and_their_changes() {
    let origins = numbered(3).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.yaml");
    let write = |weights: [u32; 3]| {
        let entry =
            |(origin, weight): (&Origin, u32)| format!("- {{address: '{}', weight: {weight}}}\n", origin.addr());
        let text: String = origins.iter().zip(weights).map(entry).collect();
        std::fs::write(folder.path().join("new"), text).unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
    };
    write([5, 2, 1]);
    let yaml = format!("workers: 1\nservices: {{a: {{file: '{}', balance: round_robin}}}}", path.display());
    let sidecar = Sidecar::start(&yaml).await;
    let counts = |spread: &BTreeMap<String, usize>| spread.values().copied().collect::<Vec<_>>();
    assert_eq!(counts(&spread(&sidecar, 80).await), [50, 20, 10]);
    write([1, 1, 2]);
    eventually("the new weights", async || {
        sidecar.view("a").await.endpoints.iter().map(|endpoint| endpoint.weight).sum::<u32>() == 4
    })
    .await;
    assert_eq!(counts(&spread(&sidecar, 40).await), [10, 10, 20]);
    assert_eq!(origins.iter().map(Origin::connections).sum::<usize>(), 3, "connections outlive another weight");
}

#[tokio::test]
async fn in_flight_attempts_are_remembered_when_a_weight_changes() {
    let origin = Held::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.yaml");
    let write = |weight: u32| {
        std::fs::write(folder.path().join("new"), format!("[{{address: '{}', weight: {weight}}}]", origin.addr()))
            .unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
    };
    write(1);
    let yaml = format!("services: {{a: {{file: '{}', bulkhead: {{max: 10, per_endpoint: 1}}}}}}", path.display());
    let sidecar = Sidecar::start(&yaml).await;
    let mut call = sidecar.client().await;
    call.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.has_read(1).await;
    write(2);
    eventually("the new weight", async || sidecar.view("a").await.endpoints[0].weight == 2).await;
    assert_eq!(sidecar.view("a").await.endpoints[0].in_flight, 1);
    assert_eq!(sidecar.get("a", "/").await.reason(), "bulkhead_full");
    origin.release(1);
    assert_eq!(call.reply().await.text(), "/1");
    assert_eq!(sidecar.view("a").await.endpoints[0].in_flight, 0);
}

#[tokio::test]
async fn a_hash_sticks_and_moves_little_when_endpoints_come_and_go() {
    let origins = numbered(5).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.yaml");
    let write = |origins: &[Origin]| {
        let text: String = origins.iter().map(|origin| format!("- {{address: '{}'}}\n", origin.addr())).collect();
        std::fs::write(folder.path().join("new"), text).unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
    };
    for (balance, request) in [
        ("{hash: header x-user}", "GET / HTTP/1.1\r\nHost: a\r\nX-User: KEY\r\n\r\n"),
        ("{hash: cookie session}", "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; session=KEY; c=d\r\n\r\n"),
        ("{hash: path}", "GET /KEY?any=thing HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        write(&origins[..4]);
        let yaml = format!("workers: 2\nservices: {{a: {{file: '{}', balance: {balance}}}}}", path.display());
        let sidecar = Sidecar::start(&yaml).await;
        let ask = async || {
            let mut homes = Vec::new();
            for key in 0..100 {
                let mut client = sidecar.client().await;
                client.send(request.replace("KEY", &format!("user-{key}"))).await;
                homes.push(client.reply().await.text());
            }
            homes
        };
        let before = ask().await;
        assert_eq!(ask().await, before, "{balance} sticks");
        assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 4, "{balance} uses all");
        write(&origins);
        eventually("the fifth", async || sidecar.view("a").await.endpoints.len() == 5).await;
        let after = ask().await;
        let moved = before.iter().zip(&after).filter(|(old, new)| old != new).count();
        assert!(before.iter().zip(&after).all(|(old, new)| old == new || new == "4"), "{balance}");
        assert!((1..=45).contains(&moved), "{balance}: {moved} of 100 moved");
    }
}

#[tokio::test]
async fn least_request_and_p2c_avoid_the_busy_endpoint() {
    for balance in ["least_request", "p2c"] {
        let (busy, idle) = (Held::start().await, Origin::ok("idle").await);
        let yaml = format!(
            "workers: 1\nservices: {{a: {{static: ['{}', '{}'], balance: {balance}}}}}",
            busy.addr(),
            idle.addr()
        );
        let sidecar = Sidecar::start(&yaml).await;
        let mut waiting = Vec::new();
        while busy.requests() < 2 {
            let mut client = sidecar.client().await;
            client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let (requests, answered) = (busy.requests(), idle.requests());
            eventually("an attempt", async || busy.requests() + idle.requests() > requests + answered).await;
            waiting.push(client);
            // With an attempt outstanding at one, the other is the better choice: press until both are tried.
            if busy.requests() == 1 {
                break;
            }
        }
        eventually("the idle calls to end", async || {
            sidecar.view("a").await.endpoints.iter().map(|endpoint| endpoint.in_flight).sum::<u32>() == 1
        })
        .await;
        let before = busy.requests();
        let mut client = Client::connect(sidecar.http()).await;
        for _ in 0..30 {
            assert_eq!(client.get("a", "/", "").await.text(), "idle", "{balance}");
        }
        assert_eq!(busy.requests(), before, "{balance}");
        busy.release(10);
    }
}

#[tokio::test]
async fn p2c_prefers_the_faster_endpoint() {
    let slow = Origin::scripted(|mut exchange| async move {
        while exchange.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(30)).await;
            exchange.send(ok("slow")).await;
        }
    })
    .await;
    let fast = Origin::ok("fast").await;
    let sidecar = Sidecar::start(&format!("workers: 1\nservices: {{a: {{static: {}}}}}", list([&slow, &fast]))).await;
    let spread = spread(&sidecar, 100).await;
    assert!(spread["fast"] > 80, "{spread:?}");
}

#[tokio::test]
async fn random_reaches_everybody() {
    let origins = numbered(4).await;
    let yaml = format!("services: {{a: {{static: {}, balance: random}}}}", list(&origins));
    let sidecar = Sidecar::start(&yaml).await;
    assert_eq!(spread(&sidecar, 200).await.len(), 4);
}

#[tokio::test]
async fn an_endpoint_of_two_services_is_two_to_us() {
    let origin = Origin::ok("x").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.yaml");
    let other = Origin::ok("other").await;
    std::fs::write(&path, format!("[{{address: '{}'}}]", origin.addr())).unwrap();
    let yaml =
        format!("workers: 1\nservices: {{a: {{file: '{}'}}, b: {{static: {}}}}}", path.display(), list([&origin]));
    let sidecar = Sidecar::start(&yaml).await;
    let mut client = sidecar.client().await;
    for service in ["a", "b"] {
        assert_eq!(client.get(service, "/", "").await.text(), "x");
    }
    assert_eq!(origin.connections(), 2);
    std::fs::write(folder.path().join("new"), format!("[{{address: '{}'}}]", other.addr())).unwrap();
    std::fs::rename(folder.path().join("new"), &path).unwrap();
    eventually("a to move", async || client_text(&sidecar, "a").await == "other").await;
    eventually("a's idle connection to close", async || {
        sidecar.metrics().await["outrigger_connections{service=\"a\",side=\"upstream\"}"] <= 1.0
    })
    .await;
    assert_eq!(client.get("b", "/", "").await.text(), "x");
}

async fn client_text(sidecar: &Sidecar, service: &str) -> String {
    sidecar.get(service, "/").await.text()
}
