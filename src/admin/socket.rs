//! The admin socket: HTTP over a Unix socket, for changes.
//!
//! Whoever may open the file may change the sidecar, so the file's mode is the whole of its access control:
//! 0600, the owner and root. TCP is not offered: on a host, every process of every user could reach it.
//!
//! | request | effect |
//! |---|---|
//! | `POST /breaker/NAME/open`, `closed` or `auto` | forces the breaker, or lets it decide again |
//! | `POST /drain/IP:PORT` | no new attempts to the endpoint, in every service that has it |
//! | `POST /drain` | not ready any more, calls go on: the start of a stop |
//! | `POST /shutdown` | the stop that SIGTERM begins; answered at once |
//! | `POST /reload` | reads the configuration file again |
//! | `GET /health/ready`, `/api/services`, `/api/services/NAME` | the observe port's views, for who knows the socket only |
//!
//! A GET anywhere else is a 405: what changes something is never a link. Bodies are not read.

mod file;

use std::net::SocketAddr;

use http::{Method, Request, StatusCode};
use serde_json::json;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
};

pub use self::file::{AdminSocket, BindError, bind};
use super::{
    Live, ReloadRequest, Sidecar,
    answer::{self, Reply},
    observe::View,
    serve,
};
use crate::{
    policy::breaker::Forced,
    service::{ForceError, Lifecycle, Table},
};

/// Answers on the socket for as long as the future is polled; then removes its file.
///
/// # Errors
/// The socket cannot be handed to the runtime; never after that.
pub async fn serve(
    socket: AdminSocket,
    table: Table,
    lifecycle: Lifecycle,
    reload: mpsc::Sender<ReloadRequest>,
) -> std::io::Result<()> {
    serve_sidecar(socket, Live { table, lifecycle }, reload).await
}

/// [`serve`], whatever the sidecar.
pub(super) async fn serve_sidecar(
    socket: AdminSocket,
    sidecar: impl Sidecar,
    reload: mpsc::Sender<ReloadRequest>,
) -> std::io::Result<()> {
    let listener = UnixListener::from_std(socket.listener()?)?;
    let handler = move |request: Request<_>| {
        let (sidecar, reload) = (sidecar.clone(), reload.clone());
        async move { answer(request.method(), request.uri().path(), &sidecar, &reload).await }
    };
    serve::serve(&listener, handler).await;
    Ok(())
}

async fn answer(method: &Method, path: &str, sidecar: &impl Sidecar, reload: &mpsc::Sender<ReloadRequest>) -> Reply {
    if let Some(view) = View::at(path) {
        return match *method {
            Method::GET | Method::HEAD => view.answer(sidecar),
            _ => answer::method_not_allowed("GET, HEAD"),
        };
    }
    if *method != Method::POST {
        return answer::method_not_allowed("POST");
    }
    let steps: Vec<&str> = path.split('/').skip(1).collect();
    match steps[..] {
        ["breaker", name, word] => force(sidecar, name, word),
        ["drain", endpoint] => drain(sidecar, endpoint),
        ["drain"] => {
            sidecar.start_draining();
            tracing::info!("draining by an operator's request: not ready, calls go on");
            answer::json(StatusCode::OK, &json!({ "draining": true }))
        }
        ["shutdown"] => {
            tracing::info!("asked to stop by way of the admin socket");
            sidecar.stop();
            answer::json(StatusCode::OK, &json!({ "stopping": true }))
        }
        ["reload"] => ask_for_reload(reload).await,
        _ => answer::problem(
            StatusCode::NOT_FOUND,
            "there is /breaker/NAME/open|closed|auto, /drain, /drain/IP:PORT, /shutdown and /reload",
        ),
    }
}

fn force(sidecar: &impl Sidecar, name: &str, word: &str) -> Reply {
    let Some(forced) = Forced::parse(word) else {
        return answer::problem(
            StatusCode::BAD_REQUEST,
            &format!("a breaker is forced open, closed or auto, not {word:?}"),
        );
    };
    match sidecar.force_breaker(name, forced) {
        Ok(()) => {
            tracing::info!(service = name, forced = forced.as_str(), "breaker set by an operator");
            answer::json(StatusCode::OK, &json!({ "service": name, "forced": forced.as_str() }))
        }
        Err(ForceError::UnknownService) => answer::unknown_service(name),
        Err(ForceError::BreakerIsOff) => {
            answer::problem(StatusCode::CONFLICT, &format!("the breaker of {name} is off in the configuration"))
        }
    }
}

fn drain(sidecar: &impl Sidecar, text: &str) -> Reply {
    let Ok(endpoint) = text.parse::<SocketAddr>() else {
        let detail = format!(
            "{text:?} is not an endpoint: an endpoint is an address and a port, 10.0.0.1:8080 or [fd00::1]:8080"
        );
        return answer::problem(StatusCode::BAD_REQUEST, &detail);
    };
    match sidecar.drain(endpoint) {
        0 => answer::problem(StatusCode::NOT_FOUND, &format!("no service has the endpoint {endpoint}")),
        services => {
            tracing::info!(%endpoint, services, "endpoint drained by an operator");
            answer::json(StatusCode::OK, &json!({ "endpoint": endpoint.to_string(), "services": services }))
        }
    }
}

async fn ask_for_reload(reload: &mpsc::Sender<ReloadRequest>) -> Reply {
    let (reply, replied) = oneshot::channel();
    // A full queue means that reloads are under way already; waiting for a place in it serves nobody.
    if reload.try_send(ReloadRequest { reply }).is_err() {
        return answer::problem(StatusCode::SERVICE_UNAVAILABLE, "a reload is under way, or the sidecar is stopping");
    }
    match replied.await {
        Ok(Ok(changes)) => answer::json(StatusCode::OK, &json!({ "changes": changes })),
        Ok(Err(problems)) => answer::problem(StatusCode::UNPROCESSABLE_ENTITY, &problems),
        Err(_) => answer::problem(StatusCode::SERVICE_UNAVAILABLE, "the sidecar is stopping"),
    }
}

#[cfg(test)]
mod tests;
