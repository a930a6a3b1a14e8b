//! Who plays in the demo: three services, what each is like, and the policies that they need.
//!
//! The limits follow from the rate, so that the same happens at 20 calls a second as at 1,000: the
//! slow service's bulkhead has room for its good days and not for its bad ones, and the flaky one's
//! breaker looks back over two seconds, as nobody wants to watch ten.

use std::{fmt::Write, net::SocketAddr, path::Path, time::Duration};

use super::character::Character;

/// A service of the demo.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Role {
    /// Its name.
    pub name: &'static str,
    /// What its upstreams are like.
    pub character: Character,
    /// How many endpoints it has.
    pub endpoints: usize,
    /// How long the sidecar lets a call to it take.
    pub timeout: Duration,
    /// Whether it is called by gRPC.
    pub grpc: bool,
}

/// The three of them.
pub(crate) const CAST: [Role; 3] = [
    Role {
        name: "catalog",
        character: Character::Steady,
        endpoints: 3,
        timeout: Duration::from_millis(250),
        grpc: false,
    },
    Role {
        name: "payments",
        character: Character::Flaky,
        endpoints: 2,
        timeout: Duration::from_millis(250),
        grpc: false,
    },
    Role { name: "search", character: Character::Slow, endpoints: 2, timeout: Duration::from_secs(1), grpc: true },
];

/// Whether the service of this name is called by gRPC.
pub(crate) fn is_grpc(name: &str) -> bool {
    CAST.iter().any(|role| role.name == name && role.grpc)
}

impl Role {
    /// Calls that may be outstanding, where that is not the default's business.
    ///
    /// At 700 ms a call, 0.7 × rate calls would be outstanding; at 120 ms, 0.12 × rate.
    pub(crate) fn bulkhead(&self, rate: u32) -> Option<u32> {
        (self.character == Character::Slow).then(|| (rate * 2 / 5).max(2))
    }

    fn policies(&self, rate: u32) -> String {
        let mut text = format!("timeout: {}ms", self.timeout.as_millis());
        if let Some(max) = self.bulkhead(rate) {
            let _ = write!(text, ", bulkhead: {max}");
        }
        if self.character == Character::Flaky {
            let min_calls = (rate / 5).clamp(1, 20);
            let _ = write!(text, ", breaker: {{ window: 2s, min_calls: {min_calls}, open_for: 1s }}");
        }
        text
    }
}

/// The sidecar's whole configuration, with the endpoints that the upstreams got.
pub(crate) fn yaml(
    rate: u32,
    http: SocketAddr,
    observe: SocketAddr,
    admin: &Path,
    endpoints: &[Vec<SocketAddr>],
) -> String {
    // Text in JSON's quotes is text in YAML's double quotes as well.
    let admin = serde_json::Value::from(admin.to_string_lossy());
    let mut yaml = format!("listen: {{ http: \"{http}\", observe: \"{observe}\", admin: {admin} }}\n");
    yaml.push_str("log: { level: warn }\ndrain: { for: 1s }\nservices:\n");
    for (role, endpoints) in CAST.iter().zip(endpoints) {
        let list: Vec<_> = endpoints.iter().map(|addr| format!("\"{addr}\"")).collect();
        let policies = role.policies(rate);
        let _ = writeln!(yaml, "  {}: {{ static: [{}], {policies} }}", role.name, list.join(", "));
    }
    yaml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_a_line_a_service() {
        let addr = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let endpoints = [vec![addr(1), addr(2)], vec![addr(3)], vec![addr(4)]];
        let yaml = yaml(100, addr(0), addr(0), Path::new("/tmp/a \"b\".sock"), &endpoints);
        let expected = r#"listen: { http: "127.0.0.1:0", observe: "127.0.0.1:0", admin: "/tmp/a \"b\".sock" }
log: { level: warn }
drain: { for: 1s }
services:
  catalog: { static: ["127.0.0.1:1", "127.0.0.1:2"], timeout: 250ms }
  payments: { static: ["127.0.0.1:3"], timeout: 250ms, breaker: { window: 2s, min_calls: 20, open_for: 1s } }
  search: { static: ["127.0.0.1:4"], timeout: 1000ms, bulkhead: 40 }
"#;
        assert_eq!(yaml, expected);
        let loaded = crate::config::Config::parse("demo", &yaml, &|_| None).unwrap();
        assert_eq!((loaded.config.services.len(), loaded.warnings.len()), (3, 0));
    }

    #[test]
    fn a_bad_day_needs_more_places_than_the_bulkhead_has_at_any_rate() {
        for rate in [5, 20, 100, 1_000] {
            let max = f64::from(CAST[2].bulkhead(rate).unwrap());
            assert!(0.12 * f64::from(rate) < max && max < 0.7 * f64::from(rate), "{rate} calls/s, {max} places");
        }
    }
}
