//! Connections: questions one behind the other, each answered as soon as its answer is there (RFC 7766 §6.2.1.1).
//!
//! Whoever is slow or silent is cut off, and clients of other hosts leave room for those of this one.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};

use super::{
    client::{Client, Outgoing},
    server::Server,
};
use crate::config::is_of_this_host;

/// Connections at once.
const CONNECTIONS: usize = 256;
/// Those of them that other hosts may have.
const OF_OTHERS: usize = 128;
/// How long a question may take to come, and an answer to be taken.
const IDLE: Duration = Duration::from_secs(10);
/// Questions of a connection that are not answered yet.
const PIPELINED: usize = 32;
/// Bytes of a question at most: a name has 255, and options are few.
const LONGEST: u16 = 4096;
/// The pause after an error that may last: no files are left, above all.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers connections until it is dropped.
pub(super) async fn serve(listener: TcpListener, server: Arc<Server>) {
    let all = Arc::new(Semaphore::new(CONNECTIONS));
    let others = Arc::new(Semaphore::new(OF_OTHERS));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection to the DNS responder could not be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        // One too many is closed at once: its client asks elsewhere, or again.
        let Ok(place) = all.clone().try_acquire_owned() else { continue };
        let other = match is_of_this_host(peer.ip()) {
            true => None,
            false => match others.clone().try_acquire_owned() {
                Ok(other) => Some(other),
                Err(_) => continue,
            },
        };
        let server = server.clone();
        tokio::spawn(async move {
            let _places = (place, other);
            converse(stream, peer, &server).await;
        });
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, server: &Arc<Server>) {
    // Fails on no socket that is open.
    let _ = stream.set_nodelay(true);
    let (read, write) = stream.into_split();
    let (replies, outgoing) = mpsc::channel(PIPELINED);
    let mut writing = std::pin::pin!(write_replies(write, outgoing));
    tokio::select! {
        () = read_questions(read, peer, server, replies) => {}
        () = &mut writing => return,
    }
    // Who has closed its side may still want the answers.
    writing.await;
}

async fn read_questions(
    mut read: OwnedReadHalf,
    peer: SocketAddr,
    server: &Arc<Server>,
    replies: mpsc::Sender<Outgoing>,
) {
    let places = Arc::new(Semaphore::new(PIPELINED));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match timeout(IDLE, read_question(&mut read)).await {
            Ok(Ok(question)) => server.handle(&question, Client::Tcp { peer, replies: replies.clone(), place }),
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

async fn read_question(read: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = read.read_u16().await?;
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut question = vec![0; length.into()];
    read.read_exact(&mut question).await?;
    Ok(question)
}

/// Writes replies until nobody can send one any more, or the client takes none.
async fn write_replies(mut write: OwnedWriteHalf, mut outgoing: mpsc::Receiver<Outgoing>) {
    while let Some(Outgoing { bytes, _place }) = outgoing.recv().await {
        // A reply is never longer than its length can say.
        let Ok(length) = u16::try_from(bytes.len()) else { return };
        let framed = [&length.to_be_bytes()[..], &bytes].concat();
        match timeout(IDLE, write.write_all(&framed)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
