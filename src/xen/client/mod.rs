//! The real store: its wire protocol, over a unix socket or the kernel's device.
//!
//! | file | what it does |
//! |---|---|
//! | `message` | headers, and requests as bytes |
//! | `reply` | what comes back, checked |
//! | `inbox` | events that nobody has asked for yet, in bounded memory |
//! | `transport` | the socket of `xenstored`, or `/dev/xen/xenbus` |
//! | `connection` | one request at a time, events in between |
//!
//! Nothing that the other side sends is trusted: a message that is not what it must be ends the connection with
//! [`Malformed`](super::store::StoreError::Malformed), because what follows it cannot be told apart any more.

mod connection;
mod inbox;
mod message;
mod reply;
mod transport;

pub use connection::Connection;
pub use transport::{Transport, connect, connect_device, connect_socket};
