//! The reference protocol.
//!
//! Whoever uses a device holds a reference, and removal is exact: it succeeds only by taking the last one. This
//! folder is that protocol and nothing else. It knows addresses, not PCI; owners, lists and transitions are
//! built on it, in safe code.
//!
//! - [`word`]: one 64-bit atomic per slot holds generation, count and state; every step of a device's life is
//!   one read-modify-write on it. Read this first.
//! - [`slot`]: the type-stable memory in which the devices of one address live one after the other, their lock
//!   and their names. What a thread may touch when.
//! - [`mod@reference`]: the handles. A use keeps the device from being removed, a named use says by whom, a weak
//!   one only remembers which device was meant.
//! - [`locked`]: the default access: the device's own lock and no count.
//! - [`table`], [`chunk`], [`arena`]: finding a slot with loads only, and what keeps its memory.
//! - [`list`], [`directory`], [`memo`]: membership for iteration, lookup by guest address, and what one thread remembers
//!   of it.
//! - [`published`]: registers that many threads read at once, without the lock.
//! - [`side`]: what has to be found without any lock, beside the slots.
//! - [`ending`]: closing a device nobody uses, and the departure of one whose hardware is gone.
//! - [`removal`]: removal that waits for the last use; its waiters live in
//!   [`WaitTable`](crate::sync::WaitTable), not in slots, because a put may not touch the slot once its
//!   subtraction is visible.
//!
//! # The three promises and what makes them true
//!
//! 1. *A handle's device exists.* A reference is counted by a compare-exchange from LIVE, so never after
//!    closing; closing demands that no reference but the creation one is left.
//! 2. *After `Ok` nobody is inside.* Locked access takes the device lock and then looks at the word; closing
//!    happens under the same lock. A device that is reported gone is drained the same way: GONE first, then
//!    the lock once.
//! 3. *Memory outlives whoever may look at it.* Slots and tables go with the arena, and every live device,
//!    weak handle, snapshot and ticket has a share of it.
#![allow(unsafe_code)]

mod arena;
mod busy;
mod chunk;
mod directory;
mod ending;
mod holder;
mod list;
mod locked;
mod memo;
mod names;
mod published;
mod reference;
mod removal;
mod side;
mod slot;
mod table;
mod word;

pub use busy::Busy;
pub use holder::Holder;
pub use names::OnGone;
pub use slot::WouldDeadlock;

pub(crate) use arena::{Arena, CannotPrepare, Occupied, Reserved};
pub(crate) use directory::Directory;
pub(crate) use ending::{CloseRefused, Closed, Departure};
pub(crate) use list::{List, Snapshot, SnapshotEntry};
pub(crate) use locked::Locked;
pub(crate) use memo::Memo;
pub(crate) use published::Audience;
pub(crate) use reference::{NamedRef, Ref, WeakRef};
pub(crate) use removal::{BeginRefused, Progress, Removal};
pub(crate) use side::SideTable;
pub(crate) use slot::{KEEPS_ADDRESS, Slot};
pub(crate) use word::State;

/// The protocol is broken: a reference was put twice, or leaked half a billion times. Nothing that runs on
/// could be trusted, so nothing does.
#[cold]
#[inline(never)]
pub(crate) fn abort(why: &str) -> ! {
    /// A panic may not leave an `extern "C"` function: the process, or the embedder's panic handler, ends here.
    #[cfg(not(loom))]
    extern "C" fn end(why: &&str) -> ! {
        panic!("pcidevs: {why}")
    }
    /// Under loom the model reports it.
    #[cfg(loom)]
    fn end(why: &&str) -> ! {
        panic!("pcidevs: {why}")
    }
    end(&why)
}
