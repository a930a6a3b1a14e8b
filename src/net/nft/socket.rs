//! Telling the kernel, and hearing what became of it.

use std::{
    io::{self, Read as _},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Redirect,
    message::{Batch, words},
    rules,
};

/// AF_NETLINK, and netfilter there.
const NETLINK: i32 = 16;
const NETFILTER: i32 = 12;

/// How long the kernel may take: modules that it has to load for this come from a disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the rules are not as they were to be. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// We may not.
    #[error(
        "the kernel lets nobody change these rules without CAP_NET_ADMIN: run this as root, or grant it (in a \
         container: `cap_add: [NET_ADMIN]` and `user: \"0\"`)"
    )]
    NotAllowed,
    /// The kernel has not got what it takes.
    #[error(
        "this kernel has no nf_tables with NAT ({0}): it needs the modules nf_tables, nft_chain_nat, nft_redir and \
         nft_fib_ipv4"
    )]
    NotThere(io::Error),
    /// The kernel has something else against it.
    #[error("the kernel refuses the rules: {0}")]
    Refused(io::Error),
    /// The kernel cannot be spoken to.
    #[error("the kernel cannot be told of the rules: {0}")]
    Unheard(io::Error),
}

/// Has these rules in place, instead of whatever the table held before; all of them or, on an error, what was.
///
/// # Errors
/// The kernel refuses.
pub fn apply(redirect: &Redirect) -> Result<(), Error> {
    match tell(&rules::apply(redirect))? {
        None => Ok(()),
        Some(error) => Err(refusal(error)),
    }
}

/// Takes the table away; false when there was none.
///
/// # Errors
/// The kernel refuses.
pub fn remove() -> Result<bool, Error> {
    match tell(&rules::remove())? {
        None => Ok(true),
        Some(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Some(error) => Err(refusal(error)),
    }
}

/// Sends a batch; what the kernel has against it.
fn tell(batch: &Batch) -> Result<Option<io::Error>, Error> {
    let socket = Socket::new(Domain::from(NETLINK), Type::RAW, Some(Protocol::from(NETFILTER)));
    let mut socket = socket.map_err(|error| match error.raw_os_error() {
        // EPROTONOSUPPORT and EAFNOSUPPORT: nobody is there to speak to.
        Some(93 | 97) => Error::NotThere(error),
        _ => Error::Unheard(error),
    })?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(Error::Unheard)?;
    // One that was not told whom to send to sends to the kernel.
    socket.send(&batch.bytes).map_err(Error::Unheard)?;
    let mut heard = vec![0; 64 * 1024];
    loop {
        let len = match socket.read(&mut heard) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::Unheard(error)),
        };
        for word in words(&heard[..len]) {
            if word.error != 0 {
                return Ok(Some(io::Error::from_raw_os_error(word.error.wrapping_neg())));
            }
            if word.about == batch.last {
                return Ok(None);
            }
        }
    }
}

fn refusal(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Error::NotAllowed,
        // EOPNOTSUPP without nf_tables, ENOENT without one of the modules that it needs.
        io::ErrorKind::Unsupported | io::ErrorKind::NotFound => Error::NotThere(error),
        _ => Error::Refused(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let of = |errno| refusal(io::Error::from_raw_os_error(errno));
        assert!(matches!(of(1), Error::NotAllowed), "EPERM");
        assert!(matches!(of(95), Error::NotThere(_)), "EOPNOTSUPP");
        assert!(matches!(of(2), Error::NotThere(_)), "ENOENT");
        assert!(matches!(of(16), Error::Refused(_)), "EBUSY");
    }
}
