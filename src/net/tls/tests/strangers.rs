//! Peers that speak no TLS, or too little of it.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::super::{
    Client, Offer, Server,
    testing::{Authority, Folder, inbound, sockets, tls},
};

/// What we say of an endpoint that answers so, and then closes.
async fn of_endpoint(answer: &[u8]) -> String {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let client = Client::new(&tls(&folder.write("ca.pem", authority.pem()))).unwrap();
    let (near, mut far) = sockets().await;
    let answer = async {
        let _hello = far.read(&mut [0; 2048]).await.unwrap();
        far.write_all(answer).await.unwrap();
        far.shutdown().await.unwrap();
    };
    let (connected, ()) = tokio::join!(client.connect(near, "x", Offer::Either), answer);
    connected.unwrap_err().0
}

#[tokio::test]
async fn an_endpoint_that_speaks_no_tls_is_called_that() {
    for answer in [
        "HTTP/1.1 400 Bad Request\r\n\r\n".as_bytes(),
        b"-ERR unknown command\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64",
    ] {
        let why = of_endpoint(answer).await;
        assert!(why.starts_with("it does not speak TLS on this port"), "{why}");
    }
}

#[tokio::test]
async fn an_endpoint_that_closes_is_called_that() {
    let why = of_endpoint(b"").await;
    assert!(why.starts_with("it closed the connection during the handshake"), "{why}");
}

#[tokio::test]
async fn an_endpoint_that_talks_nonsense_in_tls_does_no_harm() {
    let answers: [&[u8]; 4] =
        [&[22, 3, 3, 0, 4, 2, 0, 0, 0], &[22, 3, 3, 0xff, 0xff], &[21, 3, 3, 0, 2, 2, 80], &[20, 3, 3]];
    for answer in answers {
        assert!(!of_endpoint(answer).await.is_empty());
    }
}

/// What we say of a caller that sends this, and then closes.
async fn of_caller(sent: &[u8]) -> String {
    let (folder, authority) = (Folder::new(), Authority::new("us"));
    let server = Server::new(&inbound(folder.pair("me", &authority.issue(&["me"])), None)).unwrap();
    let (mut near, far): (TcpStream, TcpStream) = sockets().await;
    let call = async {
        near.write_all(sent).await.unwrap();
        near.shutdown().await.unwrap();
        let _ = near.read_to_end(&mut Vec::new()).await;
    };
    let (accepted, ()) = tokio::join!(server.accept(far), call);
    accepted.unwrap_err().0
}

#[tokio::test]
async fn a_caller_that_speaks_no_tls_is_called_that() {
    for sent in ["GET / HTTP/1.1\r\nhost: me\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let why = of_caller(sent.as_bytes()).await;
        assert!(why.starts_with("it does not speak TLS on this port"), "{why}");
    }
    let why = of_caller(b"").await;
    assert!(why.starts_with("it closed the connection"), "{why}");
}
