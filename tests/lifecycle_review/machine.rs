//! The simulated machine behind a platform that lets a test step in before any hook: for whatever can happen
//! between two hooks of one transition.

use std::sync::{Arc, Mutex};

use pcidevs::lifecycle::{Added, DeviceInfo, Lifecycle};
use pcidevs::platform::{
    Attachment, AttachmentKind, Binding, Claimed, ConfigBytes, Facts, GroupId, Hardware, Hook, HookError,
    Platform, Refusal, Request, ResetKind, ResetScope, Simulated, Switch, Width,
};
use pcidevs::{DefaultLock, DomainId, Errno, Member, Owner, Sbdf, Transition};

pub(crate) type Machine = Lifecycle<Stage>;

pub(crate) const GUEST: DomainId = DomainId::new(1);
pub(crate) const OTHER: DomainId = DomainId::new(2);
pub(crate) const EIO: HookError = HookError::new(Errno::EIO, "the test says so");

/// What a test does before a hook, told which hook and of which device.
type Interlude = Arc<dyn Fn(Option<Hook>, Sbdf) + Send + Sync>;

/// The embedder's data: something that may do anything when it is dropped.
#[derive(Default)]
pub(crate) struct Data(pub(crate) Option<Box<dyn FnMut() + Send>>);

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Data")
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if let Some(drop) = &mut self.0 {
            drop();
        }
    }
}

/// The simulated machine, and who steps in.
#[derive(Default)]
pub(crate) struct Stage {
    pub(crate) machine: Simulated<Data>,
    interlude: Mutex<Option<Interlude>>,
}

impl Stage {
    /// Has `interlude` called before every hook from now on. The clock is `None`.
    pub(crate) fn before_hooks(&self, interlude: impl Fn(Option<Hook>, Sbdf) + Send + Sync + 'static) {
        *self.interlude.lock().expect("not poisoned") = Some(Arc::new(interlude));
    }

    fn pass(&self, hook: Option<Hook>, device: Sbdf) {
        let interlude = self.interlude.lock().expect("not poisoned").clone();
        if let Some(interlude) = interlude {
            interlude(hook, device);
        }
    }
}

impl Platform for Stage {
    type Data = Data;
    type Lock = DefaultLock;

    fn config_read(&self, device: Sbdf, offset: u16, width: Width) -> u32 {
        self.pass(Some(Hook::ConfigRead), device);
        self.machine.config_read(device, offset, width)
    }

    fn config_write(&self, device: Sbdf, offset: u16, width: Width, value: u32) {
        self.pass(Some(Hook::ConfigWrite), device);
        self.machine.config_write(device, offset, width, value);
    }

    fn facts(&self, device: Sbdf) -> Result<Facts, HookError> {
        self.pass(Some(Hook::Facts), device);
        self.machine.facts(device)
    }

    fn permit(&self, request: &Request) -> Result<(), Refusal> {
        self.pass(Some(Hook::Permit), request.device);
        self.machine.permit(request)
    }

    fn has_driver(&self, device: Sbdf) -> bool {
        self.pass(Some(Hook::HasDriver), device);
        self.machine.has_driver(device)
    }

    fn group_in_use(&self, group: GroupId) -> bool {
        self.pass(Some(Hook::GroupInUse), Sbdf::default());
        self.machine.group_in_use(group)
    }

    fn now(&self) -> u64 {
        self.pass(None, Sbdf::default());
        self.machine.now()
    }

    fn iommu_attach(&self, device: Sbdf, requester: Sbdf, owner: Owner) -> Result<(), HookError> {
        self.pass(Some(Hook::IommuAttach), device);
        self.machine.iommu_attach(device, requester, owner)
    }

