//! Reading along in request heads for two things: a Transfer-Encoding beside a Content-Length, and a length
//! over `header_bytes`, which hyper takes for the size of a buffer and overruns by as much as one read.
//!
//! This is no parser. It sees lines, knows two header names and the empty line that ends a head, and leaves
//! the rest to hyper. It may miss a fault in a head that is pipelined behind a body; hyper then frames the
//! request by its Transfer-Encoding alone, as RFC 9112 §6.3 allows, and nothing is smuggled. It never finds
//! one where there is none.

/// How much of a line's beginning tells which header it is, and a byte for what follows.
const PREFIX: usize = 18;

const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";
const CONTENT_LENGTH: &[u8] = b"content-length:";

/// What is wrong with a head that hyper takes for a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadFault {
    /// It has both Transfer-Encoding and Content-Length.
    Conflict,
    /// It is longer than the limit.
    TooLong,
}

/// Where a scan stands.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// Bytes that a head may have.
    limit: usize,
    /// Bytes of this head in the lines that have ended.
    len: usize,
    /// The beginning of a line whose end has not come yet.
    line: [u8; PREFIX],
    line_len: usize,
    /// A head has begun and not ended.
    inside: bool,
    transfer_encoding: bool,
    content_length: bool,
    /// A head with a body has ended: what follows is not for us until the next scan.
    past_head: bool,
}

impl HeadScan {
    /// A scan that stands before the first head.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Reads on; tells what is wrong with a head that ends here.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Option<HeadFault> {
        let mut fault = None;
        if self.past_head {
            // The call that this head began has ended, or these bytes would not be a head's.
            self.reset();
        }
        while !bytes.is_empty() && !self.past_head {
            match memchr::memchr(b'\n', bytes) {
                None => {
                    self.len += bytes.len();
                    self.begin_line(bytes);
                    break;
                }
                Some(end) => {
                    self.len += end + 1;
                    fault = fault.or(self.end_line(&bytes[..end]));
                    bytes = &bytes[end + 1..];
                }
            }
        }
        fault
    }

    /// Forgets what it has seen.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_inside_head(&self) -> bool {
        self.inside
    }

    fn begin_line(&mut self, part: &[u8]) {
        self.inside = true;
        let room = &mut self.line[self.line_len..];
        let taken = part.len().min(room.len());
        room[..taken].copy_from_slice(&part[..taken]);
        self.line_len += taken;
    }

    fn end_line(&mut self, rest: &[u8]) -> Option<HeadFault> {
        if self.line_len == 0 {
            return self.line(rest);
        }
        self.begin_line(rest);
        let (line, len) = (self.line, self.line_len);
        self.line_len = 0;
        self.line(&line[..len])
    }

    /// One whole line, or enough of its beginning.
    fn line(&mut self, line: &[u8]) -> Option<HeadFault> {
        match line {
            [] | [b'\r'] if self.inside => self.end_head(),
            // Empty lines before a request line are skipped (RFC 9112 §2.2).
            [] | [b'\r'] => {
                self.len = 0;
                None
            }
            [b't' | b'T', ..] => {
                self.inside = true;
                self.transfer_encoding |= begins(line, TRANSFER_ENCODING);
                None
            }
            [b'c' | b'C', ..] => {
                self.inside = true;
                self.content_length |= begins(line, CONTENT_LENGTH);
                None
            }
            _ => {
                self.inside = true;
                None
            }
        }
    }

    fn end_head(&mut self) -> Option<HeadFault> {
        let (te, cl, len) = (self.transfer_encoding, self.content_length, self.len);
        *self = Self { past_head: te || cl, ..Self::new(self.limit) };
        match () {
            () if te && cl => Some(HeadFault::Conflict),
            () if len > self.limit => Some(HeadFault::TooLong),
            () => None,
        }
    }
}

fn begins(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFLICT: &[u8] =
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n";
    const PLAIN: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\ntransfer: x\r\nContent-Type: t\r\n\r\n";

    fn fresh() -> HeadScan {
        HeadScan::new(1000)
    }

    #[test]
    fn a_conflict_is_found_however_the_bytes_are_cut() {
        for first in 0..CONFLICT.len() {
            for second in first..CONFLICT.len() {
                let mut scan = fresh();
                let parts = [&CONFLICT[..first], &CONFLICT[first..second], &CONFLICT[second..]];
                let found = parts.iter().filter_map(|part| scan.feed(part)).next();
                assert_eq!(found, Some(HeadFault::Conflict), "cut at {first} and {second}");
                assert!(!scan.is_inside_head());
            }
        }
    }

    #[test]
    fn the_order_and_case_of_the_headers_do_not_matter() {
        let mut scan = fresh();
        assert_eq!(
            scan.feed(b"POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\ncontent-length: 1\r\n\r\n"),
            Some(HeadFault::Conflict)
        );
        assert_eq!(
            fresh().feed(b"POST / HTTP/1.1\nTransfer-Encoding: chunked\nContent-Length: 1\n\n"),
            Some(HeadFault::Conflict)
        );
    }

    #[test]
    fn heads_without_a_conflict_pass_pipelined_too() {
        let mut scan = fresh();
        assert_eq!(scan.feed(PLAIN), None);
        assert_eq!(scan.feed(&[PLAIN, PLAIN].concat()), None);
        assert_eq!(scan.feed(&[PLAIN, CONFLICT].concat()), Some(HeadFault::Conflict));
    }

    #[test]
    fn a_body_is_not_read_as_a_head() {
        let mut scan = fresh();
        let with_body =
            b"POST / HTTP/1.1\r\nContent-Length: 60\r\n\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(scan.feed(with_body), None);
        assert!(!scan.is_inside_head());
    }

    #[test]
    fn a_head_that_has_begun_is_known_to_be_unfinished() {
        let mut scan = fresh();
        assert!(!scan.is_inside_head());
        scan.feed(b"\r\n");
        assert!(!scan.is_inside_head(), "an empty line begins nothing");
        scan.feed(b"G");
        assert!(scan.is_inside_head());
        scan.feed(b"ET / HTTP/1.1\r\n");
        assert!(scan.is_inside_head());
        scan.feed(b"\r\n");
        assert!(!scan.is_inside_head());
    }

    #[test]
    fn a_head_over_the_limit_is_found_and_one_at_it_is_not() {
        for (limit, fault) in [(PLAIN.len(), None), (PLAIN.len() - 1, Some(HeadFault::TooLong))] {
            let mut scan = HeadScan::new(limit);
            for _ in 0..3 {
                assert_eq!(scan.feed(b"\r\n"), None, "an empty line before a head is none of it");
                assert_eq!(scan.feed(&PLAIN[..20]), None);
                assert_eq!(scan.feed(&PLAIN[20..]), fault);
            }
        }
    }
}
