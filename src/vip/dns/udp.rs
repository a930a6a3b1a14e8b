//! Datagrams: read in batches, answered from the address that they were sent to.
//!
//! A responder on every address must answer from the one that was asked, or the client takes the answer for somebody
//! else's; the standard library cannot tell which that was, and reads one datagram a system call. quinn-udp does both.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::{io::Interest, net::UdpSocket, task::yield_now, time::sleep};

use super::{client::Client, server::Server};

/// Datagrams read at once.
const BATCH: usize = 16;
/// Bytes read at once from one sender: the kernel may hand over several datagrams joined.
const BUFFER: usize = 64 * 1024;
/// The pause after an error that may last: nothing must spin.
const PAUSE: Duration = Duration::from_millis(10);

/// The responder's socket for datagrams.
#[derive(Debug)]
pub(super) struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Udp {
    /// Takes a bound socket over; must be called within a runtime.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { socket: UdpSocket::from_std(socket)?, state })
    }

    /// Sends a datagram, if the kernel takes it right now.
    pub(super) fn send(&self, bytes: &[u8], peer: SocketAddr, local: Option<IpAddr>) {
        let transmit = Transmit { destination: peer, ecn: None, contents: bytes, segment_size: None, src_ip: local };
        if let Err(error) = self.state.try_send((&self.socket).into(), &transmit) {
            tracing::debug!(%peer, %error, "a reply could not be sent");
        }
    }

    async fn receive(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        loop {
            self.socket.readable().await?;
            let receive = || self.state.recv((&self.socket).into(), buffers, metas);
            match self.socket.try_io(Interest::READABLE, receive) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
    }
}

/// Answers datagrams until it is dropped.
pub(super) async fn serve(server: Arc<Server>) {
    let mut space = vec![0; BATCH * BUFFER];
    let mut metas = [RecvMeta::default(); BATCH];
    loop {
        let mut chunks = space.chunks_mut(BUFFER);
        let mut buffers: [IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let received = match server.udp().receive(&mut buffers, &mut metas).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "the DNS responder's socket fails");
                sleep(PAUSE).await;
                continue;
            }
        };
        for (meta, buffer) in metas.iter().zip(&buffers).take(received) {
            for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                // Nobody can be answered at port 0.
                if meta.addr.port() != 0 {
                    server.handle(datagram, Client::Udp { peer: meta.addr, local: meta.dst_ip });
                }
            }
        }
        // A flood must not keep forwarders' answers, connections and a stop waiting.
        yield_now().await;
    }
}
