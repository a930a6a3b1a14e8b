//! A DNS responder in this process, as lookups of this process see it: a server that must not be asked.
//!
//! There are two ways to ask oneself. The short one is resolv.conf, which names the responder so that apps find
//! it: its own addresses are left out of the servers to ask. The long one leads through others, as with Docker,
//! whose resolver is asked by us and asks us for what it does not know: so every query that leaves carries a mark,
//! by which the responder knows it when it comes back.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState},
    net::{IpAddr, SocketAddr, UdpSocket},
};

use hickory_resolver::proto::{
    op::Edns,
    rr::rdata::opt::{EdnsCode, EdnsOption},
};

/// The EDNS option that bears the mark, of the range for local use (RFC 6891 §9).
const OPTION: u16 = 65_390;

/// The responder's address and mark.
#[derive(Debug, Clone)]
pub struct Ourselves {
    listen: SocketAddr,
    id: u64,
}

/// Which of our servers a query was sent to that has come back, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sent {
    relayed: bool,
    server: u64,
}

impl Sent {
    /// To this server; `relayed` says whether it was somebody else's question.
    pub(super) fn to(server: SocketAddr, relayed: bool) -> Self {
        Self { relayed, server: BuildHasherDefault::<DefaultHasher>::default().hash_one(server) }
    }

    /// Whether it was somebody else's question, and no lookup of our own.
    pub fn is_relayed(self) -> bool {
        self.relayed
    }

    /// Whether it was sent to this server.
    pub(super) fn is_to(self, server: SocketAddr) -> bool {
        Self::to(server, self.relayed) == self
    }
}

impl Ourselves {
    /// A responder that listens here, with a mark that no other process has.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, id: RandomState::new().hash_one("mark") }
    }

    /// Whether a server is the responder: its address, or where it listens on all of them, any of this host at its port.
    pub(super) fn is(&self, server: SocketAddr) -> bool {
        if server.port() != self.listen.port() {
            return false;
        }
        let (ours, theirs) = (self.listen.ip().to_canonical(), server.ip().to_canonical());
        ours == theirs
            || theirs.is_unspecified()
            || ours.is_unspecified() && ours.is_ipv4() == theirs.is_ipv4() && is_local(theirs)
    }

    /// The mark of a query to a server.
    pub(super) fn mark(&self, sent: Sent) -> EdnsOption {
        let mut data = self.id.to_be_bytes().to_vec();
        data.extend(sent.server.to_be_bytes());
        data.push(sent.relayed.into());
        EdnsOption::Unknown(OPTION, data)
    }

    /// Whom a query was sent to, if it is one of ours.
    pub fn sent(&self, edns: &Edns) -> Option<Sent> {
        let EdnsOption::Unknown(_, data) = edns.option(EdnsCode::from(OPTION))? else { return None };
        let (id, rest) = data.split_first_chunk()?;
        let (server, rest) = rest.split_first_chunk()?;
        let relayed = match rest {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        (u64::from_be_bytes(*id) == self.id).then(|| Sent { relayed, server: u64::from_be_bytes(*server) })
    }
}

#[cfg(test)]
impl Ourselves {
    /// The mark of a question to a server.
    pub(crate) fn mark_to(&self, server: SocketAddr, relayed: bool) -> EdnsOption {
        self.mark(Sent::to(server, relayed))
    }
}

/// Whether an address is one of this host: what can be bound is.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(listen: &str, server: &str) -> bool {
        Ourselves::new(listen.parse().unwrap()).is(server.parse().unwrap())
    }

    #[test]
    fn a_responder_on_one_address_is_that_address() {
        assert!(is("127.0.0.1:53", "127.0.0.1:53"));
        assert!(is("127.0.0.1:53", "[::ffff:127.0.0.1]:53"));
        assert!(is("127.0.0.1:53", "0.0.0.0:53"), "the kernel takes it for 127.0.0.1");
        assert!(!is("127.0.0.1:53", "127.0.0.1:5353"));
        assert!(!is("127.0.0.1:53", "127.0.0.53:53"));
    }

    #[test]
    fn a_responder_on_every_address_is_any_of_this_host() {
        assert!(is("0.0.0.0:53", "127.0.0.53:53"));
        assert!(is("[::]:53", "[::1]:53"));
        assert!(!is("0.0.0.0:53", "192.0.2.1:53"));
        assert!(!is("0.0.0.0:53", "[::1]:53"));
        assert!(!is("0.0.0.0:8453", "127.0.0.53:53"));
    }

    #[test]
    fn a_mark_is_known_by_its_own_process_alone() {
        let (ours, theirs) = (Ourselves::new(([127, 0, 0, 1], 53).into()), Ourselves::new(([127, 0, 0, 1], 53).into()));
        let marked = |option| {
            let mut edns = Edns::new();
            edns.options_mut().insert(option);
            edns
        };
        let server = ([192, 0, 2, 1], 53).into();
        for relayed in [true, false] {
            let edns = marked(ours.mark_to(server, relayed));
            let sent = ours.sent(&edns).unwrap();
            assert_eq!((sent.is_relayed(), sent.is_to(server)), (relayed, true));
            assert!(!sent.is_to(([192, 0, 2, 2], 53).into()));
            assert_eq!(theirs.sent(&edns), None);
        }
        let of_ours = [&ours.id.to_be_bytes()[..], &[0; 8], &[2]].concat();
        assert_eq!(ours.sent(&marked(EdnsOption::Unknown(OPTION, of_ours))), None);
        for data in [&[][..], &[1; 8], &[1; 16], &[1; 18]] {
            assert_eq!(ours.sent(&marked(EdnsOption::Unknown(OPTION, data.into()))), None);
        }
    }
}
