//! The Xen tool stack: devices go from the host to pciback, from there to guests, and back.
//!
//! [`XenManager`] is a platform of the one engine in [`lifecycle`](crate::lifecycle). A device is the host's (`Host`), on
//! pciback (`Quarantine`), or exported (`Guest`). Exporting a set is *one* transition:
//!
//! ```text
//! check the guest, claim, check the devices
//!   per device: may it map the BARs, use the ports and the interrupt, is its DMA the guest's       each with its undo
//!     one transaction in xenstore: the whole set                                                    the publication
//! ```
//!
//! and taking it back is the way in reverse: the guest lets go, then the hypervisor. Whoever exports holds a reference,
//! "pciback export of domain 7": as long as there is one nobody takes the device from the host's side.
//!
//! All that is known stands in sysfs and xenstore: [`XenManager::open`] reads it, so a tool that ends between two
//! operations, or in one, needs no file of its own.
//!
//! | file | what |
//! |---|---|
//! | `export` | attach, detach, release |
//! | `operation` | one operation while the engine carries it out |
//! | `platform`, `view` | the engine's hooks |
//! | `grants` | what the hypervisor lets a guest do with a device, and how each is taken back |
//! | `error` | why not |

mod error;
mod export;
mod grants;
mod operation;
mod platform;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use error::XenError;
pub use export::{Attached, Waiting};

use super::assignable::{self, Added, Afterwards, Assignable, AssignableDevice, AssignableError};
use super::hypercall::Hypervisor;
use super::pciback::{Export, Exported, Patience, PcibackError, Toolstack};
use super::store::{NodePath, Refusal, Store, StoreError};
use crate::host::{DriverName, Kernel};
use crate::lifecycle::{DeviceHold, DeviceInfo, Lifecycle, TransitionError};
use crate::owner::{DomainId, Owner};
use crate::refcount::Holder;
use crate::registry::CreateDomainError;
use crate::{Member, Sbdf};
use operation::{Current, Kind, Operation};
use platform::{Core, XenPlatform};

/// Makes a connection to the store; every operation has its own.
pub type Connect = Box<dyn Fn() -> Result<Box<dyn Store + Send>, StoreError> + Send + Sync>;

const BACKENDS: &str = "/local/domain/0/backend/pci";

/// A device that a guest has, and the reference that goes with it.
pub(super) struct Held {
    guest: DomainId,
    _hold: DeviceHold<XenPlatform>,
}

