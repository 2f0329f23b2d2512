//! A store in memory, with a real one's rules.
//!
//! | file | what it does |
//! |---|---|
//! | `database` | the whole state of a store, as a value: it can be cloned, compared and hashed, and takes one request at a time |
//! | `view` | the tree as a transaction sees it |
//! | `tree` | nodes, and who may do what with them |
//! | `limits` | what one guest may use up |
//! | `server` | a database that threads share, and the connections to it |
//!
//! One test suite holds it and a real xenstored to the same rules (`tests/xen`).

mod database;
mod limits;
mod server;
mod tree;
mod view;

pub use database::{ConnectionId, Database};
pub use limits::Limits;
pub use server::{Clock, Connection, Server};
pub use tree::Node;
