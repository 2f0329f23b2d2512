//! Whole lives in a model: a [`Lifecycle`] on the simulated machine.
//!
//! What stands in the machine after every hook is what a real one would have been told in that order, and the
//! assertions of the models are about that: who is reached, what is left behind.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pcidevs::lifecycle::{AddDeviceError, Added, DeviceInfo, Lifecycle};
use pcidevs::platform::{
    Attachment, AttachmentKind, Claimed, ConfigBytes, Dma, Hook, HookError, Platform, Width,
};
use pcidevs::{Owner, Sbdf, platform};

use crate::hardware::Hardware;
pub use crate::settled::{settled, settled_at};
use crate::{Destroyed, Device, GUEST, OTHER};

/// The life cycle of the models' devices.
pub type Machine = Lifecycle<Hardware>;

/// A machine with an endpoint at each of these addresses, all with the host, and both guests.
pub fn machine(destroyed: &Destroyed, addresses: &[Sbdf]) -> Machine {
    let machine = bare();
    for at in addresses {
        plug(&machine, *at, &endpoint());
        add(&machine, destroyed, *at).expect("added");
    }
    machine
}

/// A machine without functions, with both guests.
pub fn bare() -> Machine {
    let machine = Lifecycle::new(Hardware::new()).expect("memory");
    machine.create_domain(GUEST).expect("created");
    machine.create_domain(OTHER).expect("created");
    machine
}

/// What is plugged unless a model says otherwise: everything a transition of its own registers touches.
pub fn endpoint() -> ConfigBytes {
    ConfigBytes::endpoint(0x8086, 0x10d3).express().flr().msix(1).ats()
}

/// Puts a function there, its bus mastering on as the firmware left it.
pub fn plug(machine: &Machine, at: Sbdf, config: &ConfigBytes) {
    machine.platform().plug(at, config);
    machine.platform().config_write(at, COMMAND, Width::Word, BUS_MASTER);
}

/// Whether the function's bus mastering is on.
pub fn masters(machine: &Machine, at: Sbdf) -> bool {
    machine.platform().config_read(at, COMMAND, Width::Word) & BUS_MASTER != 0
}

const COMMAND: u16 = 0x04;
const BUS_MASTER: u32 = 1 << 2;

/// The host reports a device.
pub fn add(
    machine: &Machine,
    destroyed: &Destroyed,
    at: Sbdf,
) -> Result<Added<Device>, AddDeviceError<Device>> {
    machine.add(at, DeviceInfo::default(), destroyed.device(1))
}

/// The same for a virtual function.
pub fn add_vf(
    machine: &Machine,
    destroyed: &Destroyed,
    pf: Sbdf,
    vf: Sbdf,
) -> Result<Added<Device>, AddDeviceError<Device>> {
    let info = DeviceInfo { physical_function: Some(pf), ..DeviceInfo::default() };
    machine.add(vf, info, destroyed.device(2))
}

/// Whose the device is; `None` if none is known.
pub fn owner(machine: &Machine, at: Sbdf) -> Option<Owner> {
    machine.lock(at).ok().map(|device| device.owner())
}

/// The hooks called from the `from`-th recorded call on that touch the hardware of the device, or its entries.
pub fn touches(machine: &Machine, at: Sbdf, from: usize) -> Vec<Hook> {
    let touching = |hook: &Hook| {
        !matches!(hook, Hook::Permit | Hook::Facts | Hook::HasDriver | Hook::GroupInUse | Hook::ResetScope)
    };
    let journal = machine.platform().journal();
    let of_device = journal.iter().skip(from).filter(|call| call.device == Some(at));
    of_device.map(|call| call.hook).filter(touching).collect()
}

/// Whose memory a request of the device would land in.
pub fn reaches(machine: &Machine, at: Sbdf) -> Option<Owner> {
    Dma::reaches(machine.platform().dma_raw(at))
}

/// Things that attachments set up and have not undone yet.
#[derive(Clone, Default)]
pub struct Live(Arc<AtomicUsize>);

impl Live {
    /// None so far.
    pub fn none() -> Self {
        Self::default()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets one up.
    pub fn attachment(&self, kind: AttachmentKind) -> Box<dyn Attachment<Device>> {
        self.set_up(kind, None)
    }

    /// One that was refused was not set up.
    pub fn give_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn set_up(&self, kind: AttachmentKind, view: Option<u32>) -> Box<dyn Attachment<Device>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::new(Counted { kind, live: self.clone(), is_up: true, view })
    }
}

struct Counted {
    kind: AttachmentKind,
    live: Live,
    is_up: bool,
    /// What the register reads while it is up.
    view: Option<u32>,
}

impl Attachment<Device> for Counted {
    fn kind(&self) -> AttachmentKind {
        self.kind
    }

    fn undo(&mut self, device: &dyn Claimed<Device>, _: platform::Hardware) -> Result<(), HookError> {
        assert!(core::mem::replace(&mut self.is_up, false), "undone twice");
        self.live.0.fetch_sub(1, Ordering::Relaxed);
        if self.view.is_some() {
            device.with(&mut |device| device.register = u32::MAX);
        }
        Ok(())
    }

    fn redo(&mut self, device: &dyn Claimed<Device>) -> Result<(), HookError> {
        assert!(!core::mem::replace(&mut self.is_up, true), "redone, and was not undone");
        self.live.0.fetch_add(1, Ordering::Relaxed);
        if let Some(view) = self.view {
            device.with(&mut |device| device.register = view);
        }
        Ok(())
    }
}

/// From now on an owner sees a device through a vPCI: the register reads [`view_of`] it while it is up, and all ones
/// after. Returns how many of them are up.
pub fn with_vpci(machine: &Machine) -> Live {
    let live = Live::none();
    let made = live.clone();
    machine.platform().on_bind(move |device, owner| {
        device.with(&mut |device| device.register = view_of(owner));
        Ok(Some(made.set_up(AttachmentKind::Vpci, Some(view_of(owner)))))
    });
    live
}

/// What this owner's vPCI makes of the register.
pub fn view_of(owner: Owner) -> u32 {
    match owner {
        Owner::Guest(guest) => 0x10 + guest.number(),
        _ => 1,
    }
}

/// What a thread of a model notes for another one, or for the end; the model checker does not look at it.
#[derive(Clone, Default)]
pub struct Note(Arc<Mutex<Option<usize>>>);

impl Note {
    /// Nothing yet.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Notes a number.
    pub fn put(&self, number: usize) {
        *self.0.lock().expect("unpoisoned") = Some(number);
    }

    /// The number.
    pub fn number(&self) -> Option<usize> {
        *self.0.lock().expect("unpoisoned")
    }
}
