//! Connections that were meant for others, and came to us by a redirect rule (`outrigger intercept`).
//!
//! The app knows nothing of us, so it must not come to know of us either: what is no service's goes where it was meant
//! to go, byte for byte, and switching interception on breaks nothing. The kernel tells where that is. Which service a
//! connection is for is asked of the Host first, and of that address second; `decide` holds the rules, which are pure.
//! From there on a connection that speaks HTTP is one like on the shared port, with the one difference that a request
//! whose Host names nobody is for the service whose address was called.
//!
//! What cannot be kept from the app: its connection is accepted before anybody has asked the other side. Where that
//! cannot be reached, the app's connection is reset, as soon as that is known.
//!
//! A connection of our own that is redirected to us would come round for ever. The rules leave those alone; should they
//! not, for they name another user, it is known by its addresses (`outgoing`) and reset.

mod decide;

use std::{
    future::{Future as _, poll_fn},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    connection::Control,
    sniff::{self, Rewound},
    tcp::is_tcp,
    tunnel::{self, End, Limits},
    worker::Worker,
};
use crate::{
    model::ServiceName,
    net::{stream::Stream, tcp},
    service::{Service, Wanted},
    telemetry::metrics::Way,
};
use decide::{Decision, Known, decide, host_of};

/// How long an app may take to say something to an address that we do not know: the other side may be the one that
/// speaks first, and learns of the app only then.
const SILENCE: Duration = Duration::from_millis(100);

/// How long the other side may take to accept. The kernel would try for two minutes; but an app that has given up
/// meanwhile and one that has said all it had to say look the same from here, and neither may hold a place so long.
const CONNECT: Duration = Duration::from_secs(30);

/// Bytes that are read at first, as many as on any other connection.
const FIRST: usize = 512;

/// What becomes of a connection.
pub(super) enum Received {
    /// It speaks HTTP, and was meant for an address of this service, if of any.
    Http { stream: Rewound, meant: Option<ServiceName> },
    /// It was meant for a service that is not to be read.
    Bytes { stream: TcpStream, service: Arc<Service> },
    /// Nothing more; it is over.
    Over,
}

/// Finds out where a connection was meant to go, and takes it there if that is no business of ours.
pub(super) async fn receive(worker: &Worker, control: &Rc<Control>, stream: TcpStream) -> Received {
    let Some(destination) = destination(&stream) else {
        return Received::Http { stream: Stream::from(stream).into(), meant: None };
    };
    if leads_back(worker, &stream, destination) {
        return Received::Over;
    }
    let service = worker.table.current().at(destination);
    if let Some(service) = service.clone().filter(|service| is_tcp(service)) {
        worker.intercepted(Way::Address);
        tracing::debug!(%destination, service = %service.name(), "intercepted a connection, by its address");
        return Received::Bytes { stream, service };
    }
    let Some((stream, decision)) = listen(worker, control, stream.into(), service.as_deref()).await else {
        return Received::Over;
    };
    let decision = match decision {
        Decision::Pass if is_made(worker, &stream).await => Decision::Serve(Way::Host),
        decision => decision,
    };
    match decision {
        Decision::Serve(way) => {
            worker.intercepted(way);
            tracing::debug!(%destination, by = way.as_str(), "intercepted a connection");
            Received::Http { stream, meant: service.map(|service| service.name().clone()) }
        }
        // Once more: whoever connected for us may not yet have entered that at first, but has before it says anything.
        Decision::Pass | Decision::Wait { .. } if leads_back(worker, stream.tcp(), destination) => Received::Over,
        Decision::Pass | Decision::Wait { .. } => {
            worker.intercepted(Way::Passed);
            // It is none of our calls, but a stop has to wait for it all the same.
            worker.call_begins();
            pass(worker, control, stream, destination).await;
            worker.call_ends();
            Received::Over
        }
    }
}

/// Whether a connection came from us, or would come to us; it is reset then.
fn leads_back(worker: &Worker, stream: &TcpStream, destination: SocketAddr) -> bool {
    let is_own = stream.peer_addr().is_ok_and(|peer| worker.outgoing.has(peer, destination));
    let leads_back = is_own || worker.table.current().is_listener(destination);
    if leads_back {
        worker.outgoing.complain(destination);
        tcp::reset_on_close(stream);
    }
    leads_back
}

