//! Which name has which address: pure.
//!
//! An address that moves sends an app's calls to the wrong service, for as long as the app remembers it. So a name's
//! address follows from the name alone, by a hash into the range: the same on every host, without anybody to ask.
//! Two names may want the same address. Then the first by alphabet gets it and the other one looks for its next
//! choice; and since a third name may come in between later, whoever has an address keeps it: that is what the
//! [`Book`] remembers. An address that was somebody's is nobody else's for a day.
//!
//! Left out: the file that keeps the book (`memory`), and clocks; times are given.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
    time::Duration,
};

use ipnet::Ipv4Net;

use crate::model::ServiceName;

/// How long nobody else gets an address that was in use. A day, and an hour more since the book is brought up to
/// date once an hour.
pub const RESERVED: Duration = Duration::from_secs(25 * 3600);

/// Choices of its own that a name has before it takes the next address that is free.
const CHOICES: u64 = 32;

/// Whose an address is, or was until lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: ServiceName,
    /// When the name last had the address, in seconds since 1970.
    pub seen: u64,
}

/// A name that wants an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wish {
    /// The name.
    pub name: ServiceName,
    /// The address that it is given by the operator; `None` leaves it to the name.
    pub given: Option<Ipv4Addr>,
}

/// There are more names than addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no address in {range} is left for {name:?}: all of them are in use, or were within a day; take a larger `vip.range`"
)]
pub struct Exhausted {
    range: Ipv4Net,
    name: ServiceName,
}

/// Who has which address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Book {
    range: Ipv4Net,
    entries: BTreeMap<Ipv4Addr, Entry>,
    /// The names that have an address now.
    current: HashMap<ServiceName, Ipv4Addr>,
}

impl Book {
    /// A book in which nobody has an address now, but these had one.
    pub fn new(range: Ipv4Net, remembered: impl IntoIterator<Item = (Ipv4Addr, Entry)>) -> Self {
        Self { range, entries: remembered.into_iter().collect(), current: HashMap::new() }
    }

    /// Takes addresses from another range from now on.
    pub fn reach(&mut self, range: Ipv4Net) {
        self.range = range;
    }

    /// Whose each address is, or was.
    pub fn entries(&self) -> &BTreeMap<Ipv4Addr, Entry> {
        &self.entries
    }

    /// The names that have an address now.
    pub fn current(&self) -> &HashMap<ServiceName, Ipv4Addr> {
        &self.current
    }

    /// Gives each of these names an address, and takes those of all others back.
    ///
    /// # Errors
    /// [`Exhausted`] when there are too few; then nothing has changed.
    pub fn assign(&mut self, wishes: impl IntoIterator<Item = Wish>, now: u64) -> Result<(), Exhausted> {
        let mut next = self.clone();
        next.expire(now);
        // Who leaves had the address until now.
        next.touch(now);
        next.current.clear();
        let wishes: BTreeSet<Wish> = wishes.into_iter().collect();
        let (given, auto): (Vec<_>, Vec<_>) = wishes.into_iter().partition(|wish| wish.given.is_some());
        for Wish { name, given } in given {
            if let Some(address) = given {
                next.enter(name, address, now);
            }
        }
        let had = next.had();
        let mut without = Vec::new();
        for Wish { name, .. } in auto {
            match had.get(&name).filter(|address| next.is_free_for(**address, &name)) {
                Some(address) => next.enter(name, *address, now),
                None => without.push(name),
            }
        }
        // Every name that is alone with its first choice gets that, whatever the others come to: a collision of two
        // must not move a third.
        let (first, later): (Vec<_>, Vec<_>) = {
            let mut taken = BTreeSet::new();
            without.into_iter().partition(|name| {
                let choice = choice(next.range, name, 0);
                next.is_free_for(choice, name) && taken.insert(choice)
            })
        };
        for name in first {
            let address = choice(next.range, &name, 0);
            next.enter(name, address, now);
        }
        for name in later {
            let address = next.search(&name)?;
            next.enter(name, address, now);
        }
        *self = next;
        Ok(())
    }

