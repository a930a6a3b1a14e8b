//! The rules as the kernel reads them: each a list of expressions, which load something into a register, compare it,
//! and decide. They are the ones that `nft` makes of the script.
//!
//! The numbers are those of the kernel's `linux/netfilter/nf_tables.h`, which never change.

use super::{
    CHAIN, PRIORITY, Redirect, TABLE,
    message::{APPEND, Attributes, Batch, CREATE, Verb, Writer},
};

/// A batch that puts the rules in place of whatever the table held before.
pub(super) fn apply(redirect: &Redirect) -> Batch {
    let mut batch = Writer::begin();
    // Made first, so that there is one to delete.
    make_table(&mut batch);
    delete_table(&mut batch);
    make_table(&mut batch);
    make_chain(&mut batch);
    if let Some(user) = redirect.but_user {
        rule(&mut batch, |e| e.meta(meta::USER).is(&user.to_ne_bytes()).leave_alone());
    }
    if let Some(mark) = redirect.but_mark {
        rule(&mut batch, |e| e.meta(meta::MARK).is(&mark.to_ne_bytes()).leave_alone());
    }
    // 127.0.0.0/8: the first byte of the destination, at byte 16 of an IPv4 header.
    rule(&mut batch, |e| e.payload(Base::Network, 16, 1).is(&[127]).leave_alone());
    rule(&mut batch, |e| e.kind_of_destination().is(&LOCAL.to_ne_bytes()).leave_alone());
    for port in &redirect.ports {
        rule(&mut batch, |e| {
            // The destination port, at byte 2 of a TCP header.
            e.meta(meta::PROTOCOL).is(&[TCP]).payload(Base::Transport, 2, 2).is(&port.to_be_bytes());
            e.redirect(redirect.to);
        });
    }
    batch.end()
}

/// A batch that takes the table away.
pub(super) fn remove() -> Batch {
    let mut batch = Writer::begin();
    delete_table(&mut batch);
    batch.end()
}

fn make_table(batch: &mut Writer) {
    batch.message(Verb::NewTable, 0, |table| {
        table.name(1, TABLE);
        table.number(2, 0);
    });
}

fn delete_table(batch: &mut Writer) {
    batch.message(Verb::DeleteTable, 0, |table| table.name(1, TABLE));
}

fn make_chain(batch: &mut Writer) {
    /// Where the connections of this host's own programs come by (NF_INET_LOCAL_OUT), and what becomes of those that no
    /// rule is about (NF_ACCEPT).
    const OUTPUT: u32 = 3;
    const ACCEPT: u32 = 1;
    batch.message(Verb::NewChain, CREATE, |chain| {
        chain.name(1, TABLE);
        chain.name(3, CHAIN);
        chain.name(7, "nat");
        chain.number(5, ACCEPT);
        chain.nested(4, |hook| {
            hook.number(1, OUTPUT);
            hook.number(2, PRIORITY.cast_unsigned());
        });
    });
}

fn rule(batch: &mut Writer, expressions: impl FnOnce(&mut Expressions<'_, '_>)) {
    batch.message(Verb::NewRule, CREATE | APPEND, |rule| {
        rule.name(1, TABLE);
        rule.name(2, CHAIN);
        rule.nested(4, |list| expressions(&mut Expressions(list)));
    });
}

/// What `meta` may load.
mod meta {
    pub(super) const MARK: u32 = 3;
    pub(super) const USER: u32 = 10;
    pub(super) const PROTOCOL: u32 = 16;
}

/// TCP among the protocols above IP.
const TCP: u8 = 6;

/// An address of this host, among the kinds of destination (RTN_LOCAL).
const LOCAL: u32 = 2;

/// The header that an offset is counted from.
#[derive(Debug, Clone, Copy)]
enum Base {
    Network = 1,
    Transport = 2,
}

/// The register that everything goes through, and the one that holds verdicts.
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;

/// The expressions of a rule, one after the other.
struct Expressions<'a, 'b>(&'a mut Attributes<'b>);

impl Expressions<'_, '_> {
    fn add(&mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.0.nested(1, |expression| {
            expression.name(1, name);
            expression.nested(2, data);
        });
        self
    }

