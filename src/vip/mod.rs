//! Virtual IPs: an address of its own on loopback for each service, stable for good.
//!
//! | what | file |
//! |---|---|
//! | which name has which address: pure | `allocate` |
//! | the file that remembers it | `memory` |
//! | the lines of a hosts file | `hosts` |
//! | the DNS responder, which answers names with addresses | `dns` |
//!
//! [`Addresses`] is the shell round the book: it joins it to the file and to the clock. It lives on the control thread;
//! everybody else sees the addresses in the table of services.

pub mod allocate;
pub mod dns;
pub mod hosts;
pub mod memory;

use std::{
    collections::HashMap,
    io,
    net::Ipv4Addr,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use allocate::{Book, Exhausted, Wish};
use memory::MemoryError;

use crate::{
    config::{self, Config, VipAddress},
    model::ServiceName,
};

/// How often the file is told that addresses are still in use.
const TOUCH: Duration = Duration::from_secs(3600);

/// Who has which address, here and now.
#[derive(Debug, Clone)]
pub struct Addresses {
    book: Book,
    state: Option<PathBuf>,
    /// The book as it was written last.
    written: Option<Book>,
    touched: u64,
    /// Whether it has been said that there are no more addresses for services that are made.
    full: bool,
    /// Whether it has been said that the file cannot be written.
    complained: bool,
}

impl Addresses {
    /// What is remembered, and no address in use.
    ///
    /// # Errors
    /// [`MemoryError`] when the file says nothing to us.
    pub fn open(settings: &config::Vip) -> Result<Self, MemoryError> {
        let remembered = settings.state.as_deref().map_or_else(|| Ok(Vec::new()), memory::read)?;
        let book = Book::new(settings.range, remembered);
        Ok(Self { book, state: settings.state.clone(), written: None, touched: 0, full: false, complained: false })
    }

    /// Gives the services of a configuration their addresses, and these other names theirs. What a configuration says
    /// of the range and the file holds from here on.
    ///
    /// # Errors
    /// There are too few addresses; then nothing has changed.
    pub fn assign(&mut self, config: &Config, others: impl IntoIterator<Item = ServiceName>) -> Result<(), Exhausted> {
        let Some(settings) = &config.vip else { return Ok(()) };
        let wish = |service: &config::Service| {
            let given = match service.vip.address {
                VipAddress::Off => return None,
                VipAddress::Auto => None,
                VipAddress::At(address) => Some(address),
            };
            Some(Wish { name: service.name.clone(), given })
        };
        let declared = config.services.values().filter_map(|service| wish(service));
        let others = others.into_iter().filter(|name| !config.services.contains_key(name));
        let before = self.book.clone();
        // Only those that have one count: a reload does not fail for want of addresses for the rest.
        let has_one = |name: &ServiceName| before.current().get(name).is_some_and(|had| settings.range.contains(had));
        let (others, without): (Vec<_>, Vec<_>) = others.partition(has_one);
        self.book.reach(settings.range);
        let wishes = declared.chain(others.into_iter().map(|name| Wish { name, given: None }));
        if let Err(exhausted) = self.book.assign(wishes, seconds()) {
            self.book = before;
            return Err(exhausted);
        }
        for name in without {
            // Said by the log, and no more.
            let _ = self.add(&name);
        }
        for (name, address) in before.current() {
            if self.book.current().get(name).is_some_and(|now| now != address) {
                tracing::warn!(service = %name, was = %address, "the VIP has moved: its address was given away");
            }
        }
        if self.state != settings.state {
            self.state.clone_from(&settings.state);
            self.written = None;
        }
        Ok(())
    }

    /// Gives one more name an address.
    ///
    /// # Errors
    /// There is none left.
    pub fn add(&mut self, name: &ServiceName) -> Result<Ipv4Addr, Exhausted> {
        let added = self.book.add(name, seconds());
        match &added {
            Ok(_) => self.full = false,
            Err(error) if !std::mem::replace(&mut self.full, true) => {
                tracing::warn!(service = %name, %error, "services of `*` have no VIPs for now");
            }
            Err(_) => {}
        }
        added
    }

    /// Takes a name's address back.
    pub fn release(&mut self, name: &ServiceName) {
        self.book.release(name, seconds());
    }

    /// The addresses in use.
    pub fn current(&self) -> &HashMap<ServiceName, Ipv4Addr> {
        self.book.current()
    }

    /// Whose an address was, if not whose it is.
    pub fn last_of(&self, address: Ipv4Addr) -> Option<&ServiceName> {
        self.book.entries().get(&address).map(|entry| &entry.name)
    }

    /// Writes what has changed, and once an hour that it has not. A file that cannot be written is reported once, and
    /// tried again each time.
    pub fn remember(&mut self) {
        let Some(path) = &self.state else { return };
        let now = seconds();
        if now.saturating_sub(self.touched) >= TOUCH.as_secs() {
            self.book.touch(now);
            self.touched = now;
        }
        if self.written.as_ref().is_some_and(|written| written.entries() == self.book.entries()) {
            return;
        }
        match memory::write(path, &self.book) {
            Ok(()) => (self.written, self.complained) = (Some(self.book.clone()), false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if !std::mem::replace(&mut self.complained, true) => tracing::warn!(
                path = %path.display(), %error,
                "cannot remember which service has which VIP (vip.state): names that collide may change addresses \
                 when the sidecar restarts"
            ),
            Err(_) => {}
        }
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
