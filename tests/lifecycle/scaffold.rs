//! A machine with a few functions, short names for what every test does, and what must hold after everything.

use std::fmt::Debug;

use pcidevs::address::Bus;
use pcidevs::device::{BusRange, PortType};
use pcidevs::lifecycle::{Added, DeviceInfo, Failure, Lifecycle, TransitionError};
use pcidevs::platform::{ConfigBytes, Entry, Fault, Hook, HookError, Platform, Width};
use pcidevs::{Busy, DomainId, Errno, Holder, Member, Owner, Sbdf};

use crate::bench::Bench;
use crate::memory::unlimited;

pub(crate) type Machine = Lifecycle<Bench>;

pub(crate) const GUEST: DomainId = DomainId::new(1);
pub(crate) const OTHER: DomainId = DomainId::new(2);
pub(crate) const TO_GUEST: Owner = Owner::Guest(GUEST);
pub(crate) const TO_OTHER: Owner = Owner::Guest(OTHER);

/// What an injected fault says.
pub(crate) const OUTAGE: HookError = HookError::new(Errno::EIO, "outage");

pub(crate) const COMMAND: u16 = 0x04;
pub(crate) const MASTER: u32 = 6;
/// Where `nic` has its Message Control of MSI-X.
pub(crate) const MSIX_CONTROL: u16 = 0x8e;
pub(crate) const MSIX_ENABLE: u32 = 1 << 15;
pub(crate) const MSIX_MASK: u32 = 1 << 14;

pub(crate) fn at(address: &str) -> Sbdf {
    address.parse().expect("an address")
}

pub(crate) fn set(addresses: &[&str]) -> Vec<Member> {
    unlimited(|| addresses.iter().map(|address| Member::new(at(address))).collect())
}

/// An endpoint with everything a transition touches.
pub(crate) fn nic() -> ConfigBytes {
    ConfigBytes::endpoint(0x8086, 0x10d3).express().flr().msi().msix(4).ats()
}

fn buses(primary: u8, secondary: u8, subordinate: u8) -> BusRange {
    let [primary, secondary, subordinate] = [primary, secondary, subordinate].map(Bus::new);
    BusRange { primary, secondary, subordinate }
}

/// A root port with these buses behind it.
pub(crate) fn port(secondary: u8, subordinate: u8) -> ConfigBytes {
    ConfigBytes::root_port(0x8086, 0x3420, buses(0, secondary, subordinate))
}

/// A bridge from PCI Express to conventional PCI, which puts its own requester ID in place of those behind it.
pub(crate) fn pci_bridge(primary: u8, secondary: u8) -> ConfigBytes {
    ConfigBytes::bridge(0x104c, 0x8240, buses(primary, secondary, secondary))
        .express_port(PortType::PcieToPci)
}

/// A machine with two guests and no devices.
pub(crate) fn empty() -> Machine {
    let machine = Lifecycle::new(Bench::new()).expect("memory");
    machine.create_domain(GUEST).expect("created");
    machine.create_domain(OTHER).expect("created");
    machine
}

/// A machine with endpoints at these addresses, with the host, at work, and two guests.
pub(crate) fn machine(addresses: &[&str]) -> Machine {
    let machine = empty();
    for address in addresses {
        plug(&machine, address, nic());
    }
    machine
}

/// A machine with these endpoints, of which the guest has all.
pub(crate) fn assigned(addresses: &[&str]) -> Machine {
    let machine = machine(addresses);
    machine.assign(&set(addresses), GUEST).expect("assigned");
    machine
}

/// Plugs a function, reports it, and sets it to work.
pub(crate) fn plug(machine: &Machine, address: &str, config: ConfigBytes) {
    let is_nic = config == nic();
    machine.platform().plug(at(address), config);
    let added = machine.add(at(address), DeviceInfo::default(), 7).expect("added");
    assert_eq!(added, Added::New);
    if is_nic {
        work(machine, address);
    }
}

