//! Parting from a caller whose handshake failed, so that it learns why.
//!
//! In TLS 1.3 a caller sends its request right behind its certificate. To close a socket that holds unread bytes
//! makes the kernel answer with a reset, and on the other side a reset may overtake the alert that says what is
//! wrong. So what still comes is read and thrown away, for a moment.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long the caller has to take in the alert and close.
const PATIENCE: Duration = Duration::from_millis(250);
/// How much of what it sends meanwhile is taken in.
const MAX_BYTES: u64 = 256 * 1024;

/// Says that nothing more will come, and reads until the caller closes, or has had its time.
pub(super) async fn part(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = stream.take(MAX_BYTES);
    let mut scrap = [0; 4096];
    let drained = async { while rest.read(&mut scrap).await.is_ok_and(|n| n > 0) {} };
    let _ = tokio::time::timeout(PATIENCE, drained).await;
}
