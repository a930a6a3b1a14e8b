//! The receiving side: who calls our own app.
//!
//! A caller proves who it is by its certificate, once a connection. Each of its calls is then held against the
//! names that may call, since those may change by a reload while the connection lasts; and the app is told the
//! name, in a header that nobody else can write.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{net::TcpStream, time::timeout};

use super::{Failure, connection::Control, worker::Worker};
use crate::{
    model::{Outcome, Reason},
    net::{stream::Stream, tls::Identity},
    service::{Inbound, Service},
};

/// Who calls, as the app is told.
pub(super) const CALLER: HeaderName = HeaderName::from_static("x-outrigger-caller");

/// A caller's connection.
pub(super) struct Received {
    pub(super) stream: Stream,
    pub(super) identity: Identity,
}

/// Takes a connection in: under TLS, if that is asked for. A caller that fails there gets an alert, as TLS has it,
/// and counts as a call with `tls_failed`; `None` also when the connection is to be closed.
pub(super) async fn receive(
    worker: &Worker,
    control: &Rc<Control>,
    stream: TcpStream,
    limit: Duration,
) -> Option<Received> {
    let (service, tls) = {
        let services = worker.table.current();
        let inbound = services.inbound()?;
        (inbound.service().clone(), inbound.tls().cloned())
    };
    let Some(tls) = tls else { return Some(Received { stream: stream.into(), identity: Identity::default() }) };
    let (peer, started) = (stream.peer_addr().ok(), worker.now());
    let accepted = {
        let mut accepting = pin!(timeout(limit, tls.accept(stream)));
        poll_fn(|cx| {
            control.listen(cx);
            if control.is_finishing() || worker.is_cut_off() {
                return Poll::Ready(None);
            }
            accepting.as_mut().poll(cx).map(Some)
        })
        .await?
    };
    let why = match accepted {
        Ok(Ok(accepted)) => return Some(Received { stream: accepted.stream, identity: accepted.identity }),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the handshake took too long".to_owned(),
    };
    tracing::info!(peer = ?peer, why, "a caller was turned away");
    let outcome = Outcome::Failed(Reason::TlsFailed);
    service.call_ended(outcome, worker.now().saturating_duration_since(started));
    None
}

/// Finds the app that a call has come in for, and tells it who calls.
pub(super) fn admit(
    inbound: Option<&Inbound>,
    identity: &Identity,
    headers: &mut HeaderMap,
) -> Result<Arc<Service>, Failure> {
    let Some(inbound) = inbound else {
        return Err(Failure::new(Reason::UnknownService, "there is no app behind this port any more"));
    };
    headers.remove(CALLER);
    let Some(name) = inbound.admits(identity) else {
        let names = identity.names.join(", ");
        let detail = format!("none of the caller's names may call: {names:?}");
        return Err(Failure { service: Some(inbound.service().clone()), ..Failure::new(Reason::NotAllowed, detail) });
    };
    if let (false, Ok(name)) = (name.is_empty(), HeaderValue::from_str(name)) {
        headers.insert(CALLER, name);
    }
    Ok(inbound.service().clone())
}
