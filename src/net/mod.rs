//! Speaking to the network: listening and dialling sockets in `tcp`, what passes over them in `stream`, DNS
//! lookups in `resolve`, and in `nft` the firewall rules that redirect connections to us. `stamp` tells
//! whether a file that says something about the network has changed.

pub mod nft;
pub mod resolve;
pub mod stamp;
pub mod stream;
pub mod tcp;
pub mod tls;
