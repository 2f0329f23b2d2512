//! The life of a device: transitions that are all or nothing.
//!
//! ```text
//!  scan                                   remove, report_gone
//!    |                                       ^
//!    v      set_host                         |            hide
//!  Unowned ----------> Host <----------- (anywhere) ------------> Hidden
//!              add ->   | ^
//!               assign  | | deassign
//!                       v |
//!                   Guest(id) --- deassign, if the device or the policy says so ---> Quarantine
//!                       ^                                                              |  |
//!                       +------------------------- assign ----------------------------+  v
//!                                                                  deassign: back to Host
//! ```
//!
//! Every arrow is a *transition*: claim, check everything, steps that can each be undone, commit, release. If a
//! step fails, those before it are undone and the caller gets the first error and beside it every error of the
//! undo. If an undo fails the device is *broken*: listed where its DMA may still reach, refused for assignment, and
//! nothing else has changed. No lock of this crate is held while a hook of the [platform](crate::platform) runs.
//!
//! | file | what |
//! |---|---|
//! | `steps` | the steps, and the lists of them that are the transitions |
//! | `transaction` | running a list over a set, undoing exactly what was done |
//! | `claims`, `hand` | claimed devices; a device in the hands of a transition |
//! | `transfer` | the path of every change of owner: claims, checks, steps, commit, events |
//! | `assign`, `quarantine`, `domain` | to and from guests; quarantine, hiding; the end of a guest |
//! | `add`, `scan`, `remove`, `leavers`, `gone`, `departure` | devices come, and leave: asked, or gone |
//! | `group`, `sharing`, `scope`, `topology`, `known` | who cannot be kept apart; what a reset reaches; bridges; what is known |
//! | `reset`, `repair`, `requester` | resets; broken devices; faults |
//! | `interrupts`, `unplug` | MSI-X tables; asking a guest |
//! | `event`, `status` | what happened; what a list shows |
//! | `background` (`std`) | a thread for what is deferred |
#![forbid(unsafe_code)]

mod add;
mod assign;
#[cfg(all(feature = "std", not(any(loom, shuttle))))]
mod background;
mod claims;
mod departure;
mod device;
mod domain;
mod error;
mod event;
mod gone;
mod group;
mod hand;
mod interrupts;
mod known;
mod leavers;
mod quarantine;
mod registers;
mod remove;
mod repair;
mod requester;
mod reset;
mod scan;
mod scope;
mod sharing;
mod status;
mod steps;
mod topology;
mod transaction;
mod transfer;
mod unplug;

use core::fmt;

pub use add::{AddDeviceError, Added, DeviceInfo};
#[cfg(all(feature = "std", not(any(loom, shuttle))))]
pub use background::Background;
pub use device::{AttachError, AttachRefused, Device};
pub use error::{Failure, TransitionError, UndoError};
pub use event::{Event, Subscriber, Subscription, What};
pub use quarantine::Visibility;
pub use remove::RemovalTicket;
pub use status::DeviceStatus;
pub use unplug::Unplug;

use crate::Sbdf;
use crate::memory::{NoMemory, Shared};
use crate::owner::{DomainId, Owner};
use crate::platform::Platform;
use crate::refcount::Holder;
use crate::registry::{AccessError, CreateDomainError, Devices, Domain, Handle, Hold, Locked, Registry};
use crate::sync::{Guard, Lock};
use departure::Departures;
use event::Subscribers;
use group::Groups;
use requester::Requesters;
use topology::Topology;

/// All PCI devices of a machine and their lives, on the embedder's [`Platform`].
///
/// Cheap to clone: every clone is the same machine. Lookups and locked access are those of the
/// [`Registry`]; operations move devices through their lives.
///
/// Dropping the last clone removes what is unused and reports the rest gone.
pub struct Lifecycle<P: Platform> {
    machine: Shared<Machine<P>>,
    by: &'static str,
}

/// A use of a device.
pub type DeviceHandle<P> = Handle<Device<P>, <P as Platform>::Lock>;
/// A named use of a device.
pub type DeviceHold<P> = Hold<Device<P>, <P as Platform>::Lock>;
/// A device under its lock.
pub type LockedDevice<'a, P> = Locked<'a, Device<P>, <P as Platform>::Lock>;
/// A guest, for its vCPU threads.
pub type Guest<P> = Domain<Device<P>, <P as Platform>::Lock>;
/// An owner's devices at one moment.
pub type DeviceList<P> = Devices<Device<P>, <P as Platform>::Lock>;

