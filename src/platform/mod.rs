//! What an embedder brings: configuration access, IOMMU, reset, interrupts, policy, and what an owner sees.
//!
//! [`Platform`] is the one trait between this crate and a machine. `lifecycle` decides *what* happens to a device
//! and in which order; a platform knows *how*. [`Simulated`] is a whole machine in memory, for tests, models,
//! `soak` and benchmarks, and can be told to fail, hang or panic at any call.
//!
//! # The rules of every hook
//!
//! - *When, and on which thread*: during a call into [`Lifecycle`](crate::lifecycle::Lifecycle), on the calling
//!   thread; in the teardown of a removal that waits, on the thread that completes it.
//! - *References*: the device is claimed by the transition that calls, and kept by a reference of it, so it cannot
//!   be removed or moved meanwhile. (Questions are asked without a claim where there is nothing to claim yet or it is
//!   about another device: `facts` and `permit` at an add, `permit` at a removal, `has_driver`, `ask_unplug` and its `permit`.) It can be reported gone: an operation on hardware that is not there any more may fail, and
//!   no further one comes.
//! - *Locks*: none of this crate's is held, so a hook may block, and may call the registry for other devices. It
//!   may lock its own device ([`Claimed::with`]). A transition of its own device is `Busy`. **One exception**:
//!   [`config_read`](Platform::config_read) and [`config_write`](Platform::config_write) run under the device's
//!   own lock; they must be bounded and must not call back.
//! - *A hook that hangs* hangs its device, and nobody else.
//! - *Errors*: unless said otherwise an error ends the transition: all steps before it are undone in reverse
//!   order, and the caller gets this error. A hook that fails must have done nothing.
//! - *An error in an undo* makes the device broken: it stays listed under the domain whose DMA it may still
//!   reach, no guest gets it, and [`stop_guest`](Platform::stop_guest) is called if that domain is a guest.
//! - *A panic* counts as that hook's failure.
#![forbid(unsafe_code)]

mod attachment;
mod error;
mod facts;
mod hooks;
#[cfg(any(feature = "std", loom, shuttle))]
mod simulated;

pub use attachment::{Attachment, AttachmentKind, Claimed, Hardware};
pub use error::{HookError, Refusal};
pub use facts::{Facts, GroupId, Request, ResetKind, ResetScope, Switch, Width};
pub use hooks::{Binding, Platform};
#[cfg(any(feature = "std", loom, shuttle))]
pub use simulated::{
    Bar, Call, ConfigBytes, Detail, Dma, Entry, Fault, Hook, ResetSupport, Rule, Simulated, Stopped,
    VirtualFunctions,
};