/// The host's driver sets a `nic` to work.
pub(crate) fn work(machine: &Machine, address: &str) {
    let platform = machine.platform();
    platform.config_write(at(address), MSIX_CONTROL, Width::Word, MSIX_ENABLE | 3);
    platform.config_write(at(address), COMMAND, Width::Word, MASTER);
}

/// Plugs a virtual function and reports it.
pub(crate) fn plug_vf(machine: &Machine, address: &str, pf: &str) {
    machine.platform().plug(at(address), ConfigBytes::virtual_function());
    let info = DeviceInfo { physical_function: Some(at(pf)), ..DeviceInfo::default() };
    assert_eq!(machine.add(at(address), info, 8).expect("added"), Added::New);
}

pub(crate) fn owner(machine: &Machine, address: &str) -> Option<Owner> {
    machine.lock(at(address)).ok().map(|device| device.owner())
}

pub(crate) fn listed(machine: &Machine, owner: Owner) -> Vec<String> {
    let Some(devices) = machine.devices_of(owner).expect("memory") else { return Vec::new() };
    devices.iter().map(|device| device.address().to_string()).collect()
}

pub(crate) fn entry(machine: &Machine, requester: &str) -> Entry {
    machine.platform().entry(at(requester))
}

pub(crate) fn errno<T: Debug>(result: Result<T, TransitionError>) -> Errno {
    result.expect_err("refused").errno()
}

/// The hook's failure that this ended with.
pub(crate) fn failure<T: Debug>(result: Result<T, TransitionError>) -> Failure {
    match result {
        Err(TransitionError::Failed(failure)) => failure,
        other => panic!("not a hook's failure: {other:?}"),
    }
}

/// Who was in the way.
pub(crate) fn busy<T: Debug>(result: Result<T, TransitionError>) -> Busy {
    match result {
        Err(TransitionError::Busy(_, busy)) => busy,
        other => panic!("not busy: {other:?}"),
    }
}

/// That exactly these were in the way, by name.
pub(crate) fn held_by<T: Debug>(result: Result<T, TransitionError>, holders: &[Holder]) {
    let error = result.expect_err("busy");
    assert_eq!(error.errno(), Errno::EBUSY);
    let busy = busy::<()>(Err(error));
    assert_eq!((busy.holders.as_slice(), busy.unnamed, busy.truncated), (holders, 0, false));
}

/// The next call of this hook fails.
pub(crate) fn fail(machine: &Machine, hook: Hook) {
    machine.platform().fail_next(hook, Fault::Error(OUTAGE));
}

/// Runs `operation` on another thread until this hook hangs in it, then `meanwhile`, then lets it go on.
pub(crate) fn while_it_hangs<R: Send>(
    machine: &Machine,
    hook: Hook,
    operation: impl FnOnce() -> R + Send,
    meanwhile: impl FnOnce(),
) -> R {
    /// Also when `meanwhile` panics.
    struct Release<'a>(&'a Machine);

    impl Drop for Release<'_> {
        fn drop(&mut self) {
            self.0.platform().release_hangs();
        }
    }

    machine.platform().fail_next(hook, Fault::Hang);
    std::thread::scope(|scope| {
        let running = scope.spawn(operation);
        {
            let _release = Release(machine);
            while machine.platform().hanging() == 0 {
                assert!(!running.is_finished(), "it never came to {hook}");
                std::thread::yield_now();
            }
            meanwhile();
        }
        running.join().expect("no panic")
    })
}

