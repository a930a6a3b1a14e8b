//! The request's body on its way to the endpoint.
//!
//! Bytes pass as they come: hyper asks for the next piece when the endpoint has taken the last, which is all
//! the back-pressure there is to it. What is added here:
//!
//! - `idle` bounds each pause of the app;
//! - it is known whether a call waits for its app or for its endpoint, so that a slow app is not blamed on
//!   the service;
//! - its beginning is kept, up to a limit, while it streams, so that another attempt can begin it anew;
//! - what is still to come when the answer has ended goes out, while it moves ([`finish`]);
//! - after `Expect: 100-continue` nothing is read from the app (which is what makes hyper say "100 Continue"
//!   to it) before the endpoint has said so, RFC 9110 §10.1.1.

mod finish;
mod progress;
mod streaming;

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{gate::Gate, grpc::web::Decoder, wire::WireState};
pub(super) use finish::finish;
pub(super) use progress::{Progress, UploadFailure};
use streaming::Streaming;

/// A request's body, as one attempt sends it.
pub(super) enum Upload {
    /// The request has none.
    Empty,
    /// The app's, as it comes.
    Streaming(Reader),
}

/// One attempt's reading of an upload. The last one that was begun reads on; the ones before have what was kept.
pub(super) struct Reader {
    shared: Rc<RefCell<Streaming>>,
    /// How many pieces it has handed on.
    at: usize,
    /// Which of the readers it is.
    turn: u32,
}

impl Upload {
    /// The body of a request that has one, and how to follow its progress.
    pub(super) fn streaming(
        body: Incoming,
        wire: Option<&Arc<WireState>>,
        idle: Option<Duration>,
        gate: Option<Gate>,
    ) -> (Self, Rc<Progress>) {
        let progress = Progress::of_upload(gate.is_some());
        let wire = wire.map(|wire| (wire.clone(), wire.call()));
        let shared = Streaming::new(body, progress.clone(), wire, idle, gate);
        (Self::Streaming(Reader { shared: Rc::new(RefCell::new(shared)), at: 0, turn: 0 }), progress)
    }

    /// From now on its beginning is kept, up to so many bytes, until its answer begins.
    pub(super) fn keep(&self, limit: usize) {
        if let Self::Streaming(reader) = self {
            reader.shared.borrow_mut().begin_to_keep(limit);
        }
    }

    /// From now on it is text that is to become bytes.
    pub(super) fn decode(&self, decoder: Decoder) {
        if let Self::Streaming(reader) = self {
            reader.shared.borrow_mut().decode(decoder);
        }
    }

    /// Whether it can be sent from its beginning: nothing has been handed on yet, or all of that is kept.
    pub(super) fn may_rewind(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(reader) => reader.shared.borrow().may_rewind(),
        }
    }

    /// All of it, in pieces, if it has come to its end and been kept; an empty one has no pieces.
    pub(super) fn whole(&self) -> Option<Vec<Bytes>> {
        match self {
            Self::Empty => Some(Vec::new()),
            Self::Streaming(reader) => reader.shared.borrow().whole(),
        }
    }

    /// The same from its beginning. Whoever has read it before gets no more of what is still to come.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Empty => Self::Empty,
            Self::Streaming(reader) => {
                let turn = reader.shared.borrow_mut().next_turn();
                Self::Streaming(Reader { shared: reader.shared.clone(), at: 0, turn })
            }
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadBroken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streaming(reader) => {
                let frame = reader.shared.borrow_mut().poll(reader.at, reader.turn, cx);
                if let Poll::Ready(Some(Ok(_))) = &frame {
                    reader.at += 1;
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(reader) => reader.shared.borrow().is_at_end(reader.at),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(reader) => reader.shared.borrow().size_hint(reader.at),
        }
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Upload::Empty",
            Self::Streaming(_) => "Upload::Streaming",
        })
    }
}

/// The upload cannot go on; [`Progress::failure`] says why, unless another attempt reads it now.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the app's request body broke off")]
pub(super) struct UploadBroken;
