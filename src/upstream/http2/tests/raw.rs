//! A peer that speaks in frames, right or wrong (RFC 9113 §4.1).

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// `:status: 200`, and `:status: 100` (RFC 7541 §6.1 and §6.2.2).
pub(super) const OK: &[u8] = &[0x88];
pub(super) const CONTINUE: &[u8] = b"\x08\x03100";

/// Identifiers of settings (RFC 9113 §6.5.2).
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) id: u32,
    pub(super) payload: Vec<u8>,
}

impl Seen {
    /// The code of a RST_STREAM.
    pub(super) fn code(&self) -> u32 {
        assert_eq!(self.kind, RST_STREAM, "{self:?}");
        u32::from_be_bytes(self.payload[..4].try_into().expect("four bytes"))
    }
}

/// The peer's side of a connection.
pub(super) struct Peer {
    io: DuplexStream,
}

pub(super) fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).expect("it is small").to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(id.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

pub(super) fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat()
}

impl Peer {
    /// A trunk, and its peer, which has sent these settings.
    pub(super) async fn with(settings: &[u8]) -> (Rc<Trunk>, Self) {
        Self::across(1 << 16, settings).await
    }

    /// The same, where this many bytes can be under way.
    pub(super) async fn across(bytes: usize, settings: &[u8]) -> (Rc<Trunk>, Self) {
        let (ours, io) = tokio::io::duplex(bytes);
        let mut peer = Self { io };
        let greeting = async {
            let mut preface = [0; 24];
            peer.io.read_exact(&mut preface).await.expect("a preface");
            assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            peer.send(SETTINGS, 0, 0, settings).await;
            assert_eq!(peer.read().await.kind, SETTINGS);
            peer.send(SETTINGS, ACK, 0, &[]).await;
        };
        let (trunk, ()) = tokio::join!(open(ours), greeting);
        assert_eq!(peer.next().await.flags, ACK);
        (trunk, peer)
    }

    pub(super) async fn plain() -> (Rc<Trunk>, Self) {
        Self::with(&[]).await
    }

    pub(super) async fn send(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        self.raw(&frame(kind, flags, id, payload)).await;
    }

    /// Sends bytes; a connection that is closed does not matter.
    pub(super) async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).await;
    }

    /// The next frame, whatever it is.
    pub(super) async fn read(&mut self) -> Seen {
        self.maybe().await.expect("a frame")
    }

    /// The next frame, if the connection lasts for it.
    pub(super) async fn maybe(&mut self) -> Option<Seen> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.io.read_exact(&mut payload).await.ok()?;
        let id = u32::from_be_bytes(head[5..].try_into().expect("four bytes"));
        Some(Seen { kind: head[3], flags: head[4], id, payload })
    }

    /// The next frame that is none of flow control's.
    pub(super) async fn next(&mut self) -> Seen {
        loop {
            let seen = self.read().await;
            if seen.kind != WINDOW_UPDATE {
                return seen;
            }
        }
    }

    /// Reads a request's head. Tells whether it is all of the request.
    pub(super) async fn request(&mut self, id: u32) -> bool {
        let seen = self.next().await;
        assert_eq!((seen.kind, seen.id), (HEADERS, id), "{seen:?}");
        seen.flags & END_STREAM != 0
    }

    pub(super) async fn pong(&mut self, ping: &Seen) {
        assert_eq!((ping.kind, ping.flags), (PING, 0), "{ping:?}");
        self.send(PING, ACK, 0, &ping.payload).await;
    }

    pub(super) async fn reset(&mut self, id: u32, code: u32) {
        self.send(RST_STREAM, 0, id, &code.to_be_bytes()).await;
    }

    pub(super) async fn go_away(&mut self, last: u32, code: u32) {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()).await;
    }

    /// Ends when the other side has closed.
    pub(super) async fn closed(&mut self) {
        while self.maybe().await.is_some() {}
    }
}

/// An exchange, and how it goes.
pub(super) type Begun = tokio::task::JoinHandle<Result<(Connection<Upload>, Payload), ExchangeError<Upload>>>;

/// Begins an exchange, and lets its request go out.
pub(super) fn begin(trunk: &Rc<Trunk>, request: Request<Upload>) -> Begun {
    let mut connection = Connection::Http2(lease(trunk));
    spawn_local(async move {
        let response = connection.exchange(request).await?;
        Ok((connection, response.into_body()))
    })
}