/// The Xen tool stack of one machine.
///
/// ```
/// use std::sync::Arc;
///
/// use pcidevs::host::{Root, fake::{Fake, FakeFunction}};
/// use pcidevs::xen::hypercall::{DomainInfo, Simulated};
/// use pcidevs::xen::manager::{Waiting, XenManager};
/// use pcidevs::xen::{memory::Server, pciback::Export};
/// use pcidevs::{DomainId, Sbdf};
///
/// // A machine in memory: a kernel with pciback and a card, a hypervisor with a guest, a store.
/// let (kernel, xen, store) = (Fake::new(), Arc::new(Simulated::new()), Server::new());
/// let (card, guest) = ("0000:03:00.0".parse::<Sbdf>()?, DomainId::new(7));
/// kernel.add_pciback(&[]);
/// kernel.add(card, FakeFunction::endpoint((0x8086, 0x10fb), 1));
/// kernel.put_file(Root::Sys, "bus/pci/devices/0000:03:00.0/resource", "0xfe000000 0xfe001fff 0x40200\n");
/// kernel.put_file(Root::Sys, "bus/pci/devices/0000:03:00.0/irq", "16\n");
/// xen.plug(card);
/// xen.create(DomainInfo::guest(guest));
///
/// let connect = move || Ok(Box::new(store.connect()) as Box<_>);
/// let manager = XenManager::open(kernel.into(), xen, Box::new(connect))?;
/// manager.assignable_add(card, None)?;
/// manager.attach(guest, &[Export::of(card)], Waiting::No)?;
/// let busy = manager.remove_device(card).unwrap_err().to_string();
/// assert!(busy.contains("pciback export of domain 7"), "{busy}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct XenManager {
    core: Arc<Core>,
    lifecycle: Lifecycle<XenPlatform>,
    held: Mutex<BTreeMap<Sbdf, Held>>,
    troubles: Vec<String>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl XenManager {
    /// Reads what there is: the machine's devices, which of them are on pciback, which guests have some. Writes
    /// nothing.
    pub fn open(
        kernel: Arc<dyn Kernel>,
        hypervisor: Arc<dyn Hypervisor>,
        connect: Connect,
    ) -> Result<Self, XenError> {
        Self::open_with(kernel, hypervisor, connect, Patience::default())
    }

    /// With this patience for guests.
    pub fn open_with(
        kernel: Arc<dyn Kernel>,
        hypervisor: Arc<dyn Hypervisor>,
        connect: Connect,
        patience: Patience,
    ) -> Result<Self, XenError> {
        let core = Arc::new(Core::new(kernel, hypervisor, connect, patience));
        let lifecycle = Lifecycle::new(XenPlatform::new(core.clone()))?;
        let mut manager = Self { core, lifecycle, held: Mutex::default(), troubles: Vec::new() };
        manager.find_devices()?;
        manager.find_exports()?;
        Ok(manager)
    }

    /// What could not be read when this was opened, in words: a guest whose nodes make no sense, a device that is none.
    /// Everything else works.
    pub fn troubles(&self) -> &[String] {
        &self.troubles
    }

    fn find_devices(&mut self) -> Result<(), XenError> {
        let kernel = &*self.core.kernel;
        let all = assignable::all(kernel).map_err(XenError::unreadable("list the devices"))?;
        let pf = |device: &Sbdf| assignable::physical_function(kernel, *device);
        let (virtuals, others): (Vec<_>, Vec<_>) =
            all.iter().map(|device| (*device, pf(device))).partition(|(_, pf)| pf.is_some());
        for (device, physical_function) in others.into_iter().chain(virtuals) {
            let info = DeviceInfo { physical_function, ..DeviceInfo::default() };
            if let Err(refused) = self.lifecycle.add(device, info, ()) {
                self.troubles.push(format!("{device}: {}", refused.reason));
            }
        }
        Ok(())
    }

    /// Replays what is: no hook writes anything.
    fn find_exports(&mut self) -> Result<(), XenError> {
        let mut store = self.connect()?;
        let listed = self.assignable_in(&mut *store).list()?;
        let replay = Operation::new(Kind::Replay, self.connect()?);
        let on_pciback: Vec<Member> = listed
            .iter()
            .filter(|one| assignable::is_on_pciback(&*self.core.kernel, one.device))
            .map(|one| Member::new(one.device))
            .collect();
        for member in &on_pciback {
            let done = carried(&replay, || self.lifecycle.quarantine(std::slice::from_ref(member)));
            self.troubles.extend(done.err().map(|error| error.to_string()));
        }
        for guest in guests(&mut *store)? {
            match Toolstack::new(&mut *store, guest).list() {
                Ok(exports) => exports.iter().for_each(|one| self.replay_export(&replay, guest, one.device)),
                Err(PcibackError::Store(error)) => return Err(error.into()),
                Err(error) => self.troubles.push(format!("domain {guest}: {error}")),
            }
        }
        Ok(())
    }

    fn replay_export(&mut self, replay: &Arc<Operation>, guest: DomainId, device: Sbdf) {
        let done = self.known(guest).and_then(|()| self.hold(guest, device)).and_then(|hold| {
            let assign = || self.lifecycle.assign(&[Member::new(device)], guest);
            carried(replay, assign).map_err(|error| XenError::transition(error, Vec::new()))?;
            locked(&self.held).insert(device, Held { guest, _hold: hold });
            Ok(())
        });
        self.troubles.extend(done.err().map(|error| format!("domain {guest}: {error}")));
    }

    /// The guest is known to the engine.
    fn known(&self, guest: DomainId) -> Result<(), XenError> {
        match self.lifecycle.create_domain(guest) {
            Ok(_) | Err(CreateDomainError::Exists(_)) => Ok(()),
            Err(CreateDomainError::NoMemory(no_memory)) => Err(no_memory.into()),
        }
    }

    fn hold(&self, guest: DomainId, device: Sbdf) -> Result<DeviceHold<XenPlatform>, XenError> {
        let hold = self.lifecycle.hold(device, Holder::Export(guest))?;
        hold.ok_or(XenError::Assignable(AssignableError::NotFound(device)))
    }

    fn connect(&self) -> Result<Box<dyn Store + Send>, StoreError> {
        (self.core.connect)()
    }

    fn assignable_in<'a, S: Store + ?Sized>(&'a self, store: &'a mut S) -> Assignable<'a, S> {
        Assignable::new(&*self.core.kernel, &*self.core.hypervisor, store)
    }

    /// The engine carries out an operation on this thread. What a hook said is told, not only its number.
    fn carry_out(
        &self,
        kind: Kind,
        act: impl FnOnce() -> Result<(), TransitionError>,
    ) -> Result<Arc<Operation>, XenError> {
        let operation = Operation::new(kind, self.connect()?);
        match carried(&operation, act) {
            Ok(()) => Ok(operation),
            Err(error) => Err(operation.explain(error)),
        }
    }

    /// Takes a device from its driver and makes it assignable; `name` is what it is called from now on.
    pub fn assignable_add(&self, device: Sbdf, name: Option<&str>) -> Result<Added, XenError> {
        let is_on = assignable::is_on_pciback(&*self.core.kernel, device);
        if is_on || self.lifecycle.lock(device).is_err() {
            // Nothing moves: a name, a quarantine that was cut off; or an error that says why not.
            return Ok(self.assignable_in(&mut *self.connect()?).add(device, name)?);
        }
        let kind = Kind::Make { name: name.map(str::to_owned) };
        self.carry_out(kind, || self.lifecycle.quarantine(&[Member::new(device)]))?;
        Ok(Added::Now)
    }

    /// Gives a device back to the host. Returns the driver that has it now. Refused while a guest has it.
    pub fn assignable_remove(
        &self,
        device: Sbdf,
        afterwards: Afterwards,
    ) -> Result<Option<DriverName>, XenError> {
        let owner = self.lifecycle.lock(device).map(|device| device.owner());
        if owner != Ok(Owner::Quarantine) {
            // Exported, half done after a crash, or never assignable: the records say which.
            return Ok(self.assignable_in(&mut *self.connect()?).remove(device, afterwards)?);
        }
        let kind = Kind::Unmake { afterwards };
        self.carry_out(kind, || self.lifecycle.deassign(&[Member::new(device)], Owner::Quarantine))?;
        Ok(assignable::driver_of(&*self.core.kernel, device)?)
    }

    /// All devices that are assignable, or were about to be.
    pub fn assignable(&self) -> Result<Vec<AssignableDevice>, XenError> {
        Ok(self.assignable_in(&mut *self.connect()?).list()?)
    }

    /// The device of this name.
    pub fn named(&self, name: &str) -> Result<Option<Sbdf>, XenError> {
        Ok(self.assignable_in(&mut *self.connect()?).named(name)?)
    }

    /// The guest of this name.
    pub fn guest_named(&self, name: &str) -> Result<Option<DomainId>, XenError> {
        let mut store = self.connect()?;
        let folder = NodePath::new("/local/domain").map_err(StoreError::from)?;
        for domain in numbers(&mut *store, &folder)? {
            let at = folder.child(&format!("{domain}/name")).map_err(StoreError::from)?;
            if store.find(None, &at)?.is_some_and(|its| its == name.as_bytes()) {
                return Ok(Some(domain));
            }
        }
        Ok(None)
    }

    /// The machine loses a device: `Ok` means that nobody can reach it any more, and the host may remove it. Busy names
    /// the guest that has it.
    pub fn remove_device(&self, device: Sbdf) -> Result<(), XenError> {
        self.lifecycle.remove_device(device).map_err(|error| XenError::transition(error, Vec::new()))
    }

    /// Who has a device, and by whom it is used.
    pub fn owner(&self, device: Sbdf) -> Option<Owner> {
        self.lifecycle.lock(device).ok().map(|device| device.owner())
    }

    /// The guests that have devices, and which.
    pub fn exports(&self) -> Result<Vec<(DomainId, Vec<Exported>)>, XenError> {
        let mut store = self.connect()?;
        let mut all = Vec::new();
        for guest in guests(&mut *store)? {
            let devices = Toolstack::new(&mut *store, guest).list()?;
            if !devices.is_empty() {
                all.push((guest, devices));
            }
        }
        Ok(all)
    }
}

/// Runs what an operation does on this thread.
fn carried<T>(operation: &Arc<Operation>, act: impl FnOnce() -> T) -> T {
    let _current = Current::set(operation);
    act()
}

/// The guests that have a PCI backend, in order.
fn guests<S: Store + ?Sized>(store: &mut S) -> Result<Vec<DomainId>, XenError> {
    numbers(store, &NodePath::new(BACKENDS).map_err(StoreError::from)?)
}

/// The folders that are domains' numbers, in order.
fn numbers<S: Store + ?Sized>(store: &mut S, folder: &NodePath) -> Result<Vec<DomainId>, XenError> {
    let names = match store.directory(None, folder) {
        Err(StoreError::Refused(Refusal::NotFound)) => Vec::new(),
        names => names?,
    };
    let mut guests: Vec<DomainId> = names
        .iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|name| name.parse().ok().map(DomainId::new))
        .collect();
    guests.sort_unstable();
    Ok(guests)
}

impl fmt::Debug for XenManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XenManager").field("troubles", &self.troubles).finish_non_exhaustive()
    }
}

impl XenManager {
    /// What a set needs: devices, each once.
    fn members(set: &[Export]) -> Vec<Member> {
        set.iter().map(|export| Member::new(export.device)).collect()
    }
}
