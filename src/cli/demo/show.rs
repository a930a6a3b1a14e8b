//! The show: upstreams, sidecar and caller in one process, and a picture of them.
//!
//! Upstreams and caller have a thread each, so that drawing, or a terminal that blocks, holds up no
//! call; the sidecar has its own. This file is the order in which things start, and end.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};

use super::{
    caller::{Calls, OUTSTANDING, lock},
    cast::CAST,
    character::Mood,
    client::Client,
    end_asked_for,
    picture::{self, Scene},
    screen::{Screen, over, say},
    statistics::Statistics,
    story,
    upstream::Upstream,
    watch::{BreakerState, Watch},
};
use crate::service::view::ServiceView;

/// How often the breakers are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Looks between two pictures.
const LOOKS_A_PICTURE: u64 = 2;

/// A thread with a runtime of its own, which ends when this drops.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Dropping it is the word to end.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Stage {
    /// Runs a future on a thread of this name until it ends or the stage drops.
    pub(crate) fn start(name: &str, work: impl Future<Output = ()> + Send + 'static) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = work => {}
                    _ = ended => {}
                }
            });
        })?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there has been printed already.
            let _ = thread.join();
        }
    }
}

/// The embedded upstreams: where they listen, and what keeps them going.
#[derive(Debug)]
pub(crate) struct Upstreams {
    /// Addresses by service, in the order of [`CAST`].
    pub endpoints: Vec<Vec<SocketAddr>>,
    _stage: Stage,
}

impl Upstreams {
    /// Starts all of the cast on free ports; their schedule begins at `start`.
    pub(crate) fn start(start: Instant) -> io::Result<Self> {
        let (mut endpoints, mut listeners) = (Vec::new(), Vec::new());
        for role in CAST {
            let mut addresses = Vec::new();
            for number in 1..=role.endpoints {
                let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
                listener.set_nonblocking(true)?;
                addresses.push(listener.local_addr()?);
                let instance = format!("{}-{number}", role.name);
                listeners.push((listener, Upstream::new(role.name, &instance, role.character, start)));
            }
            endpoints.push(addresses);
        }
        let stage = Stage::start("demo-upstreams", async move {
            for (listener, upstream) in listeners {
                // It can fail only where the runtime cannot register a socket; the calls will show it.
                if let Ok(listener) = TcpListener::from_std(listener) {
                    tokio::spawn(Arc::new(upstream).serve(listener));
                }
            }
            std::future::pending::<()>().await;
        })?;
        Ok(Self { endpoints, _stage: stage })
    }
}

/// What the show is to be like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Show {
    /// When the upstreams' schedule began.
    pub start: Instant,
    /// The sidecar's shared port.
    pub http: SocketAddr,
    /// Its observe port.
    pub observe: SocketAddr,
    /// Calls per second and service.
    pub rate: u32,
    /// How long it goes; `None` until somebody ends it.
    pub length: Option<Duration>,
}

impl Show {
    /// Calls and draws until the time is over or somebody ends it; gives the summary.
    ///
    /// # Errors
    /// When the output cannot be written to, or the caller's thread cannot be had.
    pub(crate) async fn run(self, screen: Screen) -> io::Result<String> {
        let statistics = Arc::new(Mutex::new(Statistics::new(CAST.iter().map(|role| role.name))));
        let services = CAST.iter().map(|role| role.name.to_owned()).collect();
        let calls = Calls { via: Some(self.http), services, rate: self.rate, outstanding: OUTSTANDING };
        let caller = Stage::start("demo-caller", calls.make(self.start, Arc::clone(&statistics)))?;

        let mut breakers = vec![Watch::default(); CAST.len()];
        let observe = Client::new(self.observe);
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut asked = std::pin::pin!(end_asked_for());
        let mut over = std::pin::pin!(end_of(self.start, self.length));
        let (mut look, mut told) = (0u64, 0);
        loop {
            tokio::select! {
                biased;
                result = &mut asked => { result?; break }
                () = &mut over => break,
                _ = looks.tick() => {}
            }
            watch(&observe, self.start, &mut breakers).await;
            look += 1;
            self.draw(&screen, look, &mut told, &statistics, &breakers)?;
        }
        // The last second, which ends together with the show.
        self.draw(&screen, look, &mut told, &statistics, &breakers)?;
        let elapsed = self.start.elapsed();
        drop(caller);
        drop(screen);
        let statistics = lock(&statistics).clone();
        Ok(story::story(elapsed, self.rate, &statistics, &breakers))
    }

