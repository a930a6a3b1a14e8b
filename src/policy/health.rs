//! Active health checks: what do questions of our own say about an endpoint?

use std::time::Duration;

/// How endpoints are asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What is asked.
    pub probe: Probe,
    /// The pause between two checks of one endpoint. Default 2 s.
    pub every: Duration,
    /// How long one check may take. Default 1 s.
    pub timeout: Duration,
    /// Good checks in a row that bring an endpoint back. Default 2.
    pub healthy: u32,
    /// Failed checks in a row that take it out. Default 3.
    pub unhealthy: u32,
}

/// What an endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Whether it accepts a connection.
    Tcp,
    /// A GET of this path must be answered 2xx.
    Http(String),
    /// `grpc.health.v1.Health/Check` of this service must say SERVING; empty is the server as a whole.
    Grpc(String),
}

/// What the last checks of one endpoint said. It starts as healthy: whoever is new is welcome until it fails.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record {
    is_down: bool,
    /// Checks in a row that said the opposite.
    run: u32,
}

impl Record {
    /// A check has ended; what that changes: up, or down.
    pub fn record(&mut self, settings: &Settings, good: bool) -> Option<bool> {
        if good != self.is_down {
            self.run = 0;
            return None;
        }
        self.run += 1;
        let enough = if good { settings.healthy } else { settings.unhealthy };
        if self.run < enough {
            return None;
        }
        (self.is_down, self.run) = (!good, 0);
        Some(good)
    }

    /// Whether checks have found it down, and not up again since.
    pub fn is_down(&self) -> bool {
        self.is_down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_row_change_it() {
        let settings = Settings {
            probe: Probe::Tcp,
            every: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            healthy: 2,
            unhealthy: 3,
        };
        let mut record = Record::default();
        let said: Vec<_> = [true, false, false, true, false, false, false, false, true, false, true, true, true]
            .map(|good| record.record(&settings, good))
            .into_iter()
            .enumerate()
            .filter_map(|(n, change)| Some((n, change?)))
            .collect();
        assert_eq!(said, [(6, false), (11, true)]);
        assert!(!record.is_down());
    }
}
