//! The commands' client against the real doors.

use std::path::PathBuf;

use super::{
    Failure,
    client::{Answer, Door},
};
use crate::{admin::testing::Stand, service::view::ServiceView};

/// Runs what blocks beside the doors.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn get(door: &Door, path: &'static str) -> Answer {
    let door = door.clone();
    blocking(move || door.get(path).unwrap()).await
}

async fn post(door: &Door, path: &'static str) -> Answer {
    let door = door.clone();
    blocking(move || door.post(path).unwrap()).await
}

#[tokio::test]
async fn both_doors_answer_the_same_questions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let stand = Stand::default();
    let _admin = stand.admin(&path);
    for door in [Door::Observe(stand.observe().await), Door::Admin(path)] {
        let view: ServiceView = get(&door, "/api/services/O").await.accepted().unwrap().json().unwrap();
        assert_eq!(view.name, "orders");
        let Err(Failure::No(text)) = get(&door, "/api/services/nobody").await.accepted() else { panic!("accepted") };
        assert_eq!(text, "no service has the name or alias \"nobody\"");
        assert_eq!(get(&door, "/health/ready").await.status, 200);
        assert!(matches!(get(&door, "/health/ready").await.json::<ServiceView>(), Err(Failure::No(_))));
    }
}

#[tokio::test]
async fn only_one_door_takes_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let stand = Stand::default();
    let _admin = stand.admin(&path);
    let (port, socket) = (Door::Observe(stand.observe().await), Door::Admin(path));
    assert_eq!(post(&port, "/breaker/orders/open").await.status, 404);
    assert!(post(&socket, "/breaker/orders/open").await.accepted().is_ok());
    assert_eq!(*stand.done.lock().unwrap(), ["orders open"]);
    let Err(Failure::No(text)) = post(&socket, "/breaker/plain/open").await.accepted() else { panic!("accepted") };
    assert_eq!(text, "the breaker of plain is off in the configuration");
}

#[tokio::test]
async fn an_answer_of_many_megabytes_comes_whole() {
    let stand = Stand { many: 20_000, ..Stand::default() };
    let door = Door::Observe(stand.observe().await);
    let value: serde_json::Value = get(&door, "/api/services").await.json().unwrap();
    assert_eq!(value["services"].as_array().unwrap().len(), 20_000);
}

#[tokio::test]
async fn a_socket_that_a_crash_left_is_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let failed = blocking(move || Door::Admin(path).post("/drain")).await;
    let Err(Failure::No(text)) = failed else { panic!("somebody answered") };
    assert!(text.contains("no sidecar answers at"), "{text}");
}
