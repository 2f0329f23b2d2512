//! Giving devices to Xen's paravirtualised guests: the tool stack's side of xen-pciback.
//!
//! Three parties share a subtree of xenstore: the tool stack (this module), Linux's driver xen-pciback in the backend
//! domain, and xen-pcifront in the guest. Nobody calls anybody; each writes, and watches what the others write. What
//! protects a guest from seeing half of what was meant is only the order and the grouping of writes, and that is what
//! this module is about: a set of devices appears in one transaction, and an index is used again only when both other
//! sides are at rest.
//!
//! | module | what it does |
//! |---|---|
//! | [`store`] | what a xenstore is; the trait [`Store`](store::Store) |
//! | [`client`] | the real store, by its wire protocol |
//! | [`memory`] | a store in memory, with the same rules |
//! | [`spec`] | xl's strings for a device |
//! | [`pciback`] | the tool stack's side of the protocol |
//! | [`assignable`] | devices between the host's drivers and xen-pciback |
//! | [`manager`] | all of it as one tool stack, on the engine |
//! | [`hypercall`] | what the hypervisor itself must be asked for |
//!
//! `docs/xen.md` has the design and what is not there yet.

#[forbid(unsafe_code)]
pub mod assignable;
#[forbid(unsafe_code)]
pub mod client;
pub mod hypercall;
#[forbid(unsafe_code)]
pub mod manager;
#[forbid(unsafe_code)]
pub mod memory;
#[forbid(unsafe_code)]
pub mod pciback;
#[forbid(unsafe_code)]
pub mod spec;
#[forbid(unsafe_code)]
pub mod store;
