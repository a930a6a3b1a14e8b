//! Netlink messages, as bytes: a header, the header of netfilter's netlink, and attributes, which may hold others.
//!
//! Lengths and kinds are in the host's order, numbers in attributes in the network's (nf_tables has it so), and every
//! part begins at a multiple of four. A batch is what nf_tables takes or refuses as one: `BATCH_BEGIN`, messages,
//! `BATCH_END`.

/// Of a message: it asks for something (every one of ours does); it wants a word when it is done.
const REQUEST: u16 = 1;
const ACK: u16 = 4;

/// Of a message: what it names is made if it is not there; and stands behind what is there.
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

/// Of an attribute: it holds others.
const NESTED: u16 = 0x8000;

/// What a message does, with the part of the kernel that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Verb {
    BatchBegin = 16,
    BatchEnd = 17,
    NewTable = NF_TABLES,
    DeleteTable = NF_TABLES + 2,
    NewChain = NF_TABLES + 3,
    NewRule = NF_TABLES + 6,
}

/// nf_tables, among netfilter's parts.
const SUBSYSTEM: u16 = 10;
const NF_TABLES: u16 = SUBSYSTEM << 8;

/// The families of IPv4 and of nothing in particular.
const IPV4: u8 = 2;
const UNSPECIFIED: u8 = 0;

/// A batch that can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// The number of the message that will be answered when all is done.
    pub(super) last: u32,
}

/// A batch that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    messages: u32,
    /// Where the latest message begins.
    latest: usize,
}

impl Writer {
    /// A batch without messages.
    pub(super) fn begin() -> Self {
        let mut writer = Self { bytes: Vec::new(), messages: 0, latest: 0 };
        writer.write(Verb::BatchBegin, 0, UNSPECIFIED, SUBSYSTEM, |_| {});
        writer
    }

    /// One more message.
    pub(super) fn message(&mut self, verb: Verb, flags: u16, attributes: impl FnOnce(&mut Attributes<'_>)) {
        self.write(verb, flags, IPV4, 0, attributes);
    }

    /// The batch. Its last message asks for an answer: the kernel answers in order, errors unasked, so that whoever has
    /// heard this one has heard all.
    pub(super) fn end(mut self) -> Batch {
        let last = self.messages - 1;
        let flags = self.latest + 6;
        let asked = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]) | ACK;
        self.bytes[flags..flags + 2].copy_from_slice(&asked.to_ne_bytes());
        self.write(Verb::BatchEnd, 0, UNSPECIFIED, SUBSYSTEM, |_| {});
        Batch { bytes: self.bytes, last }
    }

    fn write(
        &mut self,
        verb: Verb,
        flags: u16,
        family: u8,
        resource: u16,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&(verb as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&self.messages.to_ne_bytes());
        // From whom: the kernel fills that in.
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        attributes(&mut Attributes(&mut self.bytes));
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        self.latest = start;
        self.messages += 1;
    }
}

/// The attributes of a message, or of one that holds others.
#[derive(Debug)]
pub(super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// Bytes as they are.
    pub(super) fn bytes(&mut self, kind: u16, bytes: &[u8]) {
        self.write(kind, |within| within.extend_from_slice(bytes));
    }

    /// A number.
    pub(super) fn number(&mut self, kind: u16, number: u32) {
        self.bytes(kind, &number.to_be_bytes());
    }

    /// A name, which ends in a zero.
    pub(super) fn name(&mut self, kind: u16, name: &str) {
        self.write(kind, |within| {
            within.extend_from_slice(name.as_bytes());
            within.push(0);
        });
    }

    /// Other attributes.
    pub(super) fn nested(&mut self, kind: u16, attributes: impl FnOnce(&mut Attributes<'_>)) {
        self.write(kind | NESTED, |within| attributes(&mut Attributes(within)));
    }

    fn write(&mut self, kind: u16, content: impl FnOnce(&mut Vec<u8>)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        content(self.0);
        // Fits: no attribute of ours is longer than a rule, some hundred bytes. The padding is not counted in it.
        let len = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// What the kernel says about a message: its number, and the error, 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) about: u32,
    pub(super) error: i32,
}

/// The words in what was received; what is no such word, or cut short, is passed over.
pub(super) fn words(mut bytes: &[u8]) -> Vec<Word> {
    const HEADER: usize = 16;
    const ERROR: u16 = 2;
    let mut words = Vec::new();
    while let Some((header, rest)) = bytes.split_at_checked(HEADER) {
        let number = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let len = number(0) as usize;
        let Some(content) = len.checked_sub(HEADER).and_then(|len| rest.get(..len)) else { break };
        if u16::from_ne_bytes([header[4], header[5]]) == ERROR
            && let Some(error) = content.first_chunk::<4>()
        {
            words.push(Word { about: number(8), error: i32::from_ne_bytes(*error) });
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_their_length_is_not() {
        let mut bytes = Vec::new();
        let mut attributes = Attributes(&mut bytes);
        attributes.name(1, "meta");
        attributes.nested(2, |within| within.bytes(3, &[0x7f]));
        assert_eq!(bytes[..2], 9_u16.to_ne_bytes());
        assert_eq!(bytes[4..12], *b"meta\0\0\0\0");
        assert_eq!(bytes[12..16], [12_u16.to_ne_bytes(), 0x8002_u16.to_ne_bytes()].concat());
        assert_eq!(bytes[16..], [&5_u16.to_ne_bytes()[..], &3_u16.to_ne_bytes(), &[0x7f, 0, 0, 0]].concat());
    }

    fn word(about: u32, error: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&36_u32.to_ne_bytes());
        bytes.extend_from_slice(&2_u16.to_ne_bytes());
        bytes.extend_from_slice(&0_u16.to_ne_bytes());
        bytes.extend_from_slice(&about.to_ne_bytes());
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(&error.to_ne_bytes());
        bytes.resize(36, 0);
        bytes
    }

    #[test]
    fn words_are_found_one_behind_the_other() {
        let both = [word(3, -1), word(7, 0)].concat();
        assert_eq!(words(&both), [Word { about: 3, error: -1 }, Word { about: 7, error: 0 }]);
    }

    #[test]
    fn what_is_no_word_is_passed_over() {
        let good = word(1, -95);
        for cut in 0..good.len() {
            assert_eq!(words(&good[..cut]), [], "{cut}");
        }
        for len in [0_u32, 1, 15, 16, 19, 37, u32::MAX] {
            let mut bad = good.clone();
            bad[..4].copy_from_slice(&len.to_ne_bytes());
            let _ = words(&[bad, good.clone()].concat());
        }
        let mut another = good.clone();
        another[4] = 3;
        assert_eq!(words(&[another, good].concat()), [Word { about: 1, error: -95 }]);
    }
}
