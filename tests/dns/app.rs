//! The responder as a part of a sidecar.

use hickory_resolver::proto::rr::RecordType;
use outrigger::{app, config::Config, vip::dns};

use super::support::{Udp, query, short};

/// A sidecar's configuration with its responder there.
fn config(folder: &tempfile::TempDir, dns: &str) -> Config {
    let admin = folder.path().join("admin.sock");
    let yaml = format!(
        "listen: {{ http: 0, observe: 0, admin: '{}', dns: '{dns}' }}\nvip: {{ state: off, ports: [1] }}\ndns: {{ forward: off }}\n\
         services: {{ hidden: {{ static: ['127.0.0.1:9'], vip: off }} }}",
        admin.display()
    );
    Config::parse("t.yaml", &yaml, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).config
}

#[tokio::test]
async fn a_sidecar_answers_names_until_it_has_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = app::Sidecar::start(config(&folder, "127.0.0.1:0")).unwrap();
    let address = sidecar.addresses().dns.unwrap();
    let udp = Udp::to(address).await;
    assert_eq!(short(&udp.ask(&query("hidden.vip.internal.", RecordType::A)).await), "NOERROR");
    assert_eq!(short(&udp.ask(&query("users.vip.internal.", RecordType::A)).await), "NXDOMAIN");
    assert_eq!(short(&udp.ask(&query("www.example.com.", RecordType::A)).await), "REFUSED");
    tokio::task::spawn_blocking(|| sidecar.stop()).await.unwrap();
    assert!(dns::bind(address).is_ok(), "its port is free again");
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let taken = dns::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let error = app::Sidecar::start(config(&folder, &taken.address().to_string())).unwrap_err().to_string();
    assert!(error.contains(&taken.address().to_string()) && error.contains("listen.dns"), "{error}");
    // UDP alone is enough to be in the way: systemd-resolved has both.
    let (udp, config) = (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), |dns: &str| config(&folder, dns));
    let error = app::Sidecar::start(config(&udp.local_addr().unwrap().to_string())).unwrap_err().to_string();
    assert!(error.contains("listen.dns") && error.contains("another process has it"), "{error}");
}
