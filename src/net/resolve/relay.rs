//! Somebody else's question, passed on as it is: no search list, no aliases followed, the answer given back whole.

use std::time::Duration;

use hickory_resolver::proto::{
    op::{Query, ResponseCode},
    rr::Record,
};
use tokio::time::{Instant, timeout};

use super::{
    Failure, Resolver, Sent,
    server::{Asked, Reply},
};

/// How much longer than its servers' time-outs a relay waits at most, should those fail to end.
const MERCY: Duration = Duration::from_secs(1);

/// A question to pass on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Relay {
    /// Name, type and class.
    pub query: Query,
    /// Whether signatures are wanted (DO, RFC 3225).
    pub dnssec_ok: bool,
    /// Whether answers are wanted that the server holds for forged (CD, RFC 4035 §3.2.2).
    pub checking_disabled: bool,
    /// The server that asks us this because we have asked it: it is not asked again, or it would wait for itself.
    pub except: Option<Sent>,
}

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Relayed {
    /// NOERROR or NXDOMAIN; whatever else a server says is a [`Failure`].
    pub code: ResponseCode,
    /// Records of the answer section, as they came.
    pub answers: Vec<Record>,
    /// Records of the authority section, as they came.
    pub authorities: Vec<Record>,
}

impl Resolver {
    /// Asks one server after the other until one knows. Takes little longer than the resolver's time-out. The caller
    /// limits how many are under way.
    ///
    /// # Errors
    /// [`Failure`] when none of them knows.
    pub async fn relay(&self, relay: &Relay) -> Result<Relayed, Failure> {
        let roster = self.roster();
        let asked = Asked {
            query: relay.query.clone(),
            dnssec_ok: relay.dnssec_ok,
            checking_disabled: relay.checking_disabled,
            relayed: true,
            except: relay.except,
        };
        let deadline = Instant::now() + self.0.timeout;
        let reply = timeout(self.0.timeout + MERCY, roster.ask(&asked, deadline)).await;
        let none = |code, authorities| Relayed { code, answers: Vec::new(), authorities };
        match reply.unwrap_or_else(|_| Err(Failure::silent("no answer in time")))? {
            Reply::Message(message) => Ok(Relayed {
                code: message.metadata.response_code,
                answers: message.answers,
                authorities: message.authorities,
            }),
            Reply::NoRecords(authorities) => Ok(none(ResponseCode::NoError, authorities)),
            Reply::NoName(authorities) => Ok(none(ResponseCode::NXDomain, authorities)),
        }
    }

    /// Whether there is anybody to ask but ourselves.
    pub fn has_servers(&self) -> bool {
        !self.roster().is_empty()
    }

    /// A query of ours has come back: the server that it was sent to asks us in turn. If it has had no answer of its own
    /// for a while, it is not asked for a while.
    pub fn looped(&self, sent: Sent) {
        self.roster().looped(sent, Instant::now());
    }
}
