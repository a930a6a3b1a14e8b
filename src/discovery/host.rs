//! The addresses of one host, over time: what the `dns` source watches, and what an SRV target stands for.
//!
//! A and AAAA are two questions. Where one is answered and the other fails, the first answer counts, and
//! the failed family keeps what it said last: a middlebox that eats AAAA must not take the A records
//! along, nor must one lost packet halve a dual-stack pool.
//!
//! Where a host has both kinds and this machine can reach only one of them (containers seldom have IPv6,
//! names outside mostly do), the other is left out: half of all calls would go nowhere.

use std::{net::IpAddr, time::Duration};

use crate::net::{
    resolve::{Addresses, Answer, Question, Resolver},
    tcp::has_route,
};

/// A host, and what its families said last.
#[derive(Debug, Clone)]
pub(super) struct Host {
    question: Question,
    known: Known,
}

#[derive(Debug, Clone, Default)]
struct Known {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
}

/// What a look at a host came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resolved {
    /// At least one address.
    Addresses {
        addresses: Vec<IpAddr>,
        ttl: Duration,
        /// What is wrong with one of the families.
        problem: Option<String>,
    },
    /// There is none, and why.
    Gone(String),
    /// Nobody knows, and why.
    Failed(String),
}

impl Host {
    pub(super) fn new(host: &str) -> Self {
        Self { question: Question::new(host), known: Known::default() }
    }

    /// Asks for both families.
    pub(super) async fn look(&mut self, resolver: &Resolver) -> Resolved {
        let answer = resolver.addresses(&mut self.question).await;
        match self.known.hear(answer) {
            Resolved::Addresses { ttl, problem, .. } => {
                self.known.leave_out_unreachable(has_route);
                Resolved::Addresses { addresses: self.known().collect(), ttl, problem }
            }
            nothing => nothing,
        }
    }

    /// Takes addresses that came unasked, with an SRV answer.
    pub(super) fn remember(&mut self, addresses: &[IpAddr]) {
        (self.known.v4, self.known.v6) = addresses.iter().partition(|a| a.is_ipv4());
        self.known.leave_out_unreachable(has_route);
    }

    /// What was known before, for when a look has failed.
    pub(super) fn known(&self) -> impl Iterator<Item = IpAddr> {
        self.known.v4.iter().chain(&self.known.v6).copied()
    }
}

impl Known {
    /// Drops a family that this machine cannot reach, if the other is there.
    fn leave_out_unreachable(&mut self, has_route: impl Fn(IpAddr) -> bool) {
        let (Some(v4), Some(v6)) = (self.v4.first().copied(), self.v6.first().copied()) else { return };
        if !has_route(v6) {
            self.v6.clear();
        } else if !has_route(v4) {
            self.v4.clear();
        }
    }

