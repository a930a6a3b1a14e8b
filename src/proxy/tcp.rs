//! Services that speak no HTTP (`protocol: tcp`): databases, brokers, and whatever else has a connection for a call.
//!
//! To the policies such a connection is a call like any other. It waits for its place in the bulkhead and keeps it
//! for life; `request` bounds the time until it is connected, all attempts included, and `total` all of it. To
//! connect is all that can be judged without knowing what is spoken, so that is what an attempt is to the breaker:
//! it has succeeded as soon as its connection stands. Nothing of the app's has been read by then (what it sent
//! waits in the kernel), so every attempt that fails may be repeated, at another endpoint where there is one.
//!
//! There is no way to say in words what went wrong. Whatever does not end well is reset, on both sides, as the app
//! would see it without us: an end would look like one that was meant, and what was cut short like a whole.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use tokio::{io::Interest, net::TcpStream, time::sleep};

use super::{
    Failure,
    attempt::{Attempt, ENDPOINT_GONE, Failed, Interrupted, within},
    call::{Call, admit},
    connection::Control,
    exchange::unconnected,
    note::Note,
    sniff::Rewound,
    tunnel::{self, End, Limits},
    worker::Worker,
};
use crate::{
    config::{Entry, Protocol},
    model::{Outcome, Reason},
    net::{stream::Stream, tcp},
    policy::deadline::Deadline,
    service::Service,
    upstream::{self, Open},
};

/// The service of an entry, if connections to it are to be carried as they are.
pub(super) fn service(worker: &Worker, entry: &Entry) -> Option<Arc<Service>> {
    let Entry::Service(name) = entry else { return None };
    let services = worker.table.current();
    services.find(name.as_str()).filter(|service| is_tcp(service)).inspect(|service| service.ask_for()).cloned()
}

/// Whether a service speaks no HTTP.
pub(super) fn is_tcp(service: &Service) -> bool {
    service.config().policy.protocol == Protocol::Tcp
}

/// A connection to an endpoint.
pub(super) struct Connected {
    attempt: Attempt,
    stream: Stream,
    /// Counts it as open.
    counted: Open,
}

/// What an app's bytes are carried over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// What the service says: under TLS, if it has TLS to its endpoints.
    OfService,
    /// Plain TCP, as the app itself speaks TLS with the endpoint.
    Raw,
}

/// What the access log wants to know of a connection, when there is one.
pub(super) fn note(worker: &Worker, stream: &TcpStream) -> Option<Box<Note>> {
    let services = worker.table.current();
    let log = services.traffic().access_log.as_ref();
    log.map(|log| Box::new(Note::of_connection(log, stream.peer_addr().ok())))
}

/// Serves one connection of an app, from its first moment to its last. `open` counts it as open.
pub(super) async fn serve<Open>(mut call: Call, control: Rc<Control>, app: Rewound, link: Link, open: Open) {
    let worker = call.worker.clone();
    let connected = {
        let mut connecting = pin!(async {
            tokio::select! {
                biased;
                // The only thing that can be told of an app without reading what it says.
                _ = app.tcp().ready(Interest::ERROR) => Err(Failure::gone("the app went away before it was connected")),
                connected = connect(&mut call, link) => connected,
            }
        });
        poll_fn(|cx| {
            control.listen(cx);
            connecting.as_mut().poll(cx)
        })
        .await
    };
    match connected {
        Ok(connected) => {
            // Should the app have come by a redirect rule, and the rule take this for an app's, it must not come round.
            let addrs = connected.stream.tcp().local_addr().ok().zip(connected.stream.tcp().peer_addr().ok());
            let _known = addrs.map(|(from, to)| worker.outgoing.enter(from, to));
            carry(call, &control, app, connected).await;
        }
        Err(failure) => {
            // In this order: who sees the reset finds the call counted.
            call.note_failure(&failure);
            call.end(worker.now(), failure.outcome);
            tcp::reset_on_close(app.tcp());
            drop(app);
        }
    }
    drop(open);
}

