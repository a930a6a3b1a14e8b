//! An upstream that answers when it is told to.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::Semaphore;

use super::{Origin, eventually, origin::ok};

/// Reads requests at once, and answers each with 200 and its own path when it is released, oldest or not.
pub(crate) struct Held {
    origin: Origin,
    places: Arc<Semaphore>,
}

impl Held {
    pub(crate) async fn start() -> Self {
        let places = Arc::new(Semaphore::new(0));
        let origin = Origin::scripted({
            let places = places.clone();
            move |mut exchange| {
                let places = places.clone();
                async move {
                    while let Some(request) = exchange.request().await {
                        places.acquire().await.unwrap().forget();
                        let path = request.split(' ').nth(1).unwrap_or_default();
                        exchange.send(ok(path)).await;
                    }
                }
            }
        })
        .await;
        Self { origin, places }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.origin.addr()
    }

    /// Requests read so far.
    pub(crate) fn requests(&self) -> usize {
        self.origin.requests()
    }

    /// Waits until so many requests have been read, all in all.
    pub(crate) async fn has_read(&self, n: usize) {
        eventually("requests to arrive", async || self.requests() >= n).await;
    }

    /// Lets so many requests be answered.
    pub(crate) fn release(&self, n: usize) {
        self.places.add_permits(n);
    }
}