/// Has the service made that a request's Host names, where the configuration makes services of names; where there is
/// none behind the name, the connection is nobody's here.
async fn is_made(worker: &Worker, stream: &Rewound) -> bool {
    let name = {
        let services = worker.table.current();
        let host = services.wildcard().and_then(|_| host_of(stream.first(), services.traffic().limits.headers));
        host.and_then(|host| services.summonable(&host))
    };
    match name {
        Some(name) => worker.summon(Wanted::Named(name)).await.is_some_and(|service| !is_tcp(&service)),
        None => false,
    }
}

/// Where a connection was meant to go; `None` for one that was meant for us, or of which nobody knows.
fn destination(stream: &TcpStream) -> Option<SocketAddr> {
    let meant = SockRef::from(stream).original_dst_v4().ok()?.as_socket()?;
    (stream.local_addr().ok()? != meant).then_some(meant)
}

/// Reads until it is clear what to do, within the limits. `None` when the connection has failed, or is to be closed.
async fn listen(
    worker: &Worker,
    control: &Control,
    mut stream: Stream,
    service: Option<&Service>,
) -> Option<(Rewound, Decision)> {
    let table = worker.table.clone();
    let limits = table.current().traffic().limits;
    let names = |host: &str| table.current().find(host).is_some_and(|service| !is_tcp(service));
    let known = Known { is_address: service.is_some(), names: &names, headers: limits.headers };
    let mut first = BytesMut::with_capacity(FIRST);
    // A service's endpoint that speaks HTTP has nothing to say before it is asked.
    let mut deadline = service.is_none().then(|| Instant::now() + SILENCE);
    let mut was_in_head = false;
    loop {
        let read = sniff::read(worker, control, &mut stream, &mut first);
        let read = match deadline {
            None => read.await?,
            Some(deadline) => timeout_at(deadline, read).await.unwrap_or(Some(0))?,
        };
        let is_all = read == 0 || first.len() >= limits.header_bytes;
        match decide(&first, is_all, &known) {
            Decision::Wait { in_head } => {
                // The head of a request is an app's to finish, and has the time that it has anywhere.
                if deadline.is_none() || in_head && !was_in_head {
                    deadline = Some(Instant::now() + limits.header_timeout);
                }
                was_in_head = in_head;
            }
            decided => return Some((Rewound::new(first.freeze(), stream), decided)),
        }
    }
}

/// Takes a connection where it was meant to go, and lets either side know what becomes of the other.
async fn pass(worker: &Worker, control: &Rc<Control>, mut app: Rewound, destination: SocketAddr) {
    let connected = {
        let mut connecting = pin!(async {
            tokio::select! {
                biased;
                // The only thing that can be told of an app without reading what it says.
                _ = app.tcp().ready(Interest::ERROR) => None,
                dialled = tcp::dial(destination, Some(worker.now() + CONNECT)) => Some(dialled),
            }
        });
        poll_fn(|cx| {
            control.listen(cx);
            if worker.is_cut_off() {
                return Poll::Ready(None);
            }
            connecting.as_mut().poll(cx)
        })
        .await
    };
    let beyond = match connected {
        Some(Ok(beyond)) => beyond,
        failed => {
            let error = failed.and_then(Result::err);
            tracing::debug!(%destination, ?error, "a connection that passes could not be made");
            tcp::reset_on_close(app.tcp());
            return;
        }
    };
    tracing::debug!(%destination, "a connection passes");
    let _known = beyond.local_addr().ok().map(|local| worker.outgoing.enter(local, destination));
    // Without a limit on time, an app that has gone without a word could be waited for for ever.
    tcp::keep_alive(app.tcp());
    let mut beyond = Stream::from(beyond);
    let (end, carried) = tunnel::carry(worker, control, None, &mut app, &mut beyond, Limits::default()).await;
    tracing::debug!(%destination, ?end, ?carried, "a connection that passed has ended");
    if end != End::Clean {
        [app.tcp(), beyond.tcp()].into_iter().for_each(tcp::reset_on_close);
    }
}