    fn draw(
        &self,
        screen: &Screen,
        look: u64,
        told: &mut u64,
        statistics: &Mutex<Statistics>,
        breakers: &[Watch],
    ) -> io::Result<()> {
        let elapsed = self.start.elapsed();
        let due = match screen {
            Screen::Drawn(..) => look.is_multiple_of(LOOKS_A_PICTURE),
            Screen::Lines => elapsed.as_secs() > *told,
        };
        if !due {
            return Ok(());
        }
        *told = elapsed.as_secs();
        // A copy, so that the caller never waits for a terminal.
        let statistics = lock(statistics).clone();
        // A line speaks of the second that has ended, a picture of now.
        let spoken_of = match screen {
            Screen::Drawn(..) => elapsed,
            Screen::Lines => elapsed.saturating_sub(Duration::from_secs(1)),
        };
        let moods: Vec<Mood> = CAST.iter().map(|role| role.character.mood(spoken_of)).collect();
        let (http, observe) = (self.http, self.observe);
        let scene = Scene { elapsed, http, observe, statistics: &statistics, moods: &moods, breakers };
        match screen {
            Screen::Drawn(_, paint) => say(&over(&picture::picture(&scene, *paint))),
            Screen::Lines => say(&(picture::line(&scene) + "\n")),
        }
    }
}

async fn end_of(start: Instant, length: Option<Duration>) {
    match length.and_then(|length| start.checked_add(length)) {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Looks at the breakers once; a look that fails leaves the picture as it was.
async fn watch(observe: &Client, start: Instant, breakers: &mut [Watch]) {
    let Ok(Ok(answer)) = timeout(Duration::from_secs(1), observe.get("outrigger", "/api/services")).await else {
        return;
    };
    let at = start.elapsed();
    for view in services(answer.body()) {
        let Some(index) = CAST.iter().position(|role| role.name == view.name) else { continue };
        let state = view.breaker.map_or(BreakerState::Unknown, |breaker| BreakerState::from_word(&breaker.state));
        breakers[index].saw(at, state);
    }
}

/// The views in an answer of `/api/services`; none when it is not one.
fn services(json: &[u8]) -> Vec<ServiceView> {
    #[derive(serde::Deserialize)]
    struct Answer {
        services: Vec<ServiceView>,
    }
    serde_json::from_slice::<Answer>(json).map(|answer| answer.services).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use http_body_util::Full;
    use hyper::{body::Bytes, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;

    use super::*;

    /// A forwarder without any policy, in the sidecar's place, whose API says that payments' breaker is open.
    async fn forward(listener: TcpListener, endpoints: Vec<Vec<SocketAddr>>) {
        let clients: Arc<Vec<Client>> = Arc::new(endpoints.iter().map(|addresses| Client::new(addresses[0])).collect());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let clients = Arc::clone(&clients);
            let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                let clients = Arc::clone(&clients);
                async move {
                    if request.uri().path() == "/api/services" {
                        return Ok(Response::new(Full::new(Bytes::from_static(API.as_bytes()))));
                    }
                    let host = request.headers()["host"].to_str().unwrap().to_owned();
                    let place = CAST.iter().position(|role| role.name == host).unwrap();
                    clients[place].get(&host, "/").await.map(|answer| answer.map(Full::new))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    }

    const API: &str = r#"{"services":[{"name":"payments","entry":{"hosts":["payments"],"shared":"127.0.0.1:1"},
        "source":{"kind":"static","detail":"config","revision":1},"endpoints":[],"policy":{},"calls":{},
        "breaker":{"state":"open","forced":"auto","mode":"on","calls":20,"failures":20,"slow":0}}]}"#;

    #[tokio::test]
    async fn a_show_calls_watches_and_tells() {
        let start = Instant::now();
        let upstreams = Upstreams::start(start).unwrap();
        assert_eq!(upstreams.endpoints.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2, 2]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap();
        tokio::spawn(forward(listener, upstreams.endpoints.clone()));
        let length = Some(Duration::from_millis(600));
        let told = Show { start, http, observe: http, rate: 50, length }.run(Screen::Lines).await.unwrap();
        assert!(told.contains("catalog noticed nothing of this: "), "{told}");
        assert!(told.contains("payments had no trouble yet"), "{told}");
    }

    #[tokio::test]
    async fn the_breakers_are_read_from_the_observe_port() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let observe = Client::new(listener.local_addr().unwrap());
        tokio::spawn(forward(listener, Vec::new()));
        let mut breakers = vec![Watch::default(); 3];
        watch(&observe, Instant::now(), &mut breakers).await;
        let states: Vec<_> = breakers.iter().map(Watch::now).collect();
        assert_eq!(states, [BreakerState::Unknown, BreakerState::Open, BreakerState::Unknown]);
        assert!(services(b"not json").is_empty());
    }
}
