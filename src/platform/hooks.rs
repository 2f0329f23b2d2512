//! The trait, hook by hook.

use alloc::boxed::Box;

use super::attachment::{Attachment, Claimed};
use super::error::{HookError, Refusal};
use super::facts::{Facts, GroupId, Request, ResetKind, ResetScope, Switch, Width};
use crate::address::Sbdf;
use crate::owner::{DomainId, Owner};
use crate::sync::RawLock;
use crate::transition::Transition;

/// The attachments that [`Platform::bind`] makes: at most one for what the owner sees.
pub type Binding<D> = Option<Box<dyn Attachment<D>>>;

/// A machine, as the embedder drives it. The module says what holds for every hook; here is what each is for.
///
/// | order in an assignment | hook |
/// |---|---|
/// | checks | [`permit`](Self::permit), [`has_driver`](Self::has_driver), [`reset_scope`](Self::reset_scope) |
/// | 1 | the old owner's attachments are undone, its vPCI last |
/// | 2 | MSI and bus mastering off, by configuration writes; [`await_idle`](Self::await_idle) |
/// | 3 | [`set_ats`](Self::set_ats) off; if it was on, [`iommu_flush`](Self::iommu_flush) |
/// | 4 | [`iommu_block`](Self::iommu_block) for every requester ID; [`iommu_flush`](Self::iommu_flush) |
/// | 5 | [`reset`](Self::reset) |
/// | 6 | [`iommu_attach`](Self::iommu_attach) to the new owner for every requester ID; [`iommu_flush`](Self::iommu_flush) |
/// | 7 | [`bind`](Self::bind): what the new owner sees |
pub trait Platform: Send + Sync {
    /// What the embedder keeps per device, behind the device's lock: the model of what a guest sees, and more.
    type Data: Send;

    /// The lock of every device, list and table.
    type Lock: RawLock;

    // ---- configuration space: under the device's own lock

    /// Reads the function's configuration space. `offset` is naturally aligned and below 4096. A function that does
    /// not answer reads all ones.
    fn config_read(&self, device: Sbdf, offset: u16, width: Width) -> u32;

    /// Writes the function's configuration space.
    fn config_write(&self, device: Sbdf, offset: u16, width: Width, value: u32);

    // ---- knowledge and policy

    /// What is known of a device that is being added, beside its configuration space. An error refuses the add.
    fn facts(&self, device: Sbdf) -> Result<Facts, HookError>;

    /// Whether this may happen at all. Called for each device, before anything is touched: for every change of owner,
    /// adds, removals, resets (not those that the host reports), preparing and releasing the MSI-X table, and asking a
    /// guest to let a device go. Called once; once more for a device that is sent to quarantine instead of the host.
    fn permit(&self, request: &Request) -> Result<(), Refusal>;

    /// Whether a device on the host's list is in use by a driver there. A group with such a member is not viable.
    fn has_driver(&self, device: Sbdf) -> bool;

    /// Whether somebody still has this group open (on Linux: a VFIO group or device file). Then none of its
    /// members goes back to the host yet.
    fn group_in_use(&self, group: GroupId) -> bool;

    /// Whether a device that a guest gives back goes to quarantine and not to the host.
    fn keeps_in_quarantine(&self, device: Sbdf) -> bool {
        let _ = device;
        false
    }

    /// Whether events are reported to subscribers. A constant `false` compiles all of it out, which is what the
    /// benchmark compares a machine without subscribers with.
    #[doc(hidden)]
    fn reports_events(&self) -> bool {
        true
    }

    /// Nanoseconds of a clock that starts anywhere. For the durations in events and the rate of faults.
    fn now(&self) -> u64;

    // ---- IOMMU: per requester ID

    /// Lets requests of `requester` reach `owner`'s memory, in place of whatever they reached before.
    fn iommu_attach(&self, device: Sbdf, requester: Sbdf, owner: Owner) -> Result<(), HookError>;

    /// Blocks requests of `requester`: quarantine tables, or none that let anything through.
    fn iommu_block(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError>;

    /// Clears the entry of `requester`: the device leaves. Also called after it was reported gone, until it succeeds.
    fn iommu_detach(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError>;

    /// Returns when nothing of the entries changed before is cached any more. A time-out is an error.
    fn iommu_flush(&self, device: Sbdf) -> Result<(), HookError>;

    /// Whether no request of the device can reach memory, for certain. The one way to repair a broken device.
    fn dma_blocked(&self, device: Sbdf) -> Result<bool, HookError>;

    /// Switches address translation services of a device that has them.
    fn set_ats(&self, device: Sbdf, ats: Switch) -> Result<(), HookError>;

    // ---- the device itself

    /// Returns when the device, whose bus mastering is off, has no pending transaction. A time-out is an error.
    fn await_idle(&self, device: Sbdf) -> Result<(), HookError>;

    /// What a reset for this transition would reach; `None` if none is needed. An error (EOPNOTSUPP, for example)
    /// refuses the transition: policy demands a reset and the device has none. Nothing has been touched yet.
    fn reset_scope(&self, device: Sbdf, why: Transition) -> Result<Option<ResetScope>, HookError>;

    /// Resets what is in the scope; once for all devices of a set that share it. `kind` is what the caller asked
    /// for, `None` in an assignment. Cannot be undone. Configuration space is to be as before afterwards, but for
    /// enables, so that an owner who gets the device back can go on.
    fn reset(&self, device: Sbdf, scope: ResetScope, kind: Option<ResetKind>) -> Result<(), HookError>;

    /// Maps the MSI-X table for the host before another domain uses the device.
    fn msix_prepare(&self, device: Sbdf) -> Result<(), HookError>;

    /// Undoes [`msix_prepare`](Self::msix_prepare). Also called after the device was reported gone, until it succeeds.
    fn msix_release(&self, device: Sbdf) -> Result<(), HookError>;

    // ---- owners

    /// Sets up what the new owner sees of the device (its vPCI; the host's driver) and returns what undoes it.
    fn bind(&self, device: &dyn Claimed<Self::Data>, owner: Owner) -> Result<Binding<Self::Data>, HookError>;

    /// Asks the guest to let the device go (an ACPI event, an attention button). Returns at once; the guest's
    /// answer comes through [`Lifecycle::unplug_answered`](crate::lifecycle::Lifecycle::unplug_answered).
    fn ask_unplug(&self, device: Sbdf, guest: DomainId) -> Result<(), HookError>;

    /// A device may still reach this guest's memory, and cannot be controlled: stop the guest. Not claimed, no answer.
    fn stop_guest(&self, guest: DomainId, device: Sbdf, because: HookError);
}
