//! The commands as a script sees them: exit code, stdout, stderr; against doors that give fixed answers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
};

const ORDERS: &str = r#"{"name":"orders","entry":{"hosts":["orders"],"shared":"127.0.0.1:8470"},
    "source":{"kind":"dns","detail":"orders:8080","revision":1,"age_ms":20},
    "endpoints":[{"addr":"10.0.0.1:8080","weight":1,"priority":0,"origin":"dns orders","state":"ready","in_flight":0,"latency_ms":1.5}],
    "policy":{"timeout.request":{"value":"10s","from":"default"}},"calls":{"ok":5},"a_later_field":1}"#;

/// A door that answers by a table, and remembers what it was asked.
struct Fixed {
    asked: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
    config: PathBuf,
    socket: PathBuf,
}

/// Opens both doors with the same answers: `("GET /path", status, body)`.
fn doors(answers: &[(&'static str, u16, String)]) -> Fixed {
    let folder = tempfile::tempdir().unwrap();
    let (config, socket) = (folder.path().join("outrigger.yaml"), folder.path().join("admin.sock"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let (observe, admin) = (port.local_addr().unwrap(), socket.display());
    let text =
        format!("listen: {{ observe: '{observe}', admin: '{admin}' }}\nservices:\n  orders: {{ dns: orders:8080 }}\n");
    std::fs::write(&config, text).unwrap();
    let unix = UnixListener::bind(&socket).unwrap();
    let (for_port, for_unix) = ((answers.to_vec(), asked.clone()), (answers.to_vec(), asked.clone()));
    // Both end with the process: they wait for a question that may never come.
    thread::spawn(move || port.incoming().for_each(|stream| answer(stream.unwrap(), &for_port.0, &for_port.1)));
    thread::spawn(move || unix.incoming().for_each(|stream| answer(stream.unwrap(), &for_unix.0, &for_unix.1)));
    Fixed { asked, folder, config, socket }
}

fn answer(mut stream: impl Read + Write, answers: &[(&'static str, u16, String)], asked: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let line = String::from_utf8(head).unwrap().split(" HTTP/").next().unwrap().to_owned();
    asked.lock().unwrap().push(line.clone());
    let missing = (404, r#"{"detail":"there is nothing here"}"#.to_owned());
    let (status, body) =
        answers.iter().find(|(what, ..)| *what == line).map_or(missing, |(_, status, body)| (*status, body.clone()));
    // A client that has seen enough may be gone.
    let _ = write!(stream, "HTTP/1.0 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
}

impl Fixed {
    /// Runs the command with `-c` at the file that leads to the doors.
    fn run(&self, line: &str) -> (i32, String, String) {
        self.outrigger(&format!("{line} -c {}", self.config.display()), None)
    }

    fn outrigger(&self, line: &str, admin: Option<&Path>) -> (i32, String, String) {
        outrigger(line, self.folder.path(), admin)
    }
}

fn outrigger(line: &str, folder: &Path, admin: Option<&Path>) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    command.args(line.split(' ').filter(|word| !word.is_empty())).current_dir(folder).env_remove("OUTRIGGER_ADMIN");
    if let Some(socket) = admin {
        command.env("OUTRIGGER_ADMIN", socket);
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn health_is_an_exit_code_with_a_reason() {
    let ready = doors(&[("GET /health/ready", 200, r#"{"status":"ready"}"#.into())]);
    assert_eq!(ready.run("health"), (0, "ready\n".into(), String::new()));
    let why = r#"{"status":"not_ready","why":["orders: no endpoints yet","draining"]}"#;
    let not = doors(&[("GET /health/ready", 503, why.into())]);
    assert_eq!(not.run("health"), (1, String::new(), "not ready: orders: no endpoints yet; draining\n".into()));
}

#[test]
fn health_does_not_depend_on_a_file_that_has_become_invalid() {
    let ready = doors(&[("GET /health/ready", 200, "{}".into())]);
    let text = std::fs::read_to_string(&ready.config).unwrap();
    std::fs::write(&ready.config, text + "serviecs: { half-written: yes }\n").unwrap();
    assert_eq!(ready.run("health").0, 0);
}

#[test]
fn explain_prints_text_or_json() {
    let services = format!(r#"{{"services":[{ORDERS}]}}"#);
    let fixed = doors(&[("GET /api/services/orders", 200, ORDERS.into()), ("GET /api/services", 200, services)]);
    let (code, text, _) = fixed.run("explain ORDERS");
    assert_eq!(code, 0);
    assert!(text.starts_with("orders\n\n  entry     http://127.0.0.1:8470 with Host orders\n"), "{text}");
    let (code, text, _) = fixed.run("explain orders --json");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &value["name"]), (0, &serde_json::json!("orders")));
    let (code, out, error) = fixed.run("explain order");
    assert_eq!((code, out), (1, String::new()));
    assert_eq!(error, "no service has the name or alias order; did you mean orders?\n");
}

#[test]
fn top_prints_a_line_a_service_to_a_pipe() {
    let fixed = doors(&[("GET /api/services", 200, format!(r#"{{"services":[{ORDERS}]}}"#))]);
    let (code, text, _) = fixed.run("top --for 0ms");
    let line = "service=orders ready=1 endpoints=1 breaker=off in_flight=- limit=- calls_per_s=- failed_per_s=- latency_ms=1.5\n";
    assert_eq!((code, text.as_str()), (0, line));
}

#[test]
fn changes_go_to_the_socket_of_the_file_or_of_the_environment() {
    let fixed = doors(&[
        ("POST /breaker/orders/open", 200, "{}".into()),
        ("POST /breaker/orders/auto", 409, r#"{"detail":"the breaker of orders is off in the configuration"}"#.into()),
        ("POST /drain", 200, "{}".into()),
        ("POST /drain/10.0.0.1:8080", 200, r#"{"services":2}"#.into()),
    ]);
    assert_eq!(fixed.run("breaker orders open").0, 0);
    assert_eq!(fixed.run("breaker orders auto").2, "the breaker of orders is off in the configuration\n");
    assert_eq!(fixed.run("drain 10.0.0.1:8080").1, "10.0.0.1:8080: no new attempts, in 2 services\n");
    assert_eq!(fixed.outrigger("drain --all", Some(&fixed.socket)).0, 0);
    assert_eq!(fixed.outrigger("drain 10.0.0.9:1", Some(&fixed.socket)).0, 1);
    let asked = fixed.asked.lock().unwrap();
    assert_eq!(
        *asked,
        [
            "POST /breaker/orders/open",
            "POST /breaker/orders/auto",
            "POST /drain/10.0.0.1:8080",
            "POST /drain",
            "POST /drain/10.0.0.9:1"
        ]
    );
}

#[test]
fn questions_can_go_to_the_socket_too() {
    let fixed = doors(&[("GET /health/ready", 200, "{}".into())]);
    std::fs::remove_file(&fixed.config).unwrap();
    assert_eq!(fixed.outrigger("health", Some(&fixed.socket)).0, 0);
}

#[test]
fn where_nobody_runs_the_answer_is_no_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone.sock");
    for line in ["health", "explain orders", "top", "breaker orders open", "drain --all", "shutdown", "shutdown --wait"]
    {
        let (code, out, error) = outrigger(line, folder.path(), Some(&gone));
        assert_eq!((code, out.as_str()), (1, ""), "{line}");
        assert!(error.contains("gone.sock") && error.contains("is `outrigger run` running"), "{line}: {error}");
    }
}

#[test]
fn exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    for (line, expected) in [
        ("--help", 0),
        ("--version", 0),
        ("schema", 0),
        ("hosts", 1),
        ("run -c nothing.yaml", 1),
        ("check -c nothing.yaml", 1),
        ("health -c nothing.yaml", 1),
        ("drain --all -c nothing.yaml", 1),
        ("", 2),
        ("fly", 2),
        ("explain", 2),
        ("breaker orders ajar", 2),
    ] {
        let (code, out, error) = outrigger(line, folder.path(), None);
        assert_eq!(code, expected, "{line}: {error}");
        assert_eq!(out.is_empty(), expected != 0, "{line}: {out}");
        assert_eq!(error.is_empty(), expected == 0, "{line}: {error}");
    }
}
