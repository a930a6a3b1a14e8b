//! Virtual IPs: an address a service, on ports that all of them share.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Command,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Client, Origin, Process, Sidecar, eventually, origin::ok, within};

/// A port that is free at every address.
fn port() -> u16 {
    TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

async fn vip(sidecar: &Sidecar, service: &str) -> Ipv4Addr {
    sidecar.view(service).await.entry.vip.expect("a VIP").address
}

/// Connects; `None` when nobody listens, or the connection is reset before anything is said.
async fn refused(addr: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(addr).await else { return true };
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut bytes = Vec::new();
    within("the end of the connection", stream.read_to_end(&mut bytes)).await.is_err() && bytes.is_empty()
}

#[tokio::test]
async fn the_address_alone_says_which_service() {
    let (orders, mut asked) = Origin::recording(ok("orders")).await;
    let users = Origin::answering(ok("users")).await;
    let port = port();
    let sidecar = Sidecar::start(&format!(
        "vip: {{ports: [{port}], state: off}}\nservices: {{orders: {{static: ['{}']}}, users: {{static: ['{}']}}}}",
        orders.addr(),
        users.addr()
    ))
    .await;
    for (service, host) in
        [("orders", "orders.vip.internal"), ("orders", "users"), ("orders", "elsewhere.example"), ("users", "orders")]
    {
        let mut client = Client::connect((vip(&sidecar, service).await, port).into()).await;
        let reply = client.get(host, "/x", "").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, service), "{host}");
    }
    let first = asked.recv().await.unwrap();
    assert!(first.contains("host: orders.vip.internal\r\n"), "a Host that names the service stays: {first}");
    let second = asked.recv().await.unwrap();
    assert!(second.contains(&format!("host: {}\r\n", orders.addr())), "any other is the source's: {second}");
    let view = sidecar.view("orders").await.entry.vip.unwrap();
    assert_eq!((view.ports, view.names), (vec![port], vec!["orders.vip.internal".to_owned(), "orders".to_owned()]));
    sidecar.settles("orders", &[("ok", 3)]).await;
}

#[tokio::test]
async fn nobody_listens_where_no_service_does() {
    let (a, b) = (Origin::answering(ok("a")).await, Origin::answering(ok("b")).await);
    let (port, own) = (port(), port());
    let sidecar = Sidecar::start(&format!(
        "vip: {{ports: [{port}], state: off}}\n\
         services: {{a: {{static: ['{}'], vip: {{ports: [{own}]}}}}, b: {{static: ['{}']}}, c: {{static: ['{}'], vip: off}}}}",
        a.addr(),
        b.addr(),
        b.addr()
    ))
    .await;
    let (a, b) = (vip(&sidecar, "a").await, vip(&sidecar, "b").await);
    assert!(sidecar.view("c").await.entry.vip.is_none());
    assert_eq!(Client::connect((a, own).into()).await.get("x", "/", "").await.text(), "a");
    assert_eq!(Client::connect((b, port).into()).await.get("x", "/", "").await.text(), "b");
    assert!(refused((b, own).into()).await, "b has no such port");
    assert!(refused(([127, 0, 0, 1], port).into()).await, "localhost is no VIP");
    // An address in the range that is nobody's: an app may still know it.
    let vacant = (0..).map(|n| Ipv4Addr::new(127, 84, 9, n)).find(|ip| ![a, b].contains(ip)).unwrap();
    let reply = Client::connect((vacant, port).into()).await.get("orders", "/", "").await;
    assert_eq!((reply.status, reply.reason().as_str()), (404, "unknown_service"));
    assert!(reply.text().contains(&vacant.to_string()), "{}", reply.text());
    assert!(refused((vacant, own).into()).await);
}

#[tokio::test]
async fn bytes_are_carried_to_the_service_of_the_address() {
    let echo = Origin::scripted(|mut exchange| async move {
        exchange.send(b"hello\n").await;
        let mut bytes = [0; 64];
        while let Ok(n @ 1..) = exchange.stream.read(&mut bytes).await {
            exchange.send(&bytes[..n]).await;
        }
    })
    .await;
    let port = port();
    let sidecar = Sidecar::start(&format!(
        "vip: {{ports: [{}], state: off}}\nservices: {{db: {{static: ['{}'], protocol: tcp, vip: {{ports: [{port}]}}}}}}",
        self::port(),
        echo.addr()
    ))
    .await;
    let mut client = Client::connect((vip(&sidecar, "db").await, port).into()).await;
    assert_eq!(client.exactly(6).await, b"hello\n");
    client.send("ping").await;
    assert_eq!(client.exactly(4).await, b"ping");
    drop(client);
    sidecar.settles("db", &[("ok", 1)]).await;
}

