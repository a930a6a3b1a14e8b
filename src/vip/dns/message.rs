//! Bytes to queries and replies to bytes: what is checked before anything is looked at, and how long a reply may be.
//!
//! hickory reads and writes messages. It is handed none whose header says that there is nothing to answer: a
//! response (two servers would answer each other for ever), counts that no query has (memory is taken for them
//! before they are read), other operations.

use hickory_resolver::proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};

/// Bytes of a message's header.
const HEADER: usize = 12;
/// Records that a query may bring along: an OPT, a signature, and some to spare.
const ADDITIONALS: u16 = 8;
/// What a client takes over UDP that does not say (RFC 1035 §4.2.1).
const PLAIN: u16 = 512;
/// What is sent over UDP at most: it passes everywhere in one piece (RFC 9715).
const WHOLE: u16 = 1232;

/// What some bytes are.
#[derive(Debug)]
pub(super) enum Read {
    /// A query with exactly one question.
    Query(Message),
    /// A query that is answered with an error, without being understood.
    Bad([u8; HEADER]),
    /// Nothing that must be answered.
    Nothing,
}

/// Reads what a client sent.
pub(super) fn read(bytes: &[u8]) -> Read {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Read::Nothing };
    let count = |i: usize| u16::from_be_bytes([header[i], header[i + 1]]);
    if header[2] & 0x80 != 0 {
        return Read::Nothing;
    }
    if header[2] & 0x78 != 0 {
        return Read::Bad(error(header, ResponseCode::NotImp));
    }
    let is_query = count(4) == 1 && count(6) == 0 && count(8) == 0 && count(10) <= ADDITIONALS;
    match is_query.then(|| Message::from_vec(bytes)) {
        Some(Ok(query)) if query.queries.len() == 1 => Read::Query(query),
        _ => Read::Bad(error(header, ResponseCode::FormErr)),
    }
}

/// A header alone, with the client's id, operation and wish for recursion.
fn error(header: &[u8; HEADER], code: ResponseCode) -> [u8; HEADER] {
    let mut reply = [0; HEADER];
    reply[..2].copy_from_slice(&header[..2]);
    reply[2] = 0x80 | header[2] & 0x79;
    reply[3] = code.low();
    reply
}

/// An empty reply to a query: its question in the case it came in, and an OPT if it had one.
pub(super) fn reply(query: &Message) -> Message {
    let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata = Metadata::response_from_request(&query.metadata);
    reply.queries.clone_from(&query.queries);
    reply.edns = query.edns.as_ref().map(|theirs| {
        let mut edns = Edns::new();
        edns.set_max_payload(WHOLE).set_dnssec_ok(theirs.flags().dnssec_ok);
        edns
    });
    reply
}

/// An empty reply with an error.
pub(super) fn failure(query: &Message, code: ResponseCode) -> Message {
    let mut reply = reply(query);
    reply.metadata.response_code = code;
    reply
}

/// A reply that sends the client to TCP.
pub(super) fn truncated(query: &Message) -> Message {
    let mut reply = reply(query);
    reply.metadata.truncation = true;
    reply
}

/// How long a reply to this query may be over UDP.
pub(super) fn limit(query: &Message) -> usize {
    query.edns.as_ref().map_or(PLAIN, |edns| edns.max_payload().clamp(PLAIN, WHOLE)).into()
}

