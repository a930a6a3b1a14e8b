//! The upload of a `-text` call: base64, in whatever pieces.
//!
//! A client may pad wherever it flushes, so padding can stand in the middle (`doc/PROTOCOL-WEB.md`,
//! Text-encoded streams). Each group of four characters stands alone, and what is kept between two pieces is
//! at most three of them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;

/// The characters of a group.
const GROUP: usize = 4;

/// The upload is not base64 (RFC 4648 §4): a character of another alphabet, a line break, padding in a wrong
/// place, or an end within a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body of a gRPC-Web text call is not base64")]
pub(in crate::proxy) struct Malformed;

/// Decodes one upload.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Decoder {
    /// A group that has begun.
    begun: [u8; GROUP],
    len: usize,
}

impl Decoder {
    /// The bytes that a piece completes, which may be none. After an error nothing that follows means anything.
    pub(in crate::proxy) fn feed(&mut self, piece: &[u8]) -> Result<Bytes, Malformed> {
        let mut decoded = vec![0; (self.len + piece.len()) / GROUP * 3];
        let (mut at, mut rest) = (0, piece);
        while let Some((first, beyond)) = rest.split_first() {
            // All groups up to the one with padding in it go at once; that one, and one that is cut, go by
            // character.
            let plain = if self.len == 0 { whole_groups(rest) } else { &[] };
            if !plain.is_empty() {
                at += decode(plain, &mut decoded[at..])?;
                rest = &rest[plain.len()..];
                continue;
            }
            self.begun[self.len] = *first;
            self.len += 1;
            rest = beyond;
            if self.len == GROUP {
                self.len = 0;
                at += decode(&self.begun, &mut decoded[at..])?;
            }
        }
        decoded.truncate(at);
        Ok(decoded.into())
    }

    /// The upload has ended.
    pub(in crate::proxy) fn end(&self) -> Result<(), Malformed> {
        if self.len == 0 { Ok(()) } else { Err(Malformed) }
    }
}

/// The groups before the first that is cut or padded.
fn whole_groups(text: &[u8]) -> &[u8] {
    let unpadded = memchr::memchr(b'=', text).unwrap_or(text.len());
    &text[..unpadded / GROUP * GROUP]
}

fn decode(groups: &[u8], into: &mut [u8]) -> Result<usize, Malformed> {
    STANDARD.decode_slice(groups, into).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Random;

    fn random_bytes(random: &mut Random, most: u32) -> Bytes {
        (0..random.below(most + 1)).map(|_| random.bits() as u8).collect()
    }

    #[test]
    fn an_upload_survives_any_pieces_and_any_padding() {
        let mut random = Random::seeded(6);
        for _ in 0..3_000 {
            // What the client flushes, padded each time, ...
            let chunks: Vec<Bytes> = (0..random.below(6)).map(|_| random_bytes(&mut random, 50)).collect();
            let text: String = chunks.iter().map(|chunk| STANDARD.encode(chunk)).collect();
            // ... and how the network cuts it.
            let (mut decoder, mut decoded, mut rest) = (Decoder::default(), Vec::new(), text.as_bytes());
            while !rest.is_empty() {
                let (piece, beyond) = rest.split_at(random.below(rest.len() as u32 + 1) as usize);
                decoded.extend(decoder.feed(piece).unwrap());
                rest = beyond;
            }
            assert_eq!(decoder.end(), Ok(()));
            assert_eq!(decoded, chunks.concat());
        }
    }

    #[test]
    fn every_split_of_a_padded_text_gives_the_same() {
        let text = b"QQ==QUI=QUJDQUJDRA==QUJD";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let mut decoder = Decoder::default();
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                let decoded = pieces.map(|piece| decoder.feed(piece).unwrap()).concat();
                assert_eq!((&decoded[..], decoder.end()), (&b"AABABCABCDABC"[..], Ok(())), "{first}, {second}");
            }
        }
    }

    #[test]
    fn what_is_not_base64_is_refused_however_it_is_cut() {
        for text in [
            "Q===",
            "====",
            "=QQQ",
            "QQ=Q",
            "QQ==Q===",
            "QUJD\r\n\r\n",
            "QU-_",
            "QU D",
            "QUJ\u{e9}",
            "\u{1f}\u{8b}AA",
            "QR==",
        ] {
            let mut whole = Decoder::default();
            assert_eq!(whole.feed(text.as_bytes()), Err(Malformed), "{text:?}");
            let mut bytewise = Decoder::default();
            assert!(text.as_bytes().chunks(1).any(|byte| bytewise.feed(byte).is_err()), "{text:?}");
        }
        for text in ["Q", "QQ", "QUJ", "QUJDQ", "QQ="] {
            let mut decoder = Decoder::default();
            assert!(decoder.feed(text.as_bytes()).is_ok());
            assert_eq!(decoder.end(), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused_without_a_panic() {
        let mut random = Random::seeded(7);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..20_000 {
            let mut decoder = Decoder::default();
            let (mut taken, mut given, mut failed) = (0, 0, false);
            for _ in 0..random.below(5) {
                let piece: Bytes = (0..random.below(9))
                    .map(|_| {
                        if random.below(40) == 0 {
                            random.bits() as u8
                        } else {
                            b"QUJDRA8/+="[random.below(10) as usize]
                        }
                    })
                    .collect();
                taken += piece.len();
                match decoder.feed(&piece) {
                    Ok(decoded) => given += decoded.len(),
                    Err(Malformed) => failed = true,
                }
                assert!(given <= taken / 4 * 3 + 3, "{given} of {taken}");
            }
            if failed || decoder.end().is_err() { bad += 1 } else { good += 1 }
        }
        assert!(good > 2_000 && bad > 2_000, "{good} good, {bad} bad");
    }
}
