use std::path::PathBuf;

use serde_json::Value;
use tokio::net::UnixStream;

use super::*;
use crate::admin::testing::{Stand, exchange};

/// A served socket in a folder of its own.
struct Served {
    stand: Stand,
    path: PathBuf,
    reloads: mpsc::Receiver<ReloadRequest>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    _folder: tempfile::TempDir,
}

async fn start() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let stand = Stand::default();
    let (task, reloads) = stand.admin(&path);
    Served { stand, path, reloads, task, _folder: folder }
}

impl Served {
    async fn ask(&self, method: &str, path: &str) -> (u16, Value) {
        ask(self.path.clone(), method, path).await
    }

    fn done(&self) -> Vec<String> {
        std::mem::take(&mut *self.stand.done.lock().unwrap())
    }
}

async fn ask(socket: PathBuf, method: &str, path: &str) -> (u16, Value) {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (status, _, body) = exchange(stream, &format!("{method} {path} HTTP/1.0\r\n\r\n")).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_breaker_is_forced() {
    let served = start().await;
    for word in ["open", "closed", "auto"] {
        let got = served.ask("POST", &format!("/breaker/orders/{word}")).await;
        assert_eq!(got, (200, json!({ "service": "orders", "forced": word })));
        assert_eq!(served.done(), [format!("orders {word}")]);
    }
    assert_eq!(served.ask("POST", "/breaker/nobody/open").await.1["reason"], "unknown_service");
    assert_eq!(served.ask("POST", "/breaker/plain/open").await.0, 409);
    assert_eq!(served.ask("POST", "/breaker/orders/ajar").await.0, 400);
    assert_eq!(served.ask("POST", "/breaker/orders").await.0, 404);
    assert!(served.done().is_empty());
}

#[tokio::test]
async fn an_endpoint_is_drained_or_everything() {
    let served = start().await;
    let (status, body) = served.ask("POST", "/drain/10.0.0.1:80").await;
    assert_eq!((status, body), (200, json!({ "endpoint": "10.0.0.1:80", "services": 1 })));
    assert_eq!(served.ask("POST", "/drain/[fd00::1]:80").await.0, 404);
    assert_eq!(served.done(), ["drain 10.0.0.1:80", "drain [fd00::1]:80"]);
    assert_eq!(served.ask("POST", "/drain/orders:80").await.0, 400);
    assert_eq!(served.ask("GET", "/health/ready").await.0, 200);

    assert_eq!(served.ask("POST", "/drain").await, (200, json!({ "draining": true })));
    assert_eq!(served.ask("GET", "/health/ready").await, (503, json!({ "status": "not_ready", "why": ["draining"] })));
}

#[tokio::test]
async fn a_stop_is_asked_for_and_answered_at_once() {
    let served = start().await;
    for _ in 0..2 {
        assert_eq!(served.ask("POST", "/shutdown").await, (200, json!({ "stopping": true })));
        assert_eq!(served.done(), ["stop"]);
    }
    assert_eq!(served.ask("POST", "/shutdown/now").await.0, 404);
    assert!(served.done().is_empty());
}

#[tokio::test]
async fn a_reload_is_asked_for_and_answered() {
    let mut served = start().await;
    for (answered, status, field, text) in [
        (Ok("orders: changed".to_owned()), 200, "changes", "orders: changed"),
        (Err("a.yaml:3: no".to_owned()), 422, "detail", "a.yaml:3: no"),
    ] {
        let asking = tokio::spawn(ask(served.path.clone(), "POST", "/reload"));
        served.reloads.recv().await.unwrap().reply.send(answered).unwrap();
        let (got, body) = asking.await.unwrap();
        assert_eq!((got, &body[field]), (status, &json!(text)));
    }
    // Whoever reloads gives up in the middle, then is gone.
    let asking = tokio::spawn(ask(served.path.clone(), "POST", "/reload"));
    drop(served.reloads.recv().await.unwrap());
    assert_eq!(asking.await.unwrap().0, 503);
    served.reloads.close();
    assert_eq!(served.ask("POST", "/reload").await.0, 503);
}

#[tokio::test]
async fn only_a_post_changes_anything() {
    let served = start().await;
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        for path in ["/", "/breaker/orders/open", "/drain", "/drain/10.0.0.1:80", "/shutdown", "/reload", "/nothing"] {
            assert_eq!(served.ask(method, path).await.0, 405, "{method} {path}");
        }
    }
    assert_eq!(served.ask("POST", "/api/services").await.0, 405);
    assert_eq!(served.ask("GET", "/api/services/o").await.1["name"], "orders");
    assert!(served.done().is_empty());
    assert_eq!(served.ask("GET", "/health/ready").await.0, 200);
}

#[tokio::test]
async fn the_file_goes_when_serving_stops() {
    let served = start().await;
    assert_eq!(served.ask("POST", "/drain").await.0, 200);
    served.task.abort();
    assert!(served.task.await.unwrap_err().is_cancelled());
    assert!(!served.path.exists());
}