    fn iommu_block(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError> {
        self.pass(Some(Hook::IommuBlock), device);
        self.machine.iommu_block(device, requester)
    }

    fn iommu_detach(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError> {
        self.pass(Some(Hook::IommuDetach), device);
        self.machine.iommu_detach(device, requester)
    }

    fn iommu_flush(&self, device: Sbdf) -> Result<(), HookError> {
        self.pass(Some(Hook::IommuFlush), device);
        self.machine.iommu_flush(device)
    }

    fn dma_blocked(&self, device: Sbdf) -> Result<bool, HookError> {
        self.pass(Some(Hook::DmaBlocked), device);
        self.machine.dma_blocked(device)
    }

    fn set_ats(&self, device: Sbdf, ats: Switch) -> Result<(), HookError> {
        self.pass(Some(Hook::SetAts), device);
        self.machine.set_ats(device, ats)
    }

    fn await_idle(&self, device: Sbdf) -> Result<(), HookError> {
        self.pass(Some(Hook::AwaitIdle), device);
        self.machine.await_idle(device)
    }

    fn reset_scope(&self, device: Sbdf, why: Transition) -> Result<Option<ResetScope>, HookError> {
        self.pass(Some(Hook::ResetScope), device);
        self.machine.reset_scope(device, why)
    }

    fn reset(&self, device: Sbdf, scope: ResetScope, kind: Option<ResetKind>) -> Result<(), HookError> {
        self.pass(Some(Hook::Reset), device);
        self.machine.reset(device, scope, kind)
    }

    fn msix_prepare(&self, device: Sbdf) -> Result<(), HookError> {
        self.pass(Some(Hook::MsixPrepare), device);
        self.machine.msix_prepare(device)
    }

    fn msix_release(&self, device: Sbdf) -> Result<(), HookError> {
        self.pass(Some(Hook::MsixRelease), device);
        self.machine.msix_release(device)
    }

    fn bind(&self, device: &dyn Claimed<Data>, owner: Owner) -> Result<Binding<Data>, HookError> {
        self.pass(Some(Hook::Bind), device.address());
        self.machine.bind(device, owner)
    }

    fn ask_unplug(&self, device: Sbdf, guest: DomainId) -> Result<(), HookError> {
        self.pass(Some(Hook::AskUnplug), device);
        self.machine.ask_unplug(device, guest)
    }

    fn stop_guest(&self, guest: DomainId, device: Sbdf, because: HookError) {
        self.pass(Some(Hook::StopGuest), device);
        self.machine.stop_guest(guest, device, because);
    }
}

/// An attachment that writes down what is done to it, and fails when it is told to.
pub(crate) struct Note {
    pub(crate) name: &'static str,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    pub(crate) fails: Arc<Mutex<Vec<&'static str>>>,
}

impl Note {
    fn done(&self, what: &str) -> Result<(), HookError> {
        self.log.lock().expect("not poisoned").push(format!("{what} {}", self.name));
        let mut fails = self.fails.lock().expect("not poisoned");
        match fails.iter().position(|fail| *fail == format!("{what} {}", self.name)) {
            Some(place) => {
                fails.remove(place);
                Err(EIO)
            }
            None => Ok(()),
        }
    }
}

impl Attachment<Data> for Note {
    fn kind(&self) -> AttachmentKind {
        AttachmentKind::Other(self.name)
    }

    fn undo(&mut self, _: &dyn Claimed<Data>, _: Hardware) -> Result<(), HookError> {
        self.done("undo")
    }

    fn redo(&mut self, _: &dyn Claimed<Data>) -> Result<(), HookError> {
        self.done("redo")
    }
}

pub(crate) fn at(address: &str) -> Sbdf {
    address.parse().expect("an address")
}

pub(crate) fn set(addresses: &[&str]) -> Vec<Member> {
    addresses.iter().map(|address| Member::new(at(address))).collect()
}

pub(crate) fn nic() -> ConfigBytes {
    ConfigBytes::endpoint(0x8086, 0x10d3).express().flr().msi().msix(4).ats()
}

pub(crate) fn empty() -> Machine {
    let machine = Lifecycle::new(Stage::default()).expect("memory");
    machine.create_domain(GUEST).expect("created");
    machine.create_domain(OTHER).expect("created");
    machine
}

/// A machine with endpoints at these addresses, with the host, and two guests.
pub(crate) fn machine(addresses: &[&str]) -> Machine {
    let machine = empty();
    for address in addresses {
        sim(&machine).plug(at(address), nic());
        add(&machine, address);
    }
    machine
}

pub(crate) fn sim(machine: &Machine) -> &Simulated<Data> {
    &machine.platform().machine
}

pub(crate) fn add(machine: &Machine, address: &str) {
    let added = machine.add(at(address), DeviceInfo::default(), Data::default()).expect("added");
    assert!(matches!(added, Added::New));
}

pub(crate) fn owner(machine: &Machine, address: &str) -> Option<Owner> {
    machine.lock(at(address)).ok().map(|device| device.owner())
}