/// Connects to an endpoint, whatever that takes, within the call's limits.
pub(super) async fn connect(call: &mut Call, link: Link) -> Result<Connected, Failure> {
    let mut now = admit(call).await?;
    let settings = call.service.config().policy.retry.clone();
    let mut tried = Vec::new();
    let mut before = None;
    loop {
        let attempt = match Attempt::begin(call, None, &tried, now) {
            Ok(attempt) => attempt,
            // Why it was tried again tells more than why it was not once more.
            Err(refusal) => {
                if before.is_some()
                    && let Some(retries) = call.service.retries()
                {
                    retries.put_back();
                }
                return Err(before.unwrap_or(refusal));
            }
        };
        if before.is_some() {
            call.service.metrics().retried("connect");
        }
        tried.push(attempt.endpoint());
        let failure = match attempt_to_connect(call, attempt, link, now).await {
            Ok(connected) => return Ok(connected),
            Err(failure) => failure,
        };
        now = call.worker.now();
        let Some(settings) = settings.as_ref().filter(|settings| settings.on.connect) else { return Err(failure) };
        let has_more = (tried.len() as u32) < settings.attempts;
        if failure.reason == Reason::ShuttingDown || !has_more || call.deadline.is_over(now) {
            return Err(failure);
        }
        if call.service.retries().is_some_and(|retries| !retries.take(now)) {
            call.service.metrics().retry_budget_exhausted.inc();
            return Err(failure);
        }
        if !call.service.has_other(&tried) {
            // A server that restarts has often no more than a moment without its port: half the pause at least.
            let share = 0.5 + call.worker.random.borrow_mut().share() / 2.0;
            let pause = settings.pause(tried.len() as u32, share);
            match within(&call.worker, &call.alarm, None, call.deadline.head(), pin!(sleep(pause))).await {
                Ok(()) => now = call.worker.now(),
                Err(Interrupted::CutOff) => return Err(stopped()),
                Err(_) => return Err(failure),
            }
        }
        before = Some(failure);
    }
}

/// Makes one attempt. The breaker knows its outcome when this returns.
async fn attempt_to_connect(
    call: &Call,
    mut attempt: Attempt,
    link: Link,
    started: Instant,
) -> Result<Connected, Failure> {
    let worker = &call.worker;
    let timeouts = &call.service.config().policy.timeout;
    let by = Deadline::of_connect(call.deadline.of_attempt(started, timeouts), started, timeouts);
    let target = attempt.target();
    let dialling = async {
        match link {
            Link::OfService => upstream::dial(target, by).await,
            Link::Raw => tcp::dial(target.addr(), by).await.map(Stream::from),
        }
    };
    let dialled = within(worker, &call.alarm, Some(target), None, pin!(dialling)).await;
    let failed = match dialled {
        Ok(Ok(stream)) => {
            attempt.settle(worker.now(), Outcome::Ok);
            let counted = attempt.keep_counted(worker);
            return Ok(Connected { attempt, stream, counted });
        }
        Ok(Err(error)) => unconnected(&attempt, error),
        Err(Interrupted::EndpointGone) => Failed::of_nobody(Failure::new(Reason::UpstreamReset, ENDPOINT_GONE)),
        Err(Interrupted::CutOff | Interrupted::Deadline) => Failed::of_nobody(stopped()),
    };
    attempt.end(worker.now(), failed.outcome);
    Err(failed.failure)
}

fn stopped() -> Failure {
    Failure::new(Reason::ShuttingDown, "the sidecar stopped before an endpoint was connected")
}

/// Carries bytes until the connection is over, and lets both sides know how it ended.
pub(super) async fn carry(mut call: Call, control: &Control, mut app: Rewound, connected: Connected) {
    let Connected { attempt, stream: mut endpoint, counted } = connected;
    let worker = call.worker.clone();
    let limits = Limits { silence: call.service.config().policy.timeout.idle, end: call.deadline.end() };
    let (end, carried) = tunnel::carry(&worker, control, Some(&attempt), &mut app, &mut endpoint, limits).await;
    if end != End::Clean {
        [app.tcp(), endpoint.tcp()].into_iter().for_each(tcp::reset_on_close);
    }
    // In this order: whoever gets the place finds the endpoint without the connection, and who sees the end of its
    // connection finds the call counted.
    drop((endpoint, counted));
    call.note_tunnel(end, carried);
    let now = worker.now();
    let of_attempt = match end {
        // The endpoint has no part in these.
        End::AppReset | End::CutOff | End::EndpointGone => Outcome::Cancelled,
        End::Clean | End::EndpointReset | End::Silence | End::Overdue => end.outcome(),
    };
    attempt.end(now, of_attempt);
    call.end(now, end.outcome());
    drop(app);
}
