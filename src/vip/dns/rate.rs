//! How many answers a network of other hosts is sent over UDP: a question there may bear a forged address, and the
//! answer then hits somebody who never asked.
//!
//! Over the limit, every second question is answered with "ask over TCP", which is no longer than the question itself:
//! whoever is really there does, whoever is forged cannot. This host's own clients are not limited, and neither is TCP.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Networks that are told apart at once; what more there are share one limit.
const NETWORKS: usize = 4096;
/// How long a network has to be quiet to be forgotten: its answers are all there again.
const QUIET: Duration = Duration::from_secs(1);

/// What becomes of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is answered.
    Answer,
    /// It is sent to TCP.
    Truncate,
    /// It is dropped.
    Drop,
}

/// The networks that have asked of late.
#[derive(Debug, Default)]
pub(super) struct Rates {
    buckets: HashMap<IpAddr, Bucket, foldhash::fast::RandomState>,
    others: Option<Bucket>,
    swept: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Answers that are left.
    left: f64,
    at: Instant,
    /// Whether the next question over the limit is sent to TCP.
    truncate: bool,
}

impl Rates {
    /// Admits a question of a client, at `rate` answers a second, or as many at once.
    pub(super) fn admit(&mut self, client: IpAddr, rate: u32, now: Instant) -> Admission {
        let network = network(client);
        let fresh = Bucket { left: rate.into(), at: now, truncate: true };
        if self.buckets.len() >= NETWORKS && !self.buckets.contains_key(&network) {
            self.sweep(now);
        }
        let bucket = match self.buckets.len() >= NETWORKS && !self.buckets.contains_key(&network) {
            true => self.others.get_or_insert(fresh),
            false => self.buckets.entry(network).or_insert(fresh),
        };
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + since * f64::from(rate)).min(rate.into());
        bucket.at = now;
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Admission::Answer;
        }
        let truncate = bucket.truncate;
        bucket.truncate = !truncate;
        if truncate { Admission::Truncate } else { Admission::Drop }
    }

    /// Forgets who is quiet; now and then, since it looks at all of them.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_none_or(|at| now.saturating_duration_since(at) >= QUIET / 4) {
            self.swept = Some(now);
            self.buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < QUIET);
        }
    }
}

/// The network of a client: what one customer of a provider can choose addresses from.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            [a, b, c, 0].into()
        }
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 72 << 72).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Admission::{Answer, Drop, Truncate};

    fn now() -> Instant {
        crate::service::now()
    }

    #[test]
    fn over_the_rate_every_second_question_is_sent_to_tcp() {
        let (mut rates, start) = (Rates::default(), now());
        let client = "192.0.2.7".parse().unwrap();
        let mut ask = |after| rates.admit(client, 3, start + Duration::from_millis(after));
        assert_eq!([0; 7].map(&mut ask), [Answer, Answer, Answer, Truncate, Drop, Truncate, Drop]);
        assert_eq!([340, 340, 680, 680].map(&mut ask), [Answer, Truncate, Answer, Drop]);
        assert_eq!(
            [60_000; 4].map(ask),
            [Answer, Answer, Answer, Truncate],
            "no more than a second's worth is saved up"
        );
    }

    #[test]
    fn a_network_shares_its_rate_and_others_have_their_own() {
        let (mut rates, start) = (Rates::default(), now());
        let mut ask = |client: &str| rates.admit(client.parse().unwrap(), 1, start);
        assert_eq!(ask("192.0.2.7"), Answer);
        assert_eq!(ask("192.0.2.8"), Truncate);
        assert_eq!(ask("::ffff:192.0.2.9"), Drop);
        assert_eq!(ask("192.0.3.7"), Answer);
        assert_eq!(ask("2001:db8:1:2300::1"), Answer);
        assert_eq!(ask("2001:db8:1:23ff::1"), Truncate);
        assert_eq!(ask("2001:db8:1:2400::1"), Answer);
    }

    #[test]
    fn forged_networks_without_end_fill_no_memory_and_share_one_limit() {
        let (mut rates, start) = (Rates::default(), now());
        let client = |i: u32| IpAddr::from((0x0a00_0000 + (i << 8)).to_be_bytes());
        let answered = |rates: &mut Rates, clients: std::ops::Range<u32>, at| {
            clients.filter(|i| rates.admit(client(*i), 5, at) == Answer).count()
        };
        let networks = NETWORKS as u32;
        assert_eq!(answered(&mut rates, 0..networks, start), NETWORKS);
        assert_eq!(answered(&mut rates, networks..60_000, start), 5);
        assert_eq!(rates.buckets.len(), NETWORKS);
        assert_eq!(rates.admit(client(0), 5, start), Answer, "who was there is not crowded out");
        let later = start + QUIET;
        assert_eq!(answered(&mut rates, 60_000..60_100, later), 100, "quiet ones make room");
        assert_eq!(rates.buckets.len(), 100);
    }
}