    /// Loads what the kernel knows beside the packet's bytes.
    fn meta(&mut self, key: u32) -> &mut Self {
        self.add("meta", |data| {
            data.number(2, key);
            data.number(1, REGISTER);
        })
    }

    /// Loads bytes of the packet.
    fn payload(&mut self, base: Base, offset: u32, len: u32) -> &mut Self {
        self.add("payload", |data| {
            data.number(1, REGISTER);
            data.number(2, base as u32);
            data.number(3, offset);
            data.number(4, len);
        })
    }

    /// Loads which kind of address the destination is to the routing table.
    fn kind_of_destination(&mut self) -> &mut Self {
        const OF_DESTINATION: u32 = 2;
        const KIND: u32 = 3;
        self.add("fib", |data| {
            data.number(3, OF_DESTINATION);
            data.number(2, KIND);
            data.number(1, REGISTER);
        })
    }

    /// Goes on only if what was loaded is this.
    fn is(&mut self, value: &[u8]) -> &mut Self {
        const EQUAL: u32 = 0;
        self.add("cmp", |data| {
            data.number(1, REGISTER);
            data.number(2, EQUAL);
            data.nested(3, |of| of.bytes(1, value));
        })
    }

    /// Has the connection go where it was meant to (NFT_RETURN: the chain's policy is to let it).
    fn leave_alone(&mut self) {
        const RETURN: i32 = -5;
        self.add("immediate", |data| {
            data.number(1, VERDICT);
            data.nested(2, |of| of.nested(2, |verdict| verdict.number(1, RETURN.cast_unsigned())));
        });
    }

    /// Has the connection go to a port of this host.
    fn redirect(&mut self, port: u16) {
        const PORT_IS_GIVEN: u32 = 2;
        self.add("immediate", |data| {
            data.number(1, REGISTER);
            data.nested(2, |of| of.bytes(1, &port.to_be_bytes()));
        });
        self.add("redir", |data| {
            data.number(1, REGISTER);
            data.number(3, PORT_IS_GIVEN);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What nft 1.0.6 sends for the script of this redirect, a message a line, as it was seen on its way by strace on a
    /// machine whose order of bytes is little-endian, as those are that this test runs on.
    const OF_NFT: &str = include_str!("../../../tests/data/nft-batch.hex");

    fn messages(mut bytes: &[u8]) -> Vec<String> {
        let mut messages = Vec::new();
        while let Some(len) = bytes.first_chunk::<4>() {
            let len = u32::from_ne_bytes(*len) as usize;
            messages.push(bytes[..len].iter().map(|byte| format!("{byte:02x}")).collect());
            bytes = &bytes[len.next_multiple_of(4)..];
        }
        messages
    }

    #[test]
    fn the_bytes_are_those_that_nft_sends_for_the_script() {
        let redirect = Redirect { ports: vec![80, 8080], to: 8472, but_user: Some(65532), but_mark: Some(7) };
        let mut batch = apply(&redirect);
        let last = batch.last as usize;
        // nft asks another way whether all is done.
        let (mut at, mut number) = (0, 0);
        while number < last {
            at += u32::from_ne_bytes(*batch.bytes[at..].first_chunk().unwrap()) as usize;
            number += 1;
        }
        assert_eq!(batch.bytes[at + 6] & 4, 4, "the last message of the batch asks to be answered");
        batch.bytes[at + 6] &= !4;
        assert_eq!(messages(&batch.bytes), OF_NFT.lines().collect::<Vec<_>>());
    }

    #[test]
    fn most_ports_fit_into_what_a_socket_takes_at_once() {
        let ports = (1..=super::super::MOST_PORTS as u16).collect();
        let batch = apply(&Redirect { ports, to: 1, but_user: Some(1), but_mark: Some(1) });
        // The default of net.core.wmem_default, less what the kernel counts on top.
        assert!(batch.bytes.len() < 212_992 - 32 * 1024, "{}", batch.bytes.len());
    }

    #[test]
    fn to_remove_is_to_delete_the_table_and_nothing_else() {
        let batch = remove();
        assert_eq!(messages(&batch.bytes).len(), 3);
        assert_eq!(batch.last, 1);
    }
}