    /// Gives one more name an address, or tells the one that it has. Names that come this way are made up by whoever
    /// calls: they get new addresses from half of the range, so that there are some for names that are declared later.
    ///
    /// # Errors
    /// [`Exhausted`] when there is none left.
    pub fn add(&mut self, name: &ServiceName, now: u64) -> Result<Ipv4Addr, Exhausted> {
        if let Some(address) = self.current.get(name) {
            return Ok(*address);
        }
        self.expire(now);
        let had = self.last_address_of(name).filter(|address| self.is_free_for(*address, name));
        if had.is_none() && self.entries.len() as u64 >= size(self.range) / 2 {
            return Err(Exhausted { range: self.range, name: name.clone() });
        }
        let address = had.map_or_else(|| self.search(name), Ok)?;
        self.enter(name.clone(), address, now);
        Ok(address)
    }

    /// Takes a name's address back; it is kept for the name for a day.
    pub fn release(&mut self, name: &ServiceName, now: u64) {
        if let Some(address) = self.current.remove(name)
            && let Some(entry) = self.entries.get_mut(&address)
        {
            entry.seen = now;
        }
    }

    /// Notes that every address that somebody has is still in use.
    pub fn touch(&mut self, now: u64) {
        for address in self.current.values() {
            if let Some(entry) = self.entries.get_mut(address) {
                entry.seen = now;
            }
        }
    }

    /// Forgets who has not had an address for long enough.
    fn expire(&mut self, now: u64) {
        let current = &self.current;
        self.entries.retain(|address, entry| {
            // A clock that was set back knows nothing of how long it has been.
            entry.seen = entry.seen.min(now);
            current.get(&entry.name) == Some(address) || now - entry.seen < RESERVED.as_secs()
        });
    }

    /// The address that each name had last.
    fn had(&self) -> HashMap<ServiceName, Ipv4Addr> {
        let mut last: HashMap<ServiceName, (u64, Ipv4Addr)> = HashMap::new();
        for (address, entry) in self.entries.iter().filter(|(address, _)| self.range.contains(*address)) {
            let found = last.entry(entry.name.clone()).or_insert((entry.seen, *address));
            if entry.seen > found.0 {
                *found = (entry.seen, *address);
            }
        }
        last.into_iter().map(|(name, (_, address))| (name, address)).collect()
    }

    /// The same for one name, without a list of all: it is asked for each service that is made.
    fn last_address_of(&self, name: &ServiceName) -> Option<Ipv4Addr> {
        let of_name =
            self.entries.iter().filter(|(address, entry)| entry.name == *name && self.range.contains(*address));
        of_name.rev().max_by_key(|(_, entry)| entry.seen).map(|(address, _)| *address)
    }

    fn is_free_for(&self, address: Ipv4Addr, name: &ServiceName) -> bool {
        self.entries.get(&address).is_none_or(|entry| entry.name == *name && !self.current.contains_key(name))
    }

    fn enter(&mut self, name: ServiceName, address: Ipv4Addr, now: u64) {
        if let Some(before) = self.entries.insert(address, Entry { name: name.clone(), seen: now })
            && self.current.get(&before.name) == Some(&address)
        {
            self.current.remove(&before.name);
        }
        self.current.insert(name, address);
    }

    /// A name's next choices; then whatever address is free, from its first choice on.
    fn search(&self, name: &ServiceName) -> Result<Ipv4Addr, Exhausted> {
        let choices = (0..CHOICES).map(|attempt| choice(self.range, name, attempt));
        let first = index(self.range, choice(self.range, name, 0));
        let others = (1..size(self.range)).map(|step| at(self.range, (first + step) % size(self.range)));
        let free = choices.chain(others).find(|address| self.is_free_for(*address, name));
        free.ok_or_else(|| Exhausted { range: self.range, name: name.clone() })
    }
}

/// Addresses in a range that may be somebody's: neither the first nor the last, which are a network's own.
fn size(range: Ipv4Net) -> u64 {
    (1_u64 << (32 - range.prefix_len())) - 2
}

fn at(range: Ipv4Net, index: u64) -> Ipv4Addr {
    // An index is below the range's size, and that fits.
    Ipv4Addr::from_bits(range.network().to_bits() + 1 + index as u32)
}

fn index(range: Ipv4Net, address: Ipv4Addr) -> u64 {
    u64::from(address.to_bits() - range.network().to_bits() - 1)
}

/// The address that a name would have at its so-manieth attempt.
///
/// FNV-1a over the name, stirred by the finaliser of SplitMix64: spelt out here, since whatever changes in it moves
/// every address of every user.
fn choice(range: Ipv4Net, name: &ServiceName, attempt: u64) -> Ipv4Addr {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = name.as_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    hash = hash.wrapping_add(attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    at(range, (hash ^ (hash >> 31)) % size(range))
}

#[cfg(test)]
mod tests;
