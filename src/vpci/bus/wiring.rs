//! What a guest's machine does for its devices, outside any lock.

use crate::address::Sbdf;
use crate::errno::Errno;
use crate::platform::{HookError, Switch};
use crate::vpci::bar_map::{Piece, Refusal};
use crate::vpci::capability::{Level, PowerState, VectorWork};

/// A device, by both of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The device's own address.
    pub device: Sbdf,
    /// Where the guest sees it.
    pub seen_at: Sbdf,
}

/// The embedder's side of a [`Bus`](super::Bus): maps BARs, routes interrupts, resets.
///
/// - *When*: after the access that asked for it, on a thread that accessed the device, with no lock held and the device
///   kept by a use named "vPCI effect". So a hook may block; it may access other devices, and the registry. It may not
///   wait until an access to another device has taken effect: that device's hook may wait for this one's.
/// - *Transitions*: the guest may use a device from the instant of its assignment on, which is before that transition
///   lets go of it; and one that takes it away waits for the hook under way. So in a hook a transition of this device may
///   be `Busy`, and [`attach`](crate::Locked::attach) refused, and neither may be waited for. There is nothing
///   to attach: what these hooks set up the bus takes back through them when the binding ends.
/// - *Order*: for one device one hook at a time, in the order of the accesses; maps and unmaps of one guest are one at
///   a time, since one may uncover what another covered. So what would have a BAR of the guest mapped or unmapped cannot
///   be done from within such a hook: it fails with EDEADLK, and is reported.
/// - *Errors*: what could not be mapped is not decoded, and the guest reads so; what could not be unmapped or unrouted
///   is still there, and the model says so. What is to become of the guest the hook decides: it may stop it.
/// - *A panic* counts as an error.
pub trait Wiring: Send + Sync {
    /// Maps a piece of a BAR that the guest reaches directly.
    fn map(&self, device: Sbdf, piece: &Piece) -> Result<(), HookError> {
        let _ = (device, piece);
        Err(HookError::new(Errno::EOPNOTSUPP, "nothing is mapped directly here"))
    }

    /// Unmaps what is mapped there: a piece that was mapped, a part of one, or several of one BAR that lie side by side.
    fn unmap(&self, device: Sbdf, piece: &Piece) -> Result<(), HookError> {
        let _ = (device, piece);
        Ok(())
    }

    /// A BAR is not mapped for where the guest has put it: outside the host bridge's windows, over RAM or ECAM.
    fn bar_refused(&self, target: Target, refusal: &Refusal) {
        let _ = (target, refusal);
    }

    /// Something of this device could not be done. For the log, and to decide what becomes of the guest.
    fn failed(&self, target: Target, error: HookError) {
        let _ = (target, error);
    }

    /// Routes, masks or sends a vector.
    fn vector(&self, target: Target, vector: u16, work: VectorWork) -> Result<(), HookError>;

    /// Sets the level of the interrupt pin.
    fn intx(&self, target: Target, level: Level) -> Result<(), HookError> {
        let _ = (target, level);
        Ok(())
    }

    /// The guest has switched bus mastering; or its binding ends, and then it is off.
    fn bus_master(&self, target: Target, to: Switch) -> Result<(), HookError> {
        let _ = (target, to);
        Ok(())
    }

    /// The guest has put the device to another power state; or its binding ends, and then it is D0.
    fn power(&self, target: Target, to: PowerState) -> Result<(), HookError> {
        let _ = (target, to);
        Ok(())
    }

    /// The guest has asked for a function-level reset; until it is done the function reads ones. With a [`Lifecycle`](crate::lifecycle::Lifecycle) this is its
    /// [`reset`](crate::lifecycle::Lifecycle::reset), which brings the registers to their initial values under the
    /// claim; without one the bus does that when this has returned.
    fn reset(&self, target: Target) -> Result<(), HookError> {
        let _ = target;
        Ok(())
    }

    /// The host has switched virtual functions: so many, 0 for none. They answer 100 ms after this at the earliest
    /// (PCIe 6.0 §9.3.3.3.1), so they are to be added later, by a timer of the embedder.
    fn virtual_functions(&self, target: Target, count: u16) -> Result<(), HookError> {
        let _ = (target, count);
        Err(HookError::new(Errno::EOPNOTSUPP, "virtual functions are not switched here"))
    }

    /// What the device behind the model asked for by [`Signals::wish`](crate::vpci::Signals::wish).
    fn wishes(&self, target: Target, wishes: u64) -> Result<(), HookError> {
        let _ = (target, wishes);
        Ok(())
    }

    /// Called over and over by who waits for another thread's hook to end, where there is no `std` to block with.
    fn relax(&self) {
        core::hint::spin_loop();
    }
}