/// A machine: what every clone of a [`Lifecycle`] shares.
struct Machine<P: Platform> {
    platform: P,
    registry: Registry<Device<P>, P::Lock>,
    groups: Groups<P::Lock>,
    topology: Lock<Topology, P::Lock>,
    requesters: Requesters<P::Lock>,
    departures: Departures<P>,
    subscribers: Subscribers<P::Lock>,
}

impl<P: Platform> Lifecycle<P> {
    /// A machine without devices.
    pub fn new(platform: P) -> Result<Self, NoMemory> {
        let machine = Shared::try_new(Machine {
            platform,
            registry: Registry::new()?,
            groups: Groups::new(),
            topology: Lock::new(Topology::default()),
            requesters: Requesters::new(),
            departures: Departures::new(),
            subscribers: Subscribers::new(),
        })?;
        Ok(Self { machine, by: "" })
    }

    /// The same machine, on behalf of somebody: events say so.
    #[must_use]
    pub fn by(&self, name: &'static str) -> Self {
        Self { machine: self.machine.clone(), by: name }
    }

    /// The embedder's platform.
    pub fn platform(&self) -> &P {
        &self.machine.platform
    }

    /// A use of the device at this address; see [`Registry::get`].
    #[inline]
    pub fn get(&self, address: Sbdf) -> Option<DeviceHandle<P>> {
        self.registry().get(address)
    }

    /// A named use of the device at this address; see [`Registry::hold`].
    #[inline]
    pub fn hold(&self, address: Sbdf, holder: Holder) -> Result<Option<DeviceHold<P>>, NoMemory> {
        self.registry().hold(address, holder)
    }

    /// Locked access to the device at this address, whoever owns it; see [`Registry::lock`].
    #[inline]
    pub fn lock(&self, address: Sbdf) -> Result<LockedDevice<'_, P>, AccessError> {
        self.registry().lock(address)
    }

    /// A published register of the device at this address, whoever owns it; see [`Registry::read_published`].
    #[inline]
    pub fn read_published(&self, address: Sbdf, register: usize) -> Option<u32> {
        self.registry().read_published(address, register)
    }

    /// Makes a guest known, without devices.
    pub fn create_domain(&self, id: DomainId) -> Result<Guest<P>, CreateDomainError> {
        self.registry().create_domain(id)
    }

    /// A guest that was made known, for its vCPU threads.
    pub fn domain(&self, id: DomainId) -> Option<Guest<P>> {
        self.registry().domain(id)
    }

    /// An owner's devices at this moment; see [`Registry::devices_of`].
    pub fn devices_of(&self, owner: Owner) -> Result<Option<DeviceList<P>>, NoMemory> {
        self.registry().devices_of(owner)
    }

    /// Runs what waits for its turn: groups that go back to the host, devices that faulted too often, what could
    /// not be cleared up after devices that were gone. Returns how much is still waiting.
    ///
    /// For the embedder to call now and then, from a thread that may block.
    pub fn run_deferred(&self) -> usize {
        self.silence_the_noisy();
        let departures = self.retry_departures();
        departures + self.give_back_all()
    }

    fn registry(&self) -> &Registry<Device<P>, P::Lock> {
        &self.machine.registry
    }

    fn groups(&self) -> &Groups<P::Lock> {
        &self.machine.groups
    }

    fn topology(&self) -> Guard<'_, Topology, P::Lock> {
        self.machine.topology.lock()
    }

    fn requesters(&self) -> &Requesters<P::Lock> {
        &self.machine.requesters
    }

    fn departures(&self) -> &Departures<P> {
        &self.machine.departures
    }

    fn subscribers(&self) -> &Subscribers<P::Lock> {
        &self.machine.subscribers
    }

    fn name(&self) -> &'static str {
        self.by
    }
}

impl<P: Platform> Clone for Lifecycle<P> {
    fn clone(&self) -> Self {
        Self { machine: self.machine.clone(), by: self.by }
    }
}

impl<P: Platform> fmt::Debug for Lifecycle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lifecycle").field(self.registry()).finish()
    }
}
