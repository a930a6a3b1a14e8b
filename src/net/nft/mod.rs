//! The one firewall table that is ours: rules that redirect an app's outgoing connections to the sidecar.
//!
//! The image has no `nft` in it, and a step that only sets rules should not need another image: so the kernel is told by
//! netlink, directly. What is to be so is a [`Redirect`]; `script` writes it as a person would, for `nft -f -`, and
//! `rules` as the kernel reads it, in `message`s; `socket` sends those and hears what became of them. The two ways say
//! the same: the bytes are the ones that `nft` sends for that script, and a test holds this.
//!
//! All of it stands in a table of its own, so that nothing of anybody else's is read, changed or relied upon; it is
//! replaced and removed as a whole, in one step, whatever it held before.
//!
//! Left out: IPv6 (a table of the family `ip6` and a listener of its own), UDP, and whatever arrives from other hosts.

mod message;
mod rules;
mod script;
mod socket;

pub use socket::{Error, apply, remove};

/// The table's name, of the family `ip`.
pub const TABLE: &str = "outrigger";

/// The name of its only chain.
const CHAIN: &str = "output";

/// Where in the order of hooks it stands: before what others translate (-100), since what they have given another
/// destination (a cluster's own service addresses, say) would not come by any more.
const PRIORITY: i32 = -110;

/// Ports that may be redirected: as many rules as surely fit into the one message that a socket takes.
pub const MOST_PORTS: usize = 500;

/// Which connections go to the sidecar instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Those to these ports, [`MOST_PORTS`] at most.
    pub ports: Vec<u16>,
    /// The port of this host, on 127.0.0.1, where they arrive.
    pub to: u16,
    /// But not this user's.
    pub but_user: Option<u32>,
    /// But not those that bear this mark.
    pub but_mark: Option<u32>,
}
