//! The whole handshake under every interleaving: the shipped tool stack, against models of the driver and the front end.
//!
//! The store decides the order of requests, so an interleaving is an order of requests, and everything that any of the
//! parties can know is the answers it got. `replay` runs a party's code as a function of these answers: the same code again
//! from the beginning, up to the first request without an answer. So the tool stack that is explored is the one that is
//! shipped, with nothing rewritten; the driver and the front end are written down from what Linux's do. `explorer` goes
//! through all states, breadth first, and shows the shortest way to one that must not be.

mod actor;
mod driver;
mod explorer;
mod frontend;
mod kernel;
mod mutants;
mod races;
mod replay;
mod scenarios;

pub(crate) use driver::{Driver, Version};
pub(crate) use frontend::{Frontend, Manners};