    fn hear(&mut self, answer: Addresses) -> Resolved {
        let problem = match (&answer.v4, &answer.v6) {
            (Answer::Failed(v4), Answer::Failed(v6)) if v4 == v6 => return Resolved::Failed(v4.why.to_string()),
            (Answer::Failed(v4), Answer::Failed(v6)) => {
                return Resolved::Failed(format!("A: {}, AAAA: {}", v4.why, v6.why));
            }
            (Answer::Failed(failure), _) => Some(format!("A: {}", failure.why)),
            (_, Answer::Failed(failure)) => Some(format!("AAAA: {}", failure.why)),
            _ => None,
        };
        let ttl = match (&answer.v4, &answer.v6) {
            (Answer::Found { ttl: a, .. }, Answer::Found { ttl: b, .. }) => *a.min(b),
            (Answer::Found { ttl, .. }, _) | (_, Answer::Found { ttl, .. }) => *ttl,
            // One family says no and the other nothing: the name may live in the one that cannot be asked.
            (no, also_no) => {
                return match problem {
                    Some(problem) => Resolved::Failed(problem),
                    None => {
                        *self = Self::default();
                        let nxdomain = matches!((no, also_no), (Answer::NoName, Answer::NoName));
                        Resolved::Gone(if nxdomain { "NXDOMAIN" } else { "no A or AAAA records" }.into())
                    }
                };
            }
        };
        for (known, answer) in [(&mut self.v4, answer.v4), (&mut self.v6, answer.v6)] {
            match answer {
                Answer::Found { records, .. } => *known = records,
                Answer::NoRecords | Answer::NoName => known.clear(),
                Answer::Failed(_) => {}
            }
        }
        let addresses = self.v4.iter().chain(&self.v6).copied().collect();
        Resolved::Addresses { addresses, ttl, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::resolve::Failure;

    const TTL: Duration = Duration::from_secs(600);

    fn found(addr: &str) -> Answer<IpAddr> {
        Answer::Found { records: vec![addr.parse().unwrap()], ttl: TTL }
    }

    fn failed() -> Answer<IpAddr> {
        Answer::Failed(Failure { why: "SERVFAIL".into(), silence: false })
    }

    fn addresses(of: &[&str], problem: Option<&str>) -> Resolved {
        let addresses = of.iter().map(|a| a.parse().unwrap()).collect();
        Resolved::Addresses { addresses, ttl: TTL, problem: problem.map(Into::into) }
    }

    #[test]
    fn a_family_that_cannot_be_reached_is_left_out_unless_it_is_all_there_is() {
        let [v4, v6]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let left = |v4s: &[IpAddr], v6s: &[IpAddr], route: fn(IpAddr) -> bool| {
            let mut known = Known { v4: v4s.to_vec(), v6: v6s.to_vec() };
            known.leave_out_unreachable(route);
            (known.v4, known.v6)
        };
        assert_eq!(left(&[v4], &[v6], |ip| ip.is_ipv4()), (vec![v4], vec![]));
        assert_eq!(left(&[v4], &[v6], |ip| ip.is_ipv6()), (vec![], vec![v6]));
        assert_eq!(left(&[v4], &[v6], |_| true), (vec![v4], vec![v6]));
        assert_eq!(left(&[v4], &[v6], |_| false), (vec![v4], vec![]), "something must be tried");
        assert_eq!(left(&[], &[v6], |_| false), (vec![], vec![v6]));
    }

    #[test]
    fn one_family_does_without_the_other() {
        let v4 = "10.0.0.1";
        let v6 = "fd00::1";
        let fresh = |v4, v6| Known::default().hear(Addresses { v4, v6 });
        assert_eq!(fresh(found(v4), Answer::NoRecords), addresses(&[v4], None));
        assert_eq!(fresh(Answer::NoRecords, found(v6)), addresses(&[v6], None));
        assert_eq!(fresh(found(v4), found(v6)), addresses(&[v4, v6], None));
        assert_eq!(fresh(found(v4), failed()), addresses(&[v4], Some("AAAA: SERVFAIL")));
        assert_eq!(fresh(failed(), found(v6)), addresses(&[v6], Some("A: SERVFAIL")));
        // Some servers deny the whole name when they only mean that it has no AAAA (RFC 4074 §4.2).
        assert_eq!(fresh(found(v4), Answer::NoName), addresses(&[v4], None));
        assert_eq!(fresh(failed(), Answer::NoName), Resolved::Failed("A: SERVFAIL".into()));
        assert_eq!(fresh(failed(), failed()), Resolved::Failed("SERVFAIL".into()));
        assert_eq!(fresh(Answer::NoName, Answer::NoName), Resolved::Gone("NXDOMAIN".into()));
        assert_eq!(fresh(Answer::NoRecords, Answer::NoName), Resolved::Gone("no A or AAAA records".into()));
    }

    #[test]
    fn a_family_that_fails_keeps_what_it_said_last() {
        let mut known = Known::default();
        known.hear(Addresses { v4: found("10.0.0.1"), v6: found("fd00::1") });
        let half = known.hear(Addresses { v4: found("10.0.0.2"), v6: failed() });
        assert_eq!(half, addresses(&["10.0.0.2", "fd00::1"], Some("AAAA: SERVFAIL")));
        let gone = known.hear(Addresses { v4: found("10.0.0.2"), v6: Answer::NoRecords });
        assert_eq!(gone, addresses(&["10.0.0.2"], None));
        let failed_again = known.hear(Addresses { v4: found("10.0.0.2"), v6: failed() });
        assert_eq!(failed_again, addresses(&["10.0.0.2"], Some("AAAA: SERVFAIL")));
    }
}