/// The bytes of a reply, no more than `limit` of them: one that is longer says so, and nothing else.
pub(super) fn write(reply: &Message, limit: usize) -> Vec<u8> {
    let whole = |message: &Message| message.to_vec().ok().filter(|bytes| bytes.len() <= limit);
    whole(reply).or_else(|| whole(&reply.truncate())).unwrap_or_else(|| {
        // What the client itself sent cannot be written: a name that is too long once it is not compressed.
        let mut header = [0; HEADER];
        header[..2].copy_from_slice(&reply.metadata.id.to_be_bytes());
        error(&header, ResponseCode::ServFail).to_vec()
    })
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::{
        op::Query,
        rr::{Name, RData, Record, RecordType, rdata::A},
    };

    use super::*;
    use crate::model::Random;

    fn query(name: &str) -> Message {
        let mut query = Message::query();
        query.metadata.id = 0x1234;
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        query
    }

    fn with_edns(payload: u16) -> Message {
        let mut query = query("Orders.vip.internal.");
        query.edns.get_or_insert_with(Edns::new).set_max_payload(payload);
        query
    }

    /// The code that some bytes are answered with; `None` where they are not.
    fn code(bytes: &[u8]) -> Option<u8> {
        match read(bytes) {
            Read::Query(_) => Some(0),
            Read::Bad(header) => {
                assert_eq!((&header[..2], header[2] & 0x80), (&bytes[..2], 0x80));
                Some(header[3])
            }
            Read::Nothing => None,
        }
    }

    #[test]
    fn what_cannot_be_a_query_is_answered_shortly_or_not_at_all() {
        let good = with_edns(4096).to_vec().unwrap();
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            code(&bytes)
        };
        assert_eq!(code(&good), Some(0));
        assert_eq!(with(2, 0x80), None, "a response");
        assert_eq!(with(2, 0x28), Some(4), "an update");
        assert_eq!(with(2, 0x10), Some(4), "a status");
        assert_eq!(with(5, 0), Some(1), "no question");
        assert_eq!(with(5, 2), Some(1), "two questions");
        assert_eq!(with(4, 0xff), Some(1), "65,281 questions");
        assert_eq!(with(7, 1), Some(1), "an answer");
        assert_eq!(with(9, 1), Some(1), "an authority");
        assert_eq!(with(11, 2), Some(1), "more records than there are");
        assert_eq!(with(10, 0xff), Some(1), "65,281 records");
    }

    #[test]
    fn a_query_cut_anywhere_is_no_query() {
        let good = with_edns(4096).to_vec().unwrap();
        for length in 0..good.len() {
            let expected = (length >= HEADER).then_some(1);
            assert_eq!(code(&good[..length]), expected, "at {length}");
        }
    }

    #[test]
    fn names_that_lead_in_circles_or_out_of_the_message_are_no_names() {
        let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let tail = [0, 1, 0, 1];
        for name in [
            &[0xc0, 12][..],       // itself
            &[0xc0, 14, 0xc0, 12], // each other
            &[1, b'a', 0xc0, 12],  // its own beginning
            &[0xc0, 0xff],         // behind the end
            &[0xff, 0xff],
            &[0x40, b'a', 0], // a label of a kind that there is not
            &[0x80, b'a', 0],
            &[63, b'a', 0], // longer than the message
        ] {
            let bytes = [&header[..], name, &tail].concat();
            assert_eq!(code(&bytes), Some(1), "{name:x?}");
        }
        let long = [&header[..], &[&[63][..], &[b'a'; 63]].concat().repeat(4), &[0], &tail].concat();
        assert_eq!(code(&long), Some(1), "257 bytes");
    }

    #[test]
    fn two_opts_are_one_too_many() {
        let mut bytes = with_edns(4096).to_vec().unwrap();
        let opt = bytes[bytes.len() - 11..].to_vec();
        bytes.extend(opt);
        bytes[11] = 2;
        assert_eq!(code(&bytes), Some(1));
    }

    /// Bytes flipped, cut and added; the seed of a failure is printed.
    #[test]
    fn no_query_is_odd_enough_to_panic_or_to_be_amplified() {
        let good = with_edns(4096).to_vec().unwrap();
        for seed in 0..50_000 {
            let mut random = Random::seeded(seed);
            let mut bytes = good.clone();
            for _ in 0..=random.below(6) {
                let at = random.below(bytes.len() as u32) as usize;
                match random.below(8) {
                    0 => bytes.truncate(at.max(1)),
                    1 => bytes.insert(at, random.below(256) as u8),
                    2 => bytes.extend_from_within(at..),
                    _ => bytes[at] = random.below(256) as u8,
                }
            }
            match read(&bytes) {
                Read::Query(query) => {
                    let reply = write(&truncated(&query), limit(&query));
                    // An OPT of eleven bytes answers one with options, and a compressed name may be written out.
                    assert!(reply.len() <= bytes.len().max(HEADER) + 255, "seed {seed}");
                }
                Read::Bad(header) => assert!(header.len() <= bytes.len(), "seed {seed}"),
                Read::Nothing => {}
            }
        }
    }

    #[test]
    fn a_reply_fits_what_the_client_takes_or_says_that_it_does_not() {
        for (query, expected) in
            [(query("a."), 512), (with_edns(0), 512), (with_edns(900), 900), (with_edns(65_535), 1232)]
        {
            assert_eq!(limit(&query), expected);
            let mut long = reply(&query);
            for i in 0..200 {
                long.add_answer(Record::from_rdata(query.queries[0].name().clone(), 5, RData::A(A::new(10, 0, 0, i))));
            }
            let short = write(&long, limit(&query));
            let short = Message::from_vec(&short).unwrap();
            assert!(short.metadata.truncation && short.answers.is_empty());
            assert_eq!(short.queries[0].name().to_ascii(), query.queries[0].name().to_ascii(), "the case is kept");
            assert_eq!(short.edns.is_some(), query.edns.is_some());
            let whole = Message::from_vec(&write(&long, usize::MAX)).unwrap();
            assert!(!whole.metadata.truncation && whole.answers.len() == 200);
        }
    }
}
