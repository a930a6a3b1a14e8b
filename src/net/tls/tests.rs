//! Both sides against each other and against others, over real sockets, with certificates made on the spot.

mod alpn;
mod files;
mod mutual;
mod names;
mod reload;
mod resumption;
mod strangers;