/// Everything that can be seen of a machine, a line each: after a transition that failed nothing of it has changed.
pub(crate) fn dump(machine: &Machine) -> Vec<String> {
    let platform = machine.platform();
    let mut lines = Vec::new();
    for mut device in machine.devices() {
        device.status.holders.sort_by_key(ToString::to_string);
        lines.push(format!("{device:?}"));
        let address = device.status.address;
        if let Ok(locked) = machine.lock(address) {
            let flags = (locked.is_read_only(), locked.is_deferred(), locked.is_extended_function());
            let claim = (locked.is_claimed(), locked.is_removing(), locked.guest_address());
            lines.push(format!(
                "  {:?} {flags:?} {claim:?} {:?} {}",
                locked.node(),
                locked.requesters(),
                **locked
            ));
        }
        let registers =
            [COMMAND, 0x7e, MSIX_CONTROL].map(|at| platform.config_read(address, at, Width::Word));
        let (ats, msix) = (platform.ats(address), platform.msix_prepared(address));
        lines.push(format!("  registers {registers:x?}, ATS {ats:?}, MSI-X prepared {msix}"));
        lines.push(format!("  group {:?}", machine.group_of(address)));
    }
    for owner in owners() {
        lines.push(format!("{owner}: {:?}", listed(machine, owner)));
        let Some(domain) = owner.guest().and_then(|id| machine.domain(id)) else { continue };
        for place in 0..16 {
            let guest = Sbdf::from_u32(place << 3);
            if let Ok(device) = domain.lock(guest) {
                lines.push(format!("  {guest} is {}", device.address()));
            }
        }
    }
    lines.push(format!("entries {:?}", platform.entries()));
    lines.push(format!("cached {:?}", platform.unflushed()));
    lines.extend(platform.things());
    lines
}

fn owners() -> [Owner; 6] {
    [Owner::Unowned, Owner::Host, Owner::Quarantine, Owner::Hidden, TO_GUEST, TO_OTHER]
}

/// What holds after everything: one list for each device, its requests reach its owner and nobody else, it sees one
/// view, and its uses are its holders. Of a broken device only what must never be: DMA to a guest that is not
/// charged with it.
pub(crate) fn check(machine: &Machine) {
    let platform = machine.platform();
    let unflushed = platform.unflushed();
    for device in machine.devices() {
        let status = &device.status;
        let address = status.address;
        let lists =
            owners().into_iter().filter(|owner| listed(machine, *owner).contains(&address.to_string()));
        let owner = status.owner.expect("present");
        assert_eq!(lists.collect::<Vec<_>>(), [owner], "the lists of {address}");
        let named = u32::try_from(status.holders.len()).expect("few");
        assert_eq!(status.uses, status.unnamed + named, "{status:?}");
        let requesters = machine.lock(address).expect("present").requesters().to_vec();
        if platform.config_read(address, 0x0e, Width::Byte) & 0x7f == 1 {
            // A bridge's own requester ID may be that of the devices behind it.
            continue;
        }
        for requester in &requesters {
            if let Some(reached @ Owner::Guest(_)) = platform.dma_raw(*requester).reaches() {
                assert_eq!(owner, reached, "DMA of {address} as {requester}");
            }
        }
        if device.broken.is_some() {
            continue;
        }
        for requester in &requesters {
            let expected = match owner {
                Owner::Host | Owner::Guest(_) => Entry::Attached(owner),
                Owner::Unowned => Entry::Absent,
                _ => Entry::Blocked,
            };
            assert_eq!(platform.entry(*requester), expected, "{address} as {requester}");
            assert!(!unflushed.contains(requester), "{address} as {requester} is not flushed");
        }
        let viewers = if matches!(owner, Owner::Host | Owner::Guest(_)) { vec![owner] } else { vec![] };
        assert_eq!(platform.views(address), viewers, "the views of {address}");
    }
    assert_eq!(platform.lost(), 0, "attachments were dropped while in effect");
}

/// Blocks a broken device's DMA, as an operator would, so that it can be repaired.
pub(crate) fn block_by_hand(machine: &Machine, address: &str) {
    let requesters = machine.lock(at(address)).expect("present").requesters().to_vec();
    for requester in requesters {
        machine.platform().iommu_block(at(address), requester).expect("blocked");
    }
    machine.platform().iommu_flush(at(address)).expect("flushed");
}
