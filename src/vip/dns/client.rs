//! Who asked, and the way back to it.

use std::net::{IpAddr, SocketAddr};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{message, udp::Udp};
use crate::config::is_of_this_host;
use hickory_resolver::proto::op::Message;

/// The longest message that TCP carries.
const LONGEST: usize = u16::MAX as usize;

/// A reply on its way to a TCP connection, with the place that it takes there until it is written.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    pub(super) _place: OwnedSemaphorePermit,
}

/// Who asked a question.
#[derive(Debug)]
pub(super) enum Client {
    /// A datagram's sender.
    Udp {
        /// Its address.
        peer: SocketAddr,
        /// The address of ours that it sent to, from which the reply must come.
        local: Option<IpAddr>,
    },
    /// A connection.
    Tcp {
        /// Its address.
        peer: SocketAddr,
        /// Where replies are written from. There is room for each that has a place.
        replies: mpsc::Sender<Outgoing>,
        /// The question's place among those that are not answered yet.
        place: OwnedSemaphorePermit,
    },
}

impl Client {
    /// Its address.
    pub(super) fn address(&self) -> IpAddr {
        match self {
            Self::Udp { peer, .. } | Self::Tcp { peer, .. } => peer.ip(),
        }
    }

    /// Whether it may be somebody else than it says: of another host, by datagram.
    pub(super) fn may_be_forged(&self) -> bool {
        matches!(self, Self::Udp { .. }) && !is_of_this_host(self.address())
    }

    /// Sends it the reply to a query. One that cannot be sent at once is lost, as datagrams are: it is asked for again.
    pub(super) fn reply(self, query: &Message, reply: &Message, udp: &Udp) {
        let limit = match self {
            Self::Udp { .. } => message::limit(query),
            Self::Tcp { .. } => LONGEST,
        };
        self.send(message::write(reply, limit), udp);
    }

    /// Sends it these bytes.
    pub(super) fn send(self, bytes: Vec<u8>, udp: &Udp) {
        match self {
            Self::Udp { peer, local } => udp.send(&bytes, peer, local),
            Self::Tcp { replies, place, .. } => drop(replies.try_send(Outgoing { bytes, _place: place })),
        }
    }
}
