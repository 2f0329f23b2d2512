//! The simulated machine keeps what its documentation promises: the tests of every transition rest on it.

mod config;
mod device;
mod dma;
mod faults;
mod memory;

use pcidevs::platform::{
    Claimed, ConfigBytes, GroupId, Hook, HookError, Platform, Request, ResetScope, Simulated, Switch, Width,
};
use pcidevs::{DomainId, Errno, Owner, Sbdf, Transition};

type Machine = Simulated<u32>;

const ID: DomainId = DomainId::new(7);
const GUEST: Owner = Owner::Guest(ID);
const NIC: Sbdf = Sbdf::from_u32(0x0300);
const PHANTOM: Sbdf = Sbdf::from_u32(0x0304);
const ALIAS: Sbdf = Sbdf::from_u32(0x0500);
const GROUP: GroupId = GroupId(3);
const OUTAGE: HookError = HookError::new(Errno::EIO, "outage");

const COMMAND: u16 = 0x04;
const MASTER: u32 = 6;

/// A machine with one function, which masters the bus.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.plug(NIC, nic());
    machine.config_write(NIC, COMMAND, Width::Word, MASTER);
    machine
}

fn nic() -> ConfigBytes {
    ConfigBytes::endpoint(0x8086, 0x10fb).express().flr().msi().msix(4).ats()
}

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

fn request(transition: Transition, to: Owner) -> Request {
    Request { transition, device: NIC, from: Some(Owner::Host), to }
}

/// A device in the hands of a transition.
struct InHand(std::sync::Mutex<u32>);

impl Claimed<u32> for InHand {
    fn address(&self) -> Sbdf {
        NIC
    }

    fn with(&self, step: &mut dyn FnMut(&mut u32)) {
        step(&mut self.0.lock().unwrap());
    }
}

/// Calls a hook somehow; whether it reported failure.
fn call(machine: &Machine, hook: Hook) -> bool {
    let device = InHand(0.into());
    match hook {
        Hook::ConfigRead => machine.config_read(NIC, 0, Width::Dword) == u32::MAX,
        Hook::ConfigWrite => {
            let before = machine.config_read(NIC, 0x3c, Width::Byte);
            machine.config_write(NIC, 0x3c, Width::Byte, before ^ 1);
            machine.config_read(NIC, 0x3c, Width::Byte) == before
        }
        Hook::Facts => machine.facts(NIC).is_err(),
        Hook::Permit => machine.permit(&request(Transition::Assign, GUEST)).is_err(),
        Hook::HasDriver => machine.has_driver(NIC),
        Hook::GroupInUse => machine.group_in_use(GROUP),
        Hook::IommuAttach => machine.iommu_attach(NIC, NIC, GUEST).is_err(),
        Hook::IommuBlock => machine.iommu_block(NIC, NIC).is_err(),
        Hook::IommuDetach => machine.iommu_detach(NIC, NIC).is_err(),
        Hook::IommuFlush => machine.iommu_flush(NIC).is_err(),
        Hook::DmaBlocked => machine.dma_blocked(NIC).is_err(),
        Hook::SetAts => machine.set_ats(NIC, Switch::On).is_err(),
        Hook::AwaitIdle => machine.await_idle(at("1f:00.0")).is_err(),
        Hook::ResetScope => machine.reset_scope(NIC, Transition::Assign).is_err(),
        Hook::Reset => machine.reset(NIC, ResetScope::Function, None).is_err(),
        Hook::MsixPrepare => machine.msix_prepare(NIC).is_err(),
        Hook::MsixRelease => machine.msix_release(NIC).is_err(),
        Hook::Bind => machine.bind(&device, GUEST).is_err(),
        Hook::AskUnplug => machine.ask_unplug(NIC, ID).is_err(),
        Hook::StopGuest => {
            machine.stop_guest(ID, NIC, OUTAGE);
            true
        }
    }
}

/// Calls every hook once.
fn call_all(machine: &Machine) {
    for hook in Hook::ALL {
        call(machine, *hook);
    }
}