#[tokio::test]
async fn a_port_that_somebody_has_elsewhere_still_serves_the_vips() {
    let a = Origin::answering(ok("a")).await;
    // A web server at one address of the host: the one socket for all addresses cannot be had.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let sidecar =
        Sidecar::start(&format!("vip: {{ports: [{port}], state: off}}\nservices: {{a: {{static: ['{}']}}}}", a.addr()))
            .await;
    assert_eq!(Client::connect((vip(&sidecar, "a").await, port).into()).await.get("x", "/", "").await.text(), "a");
}

#[tokio::test]
async fn reloads_give_and_take_vips_at_once() {
    let a = Origin::answering(ok("a")).await;
    let port = port();
    let yaml = |services: &str| format!("vip: {{ports: [{port}], state: vips.json}}\nservices: {{{services}}}");
    let one = format!("a: {{static: ['{}']}}", a.addr());
    let process = Process::start(&yaml(&one)).await;
    let first = process.view("a").await.entry.vip.unwrap().address;
    assert_eq!(process.reload(&yaml(&format!("{one}, b: {{static: ['{}']}}", a.addr()))).await.status, 200);
    let second = process.view("b").await.entry.vip.unwrap().address;
    assert_eq!(process.view("a").await.entry.vip.unwrap().address, first);
    eventually("the new service to have endpoints", async || {
        Client::connect((second, port).into()).await.get("x", "/", "").await.status == 200
    })
    .await;
    assert_eq!(process.reload(&yaml(&one)).await.status, 200);
    assert_eq!(Client::connect((second, port).into()).await.get("x", "/", "").await.status, 404);
    assert_eq!(Client::connect((first, port).into()).await.get("x", "/", "").await.status, 200);
    // Without VIPs nobody listens any more.
    assert_eq!(process.reload(&format!("services: {{{one}}}")).await.status, 200);
    assert!(TcpStream::connect((first, port)).await.is_err());
    assert_eq!(process.reload(&yaml(&one)).await.status, 200);
    assert_eq!(Client::connect((first, port).into()).await.get("x", "/", "").await.status, 200);
    let remembered = std::fs::read_to_string(process.file("vips.json")).unwrap();
    assert!(remembered.contains(&second.to_string()), "for a day: {remembered}");
}

#[tokio::test]
async fn an_address_is_not_given_away_however_few_there_are() {
    let a = Origin::answering(ok("a")).await;
    let port = port();
    let yaml = |names: &[&str]| {
        let services: Vec<_> = names.iter().map(|name| format!("{name}: {{static: ['{}']}}", a.addr())).collect();
        let services = services.join(", ");
        format!("vip: {{ports: [{port}], range: 127.85.0.0/29, state: vips.json}}\nservices: {{{services}}}")
    };
    let process = Process::start(&yaml(&["a", "b", "c", "d"])).await;
    let first = process.view("a").await.entry.vip.unwrap().address;
    // Two addresses are free, and four were somebody's until now.
    let refused = process.reload(&yaml(&["a", "e", "f", "g"])).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("127.85.0.0/29") && refused.text().contains("vip.range"), "{}", refused.text());
    assert_eq!(Client::connect((first, port).into()).await.get("x", "/", "").await.text(), "a", "all is as it was");
    assert!(process.view("b").await.entry.vip.is_some());
    assert_eq!(process.reload(&yaml(&["a", "e", "f"])).await.status, 200);
    // Who comes back gets its own again.
    let before = process.view("e").await.entry.vip.unwrap().address;
    assert_eq!(process.reload(&yaml(&["a", "b", "c", "d"])).await.status, 200);
    assert_eq!(process.reload(&yaml(&["a", "e"])).await.status, 200);
    assert_eq!(process.view("e").await.entry.vip.unwrap().address, before);
}

