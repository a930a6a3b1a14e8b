//! Reading along in request heads for one thing: a Transfer-Encoding beside a Content-Length.
//!
//! This is no parser. It sees lines, knows two header names and the empty line that ends a head, and leaves
//! the rest to hyper. It may miss a conflict in a head that is pipelined behind a body; hyper then frames the
//! request by its Transfer-Encoding alone, as RFC 9112 §6.3 allows, and nothing is smuggled. It never finds
//! one where there is none.

/// How much of a line's beginning tells which header it is, and a byte for what follows.
const PREFIX: usize = 18;

const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";
const CONTENT_LENGTH: &[u8] = b"content-length:";

/// Where a scan stands.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
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
    /// Reads on; true when a head that ends here has both headers.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> bool {
        let mut conflict = false;
        if self.past_head {
            // The call that this head began has ended, or these bytes would not be a head's.
            *self = Self::default();
        }
        while !bytes.is_empty() && !self.past_head {
            match memchr::memchr(b'\n', bytes) {
                None => {
                    self.begin_line(bytes);
                    break;
                }
                Some(end) => {
                    conflict |= self.end_line(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                }
            }
        }
        conflict
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

    fn end_line(&mut self, rest: &[u8]) -> bool {
        if self.line_len == 0 {
            return self.line(rest);
        }
        self.begin_line(rest);
        let (line, len) = (self.line, self.line_len);
        self.line_len = 0;
        self.line(&line[..len])
    }

    /// One whole line, or enough of its beginning.
    fn line(&mut self, line: &[u8]) -> bool {
        match line {
            [] | [b'\r'] if self.inside => self.end_head(),
            // Empty lines before a request line are skipped (RFC 9112 §2.2).
            [] | [b'\r'] => false,
            [b't' | b'T', ..] => {
                self.inside = true;
                self.transfer_encoding |= begins(line, TRANSFER_ENCODING);
                false
            }
            [b'c' | b'C', ..] => {
                self.inside = true;
                self.content_length |= begins(line, CONTENT_LENGTH);
                false
            }
            _ => {
                self.inside = true;
                false
            }
        }
    }

    fn end_head(&mut self) -> bool {
        let (te, cl) = (self.transfer_encoding, self.content_length);
        *self = Self { past_head: te || cl, ..Self::default() };
        te && cl
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

    #[test]
    fn a_conflict_is_found_however_the_bytes_are_cut() {
        for first in 0..CONFLICT.len() {
            for second in first..CONFLICT.len() {
                let mut scan = HeadScan::default();
                let parts = [&CONFLICT[..first], &CONFLICT[first..second], &CONFLICT[second..]];
                let found = parts.iter().fold(false, |found, part| scan.feed(part) | found);
                assert!(found, "cut at {first} and {second}");
                assert!(!scan.is_inside_head());
            }
        }
    }

    #[test]
    fn the_order_and_case_of_the_headers_do_not_matter() {
        let mut scan = HeadScan::default();
        assert!(scan.feed(b"POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\ncontent-length: 1\r\n\r\n"));
        assert!(HeadScan::default().feed(b"POST / HTTP/1.1\nTransfer-Encoding: chunked\nContent-Length: 1\n\n"));
    }

    #[test]
    fn heads_without_a_conflict_pass_pipelined_too() {
        let mut scan = HeadScan::default();
        assert!(!scan.feed(PLAIN));
        assert!(!scan.feed(&[PLAIN, PLAIN].concat()));
        assert!(scan.feed(&[PLAIN, CONFLICT].concat()));
    }

    #[test]
    fn a_body_is_not_read_as_a_head() {
        let mut scan = HeadScan::default();
        let with_body =
            b"POST / HTTP/1.1\r\nContent-Length: 60\r\n\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n";
        assert!(!scan.feed(with_body));
        assert!(!scan.is_inside_head());
    }

    #[test]
    fn a_head_that_has_begun_is_known_to_be_unfinished() {
        let mut scan = HeadScan::default();
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
}
