//! The observe port: metrics, health and views, to read and never to change anything.
//!
//! It may be reached by more than the operator (a scraper, a container platform, a browser), so no path here
//! has an effect, and none shows a secret.

mod hystrix;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    Live, Sidecar,
    answer::{self, Reply},
    serve,
};
use hystrix::Streams;

use crate::{
    service::{Lifecycle, Readiness, Table, view::ServiceView},
    telemetry::Metrics,
};

/// Prometheus' text exposition format.
const METRICS_MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

const INDEX: &str = "<!doctype html>
<html lang=\"en\"><meta charset=\"utf-8\"><title>outrigger</title>
<h1>outrigger</h1>
<p>What this sidecar is doing. Nothing here changes anything.</p>
<ul>
<li><a href=\"/api/services\">/api/services</a>: every service, its endpoints, breaker and policy; also /api/services/NAME
<li><a href=\"/metrics\">/metrics</a>: Prometheus metrics
<li>/hystrix.stream: the same services for Hystrix dashboards and Turbine
<li><a href=\"/health/ready\">/health/ready</a>: whether it is ready, and why not
<li><a href=\"/health/live\">/health/live</a>: whether it runs
</ul>
";

/// Answers on the port for as long as the future is polled.
pub fn serve(
    listener: TcpListener,
    table: Table,
    lifecycle: Lifecycle,
    metrics: Metrics,
) -> impl Future<Output = ()> + Send {
    serve_sidecar(listener, Live { table, lifecycle }, metrics)
}

/// [`serve`], whatever the sidecar.
pub(super) async fn serve_sidecar(listener: TcpListener, sidecar: impl Sidecar, metrics: Metrics) {
    let streams = Streams::default();
    let handler = move |request: Request<_>| {
        let uri = request.uri();
        let reply = match (Page::at(uri.path()), request.method()) {
            (Some(Page::Hystrix), &Method::GET) => hystrix(&streams, uri.query(), sidecar.clone()),
            (page, method) => answer(method, page, &sidecar, &metrics),
        };
        std::future::ready(reply)
    };
    serve::serve(&listener, handler).await;
}

/// A stream of figures, while there are not too many.
fn hystrix(streams: &Streams, query: Option<&str>, sidecar: impl Sidecar) -> Reply {
    match streams.open(query, move || sidecar.samples()) {
        Some(stream) => answer::events(stream.boxed_unsync()),
        None => answer::problem(StatusCode::SERVICE_UNAVAILABLE, "there are as many streams as there may be"),
    }
}

fn answer(method: &Method, page: Option<Page<'_>>, sidecar: &impl Sidecar, metrics: &Metrics) -> Reply {
    let Some(page) = page else {
        return answer::problem(StatusCode::NOT_FOUND, "there is nothing here; / lists what there is");
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return answer::method_not_allowed("GET, HEAD");
    }
    match page {
        Page::Index => answer::reply(StatusCode::OK, "text/html; charset=utf-8", INDEX),
        Page::Live => answer::json(StatusCode::OK, &json!({ "status": "live" })),
        Page::Metrics => {
            sidecar.update_gauges(metrics);
            answer::pieces(METRICS_MEDIA, metrics.pages())
        }
        Page::Hystrix => answer::reply(StatusCode::OK, "text/event-stream", ""),
        Page::View(view) => view.answer(sidecar),
    }
}

/// What there is on the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page<'a> {
    Index,
    Live,
    Metrics,
    Hystrix,
    View(View<'a>),
}

impl<'a> Page<'a> {
    fn at(path: &'a str) -> Option<Self> {
        match path {
            "/" => Some(Self::Index),
            "/health/live" => Some(Self::Live),
            "/metrics" => Some(Self::Metrics),
            "/hystrix.stream" => Some(Self::Hystrix),
            _ => View::at(path).map(Self::View),
        }
    }
}

/// What the command line asks for; the admin socket answers it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View<'a> {
    /// `/health/ready`
    Ready,
    /// `/api/services`
    Services,
    /// `/api/services/NAME`
    Service(&'a str),
}

impl<'a> View<'a> {
    pub(super) fn at(path: &'a str) -> Option<Self> {
        match path {
            "/health/ready" => Some(Self::Ready),
            "/api/services" => Some(Self::Services),
            _ => {
                let name = path.strip_prefix("/api/services/")?;
                (!name.is_empty() && !name.contains('/')).then_some(Self::Service(name))
            }
        }
    }

    pub(super) fn answer(self, sidecar: &impl Sidecar) -> Reply {
        match self {
            Self::Ready => match sidecar.readiness() {
                Readiness::Ready => answer::json(StatusCode::OK, &json!({ "status": "ready" })),
                Readiness::NotReady(why) => {
                    answer::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "not_ready", "why": why }))
                }
            },
            Self::Services => answer::pieces("application/json", listing(sidecar.views())),
            Self::Service(name) => match sidecar.view(name) {
                Some(view) => answer::json(StatusCode::OK, &view),
                None => answer::unknown_service(name),
            },
        }
    }
}

/// A piece of the list is full when it has so many bytes.
const PIECE: usize = 32 * 1024;

/// The document `{"services":[…]}`, in pieces.
fn listing(mut views: impl Iterator<Item = ServiceView> + Send) -> impl Iterator<Item = String> + Send {
    let (mut text, mut separator, mut is_over) = (String::from("{\"services\":["), "", false);
    std::iter::from_fn(move || {
        while !is_over && text.len() < PIECE {
            match views.next().map(|view| serde_json::to_string(&view)) {
                Some(Ok(view)) => {
                    text.push_str(separator);
                    text.push_str(&view);
                    separator = ",";
                }
                Some(Err(error)) => tracing::error!(%error, "cannot write a view as JSON"),
                None => {
                    text.push_str("]}\n");
                    is_over = true;
                }
            }
        }
        (!text.is_empty()).then(|| std::mem::take(&mut text))
    })
}

#[cfg(test)]
mod tests;
