//! xen-pciback: the store, its wire protocol, and the tool stack's side.

mod assignable;
mod fate;
mod hypercall;
mod kernels;
mod manager;
mod model;
mod pciback;
mod spec;
mod store;
mod stores;
mod wire;

/// What every test returns.
type Tested = Result<(), Box<dyn std::error::Error>>;
