//! What every strategy is measured as: a registry of devices from which one can be removed exactly.
//!
//! [`Strategy`] is the contract between the strategies (`strategies/`, one file each) and the workloads
//! (`workloads/`). Everything is generic over it, so the timed loops call without indirection.

use pcidevs::Sbdf;

use crate::device::Device;

/// A device registry with exact removal, or the nearest that the strategy has to it.
///
/// All methods may be called by any number of threads. An address that has no device reads
/// [`ONES`](crate::device::ONES), and writes to it vanish.
///
/// A *use* keeps a device from being removed. A *guest* sees the devices that are assigned to it, at the addresses
/// under which they were assigned; a device is assigned to one guest at most.
pub(crate) trait Strategy: Send + Sync + Sized + 'static {
    /// What the tables call it and what `--filter` looks for.
    const NAME: &'static str;

    /// What it promises of a removal.
    const PROMISES: Promises;

    /// An unnamed use, such as one on a thread's stack. Dropping it gives the use back.
    type Use<'a>
    where
        Self: 'a;

    /// A use under a name, for long-lived users.
    type Hold<'a>
    where
        Self: 'a;

    /// One guest: what its vCPU threads have at hand.
    type Guest: Send + Sync;

    /// An empty registry.
    fn new() -> Self;

    /// Makes a device known; gives it back if the address is taken.
    #[expect(
        clippy::result_large_err,
        reason = "what was not taken is given back, and errors are not measured"
    )]
    fn add(&self, at: Sbdf, device: Device) -> Result<(), Device>;

    /// Adds many devices to an empty registry, each address once. Not measured: to be overridden where adding them one
    /// by one would take minutes.
    fn fill(&self, devices: impl Iterator<Item = (Sbdf, Device)>) {
        for (at, device) in devices {
            assert!(self.add(at, device).is_ok(), "each address once");
        }
    }

    /// Takes a device away. Where a strategy cannot refuse, it waits or takes the device all the same.
    fn remove(&self, at: Sbdf) -> Result<(), Refused>;

    /// A use of the device, which must be found first.
    fn get(&self, at: Sbdf) -> Option<Self::Use<'_>>;

    /// A use under a name, or without one where the strategy keeps no names.
    fn hold(&self, at: Sbdf, name: &'static str) -> Option<Self::Hold<'_>>;

    /// A register, read under the device's lock, or whatever the strategy has instead.
    fn read(&self, at: Sbdf, register: usize) -> u32;

    /// Does what a device needs for its registers to be read by [`read_plain`](Self::read_plain) as cheaply as the
    /// strategy can. Lasts until the device is removed.
    fn prepare_plain(&self, _at: Sbdf) {}

    /// A register whose reading has no side effect, read as cheaply as the strategy can. What was written before is
    /// seen, and a device that was removed before is not.
    #[inline]
    fn read_plain(&self, at: Sbdf, register: usize) -> u32 {
        self.read(at, register)
    }

    /// A register, written under the device's lock.
    fn write(&self, at: Sbdf, register: usize, value: u32);

    /// A new guest without devices. Each number is used once.
    fn create_guest(&self, number: u32) -> Self::Guest;

    /// Gives an unassigned device to a guest, which sees it at `guest_at`. `hook` stands for what the platform does
    /// meanwhile (IOMMU tables, driver binding) and runs exactly once, in the midst of it, if it is not refused.
    fn assign(
        &self,
        guest: &Self::Guest,
        at: Sbdf,
        guest_at: Sbdf,
        hook: impl FnOnce(),
    ) -> Result<(), Refused>;

    /// Takes a device back from the guest that has it at `guest_at`; `hook` as for [`assign`](Self::assign).
    fn release(
        &self,
        guest: &Self::Guest,
        at: Sbdf,
        guest_at: Sbdf,
        hook: impl FnOnce(),
    ) -> Result<(), Refused>;

    /// A register of the device that the guest has at this address of its own, read under the device's lock.
    fn guest_read(&self, guest: &Self::Guest, guest_at: Sbdf, register: usize) -> u32;
}

/// Why a device was not removed, assigned or released. It is as it was before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no such device, or not with this guest.
    NotFound,
    /// Somebody uses it: how many uses there are (an assignment is one), and the names of those that have one.
    Busy { uses: usize, holders: Vec<String> },
}

/// What a strategy promises of a removal.
#[derive(Clone, Copy)]
pub(crate) struct Promises {
    /// A removal is refused, with the exact number of uses, if and only if there are uses.
    pub(crate) exact_busy: Promise,
    /// The destructor has run when the removal returns `Ok`.
    pub(crate) deterministic_free: Promise,
    /// Nothing finds or reaches the device once the removal has returned `Ok`.
    pub(crate) no_lookup_after_remove: Promise,
    /// A refusal names the holders.
    pub(crate) names_holders: Promise,
}

/// Whether a promise is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    Kept,
    /// What happens instead, in a few words.
    Broken(&'static str),
}

impl Promises {
    /// All of them are kept.
    pub(crate) const ALL: Self = Self {
        exact_busy: Promise::Kept,
        deterministic_free: Promise::Kept,
        no_lookup_after_remove: Promise::Kept,
        names_holders: Promise::Kept,
    };

    /// The promises, each with its name.
    pub(crate) const fn named(self) -> [(&'static str, Promise); 4] {
        [
            ("exact Busy", self.exact_busy),
            ("deterministic free", self.deterministic_free),
            ("no lookup after remove", self.no_lookup_after_remove),
            ("holders named", self.names_holders),
        ]
    }

    /// Whether all are kept.
    pub(crate) fn all_kept(self) -> bool {
        self.named().iter().all(|(_, promise)| *promise == Promise::Kept)
    }
}