/// `outrigger run` with this file, which must not start: its exit code and what it says.
fn fails_to_start(folder: &std::path::Path, yaml: &str) -> (Option<i32>, String) {
    let admin = folder.join("admin.sock");
    let text = format!("listen: {{http: '127.0.0.1:0', observe: '127.0.0.1:0', admin: '{}'}}\n{yaml}", admin.display());
    std::fs::write(folder.join("outrigger.yaml"), text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_outrigger")).arg("run").current_dir(folder).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn what_cannot_be_is_a_clear_error_and_never_another_service() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let port = port();
    let state = path.join("vips.json");
    let yaml = format!("vip: {{ports: [{port}], state: vips.json}}\nservices: {{a: {{static: ['127.0.0.1:9']}}}}");
    for (text, said) in [("{", "EOF"), (r#"{"version":7,"vips":[]}"#, "version 7")] {
        std::fs::write(&state, text).unwrap();
        let (code, told) = fails_to_start(path, &yaml);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("vips.json") && told.contains(said) && told.contains("take it away"), "{told}");
        assert_eq!(std::fs::read_to_string(&state).unwrap(), text, "what is not understood is not touched");
    }
    std::fs::remove_file(&state).unwrap();
    let taken = TcpListener::bind("127.84.7.7:0").unwrap();
    let (taken_port, vip) = (taken.local_addr().unwrap().port(), "{vip: 127.84.7.7, static: ['127.0.0.1:9']}");
    let (code, told) =
        fails_to_start(path, &format!("vip: {{ports: [{taken_port}], state: off}}\nservices: {{a: {vip}}}"));
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains(&format!("127.84.7.7:{taken_port}")) && told.contains("vip: { ports: [...] }"), "{told}");
    let (code, told) = fails_to_start(
        path,
        &format!(
            "vip: {{ports: [{port}], range: 10.84.0.0/16, state: off}}\nservices: {{a: {{static: ['127.0.0.1:9']}}}}"
        ),
    );
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("10.84.") && told.contains("ip route add local"), "{told}");
}

#[tokio::test]
async fn a_state_that_cannot_be_written_is_said_and_nothing_more() {
    let a = Origin::answering(ok("a")).await;
    let yaml = format!(
        "vip: {{ports: [{}], state: outrigger.yaml/vips.json}}\nservices: {{a: {{static: ['{}']}}}}",
        port(),
        a.addr()
    );
    // What cannot be read is another matter: a path below a file is there for nobody.
    let folder = tempfile::tempdir().unwrap();
    let (code, told) = fails_to_start(folder.path(), &yaml);
    assert_eq!(code, Some(1), "{told}");
    let yaml = yaml.replace("outrigger.yaml/vips.json", "/proc/outrigger/vips.json");
    let process = Process::start(&yaml).await;
    assert!(process.view("a").await.entry.vip.is_some());
    assert!(process.log().contains("cannot remember which service has which VIP"), "{}", process.log());
}

#[tokio::test]
async fn hosts_lines_come_from_the_sidecar_or_from_the_file() {
    let a = Origin::answering(ok("a")).await;
    let yaml = format!(
        "vip: {{ports: [{}], state: vips.json, hosts: kept}}\nservices: {{orders: {{static: ['{}'], aliases: [shop]}}, off: {{static: ['{}'], vip: off}}}}",
        port(),
        a.addr(),
        a.addr()
    );
    let process = Process::start(&yaml).await;
    let vip = process.view("orders").await.entry.vip.unwrap().address;
    let line = format!("{vip}\torders.vip.internal orders shop.vip.internal shop\n");
    let (code, out, _) = process.command("hosts").await;
    assert_eq!((code, out.as_str()), (0, line.as_str()));
    let (_, out, _) = process.command("hosts --qualified").await;
    assert_eq!(out, format!("{vip}\torders.vip.internal shop.vip.internal\n"));
    // The sidecar keeps its own, and the command another one, again and again.
    let kept = std::fs::read_to_string(process.file("kept")).unwrap();
    assert!(kept.contains(&line) && kept.starts_with("# BEGIN outrigger"), "{kept}");
    let hosts = process.file("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let write = format!("hosts --write {}", hosts.display());
    for said in ["is up to date now", "was up to date"] {
        let (code, out, _) = process.command(&write).await;
        assert_eq!(code, 0);
        assert!(out.contains(said), "{out}");
        assert_eq!(std::fs::read_to_string(&hosts).unwrap(), format!("127.0.0.1 localhost\n{kept}"));
    }
    let (code, ..) = process.command(&format!("hosts --remove {}", hosts.display())).await;
    assert_eq!((code, std::fs::read_to_string(&hosts).unwrap().as_str()), (0, "127.0.0.1 localhost\n"));
    // A reload brings the file up to date.
    process.reload(&yaml.replace("aliases: [shop]", "aliases: [cart]")).await;
    assert!(std::fs::read_to_string(process.file("kept")).unwrap().contains("cart.vip.internal cart\n"));
    // And one that does not want it any more takes the names out.
    process.reload(&yaml.replace(", hosts: kept", "")).await;
    assert_eq!(std::fs::read_to_string(process.file("kept")).unwrap(), "");
}
