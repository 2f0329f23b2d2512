//! The simulated machine keeps what its documentation promises: the tests of every transition rest on it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pcidevs::address::Bus;
use pcidevs::device::{
    BridgeKind, BusRange, Capabilities, ConfigSpace, ExtendedCapabilities, Header, PortType, SrIov, Stride,
    VfBar,
};
use pcidevs::platform::{
    Attachment, AttachmentKind, Bar, Claimed, ConfigBytes, Dma, Entry, Facts, Fault, GroupId, Hardware, Hook,
    HookError, Platform, Refusal, Request, ResetKind, ResetScope, ResetSupport, Rule, Simulated, Stopped,
    Switch, VirtualFunctions, Width,
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

// ---- configuration space

#[test]
fn an_absent_function_reads_all_ones() {
    let machine = machine();
    for (width, ones) in [(Width::Byte, 0xff), (Width::Word, 0xffff), (Width::Dword, u32::MAX)] {
        assert_eq!(machine.config_read(ALIAS, 0, width), ones);
        assert_eq!(machine.config_read(at("10000:e1:00.0"), 0, width), ones);
    }
    machine.config_write(ALIAS, COMMAND, Width::Word, MASTER);
    assert_eq!(machine.config(ALIAS), None);
}

#[test]
fn an_unplugged_function_reads_all_ones_from_then_on() {
    let machine = machine();
    machine.unplug(NIC);
    assert_eq!(machine.config_read(NIC, 0, Width::Dword), u32::MAX);
    assert!(machine.functions().is_empty());
    machine.plug(NIC, ConfigBytes::endpoint(1, 2));
    assert_eq!(machine.config_read(NIC, 0, Width::Dword), 0x0002_0001);
    assert_eq!(machine.config_read(NIC, COMMAND, Width::Word), 0, "nothing is left of the one before");
    assert_eq!(machine.config_read(NIC, 0x100, Width::Dword), u32::MAX, "and it is no PCI Express function");
}

#[test]
fn every_width_at_every_aligned_offset_reads_the_bytes_given() {
    let machine = Machine::new();
    let bytes: Vec<u8> = (0..4096_u32).map(|at| at.wrapping_mul(37).to_le_bytes()[0]).collect();
    machine.plug_bytes(NIC, &bytes);
    assert_eq!(machine.config(NIC), Some(bytes.clone()));
    let config = ConfigSpace::new(&bytes);
    for offset in 0..4096_u16 {
        let at = usize::from(offset);
        assert_eq!(machine.config_read(NIC, offset, Width::Byte), config.u8(at).unwrap().into());
        if offset % 2 == 0 {
            assert_eq!(machine.config_read(NIC, offset, Width::Word), config.u16(at).unwrap().into());
        }
        if offset % 4 == 0 {
            assert_eq!(machine.config_read(NIC, offset, Width::Dword), config.u32(at).unwrap());
        }
    }
}

#[test]
fn bytes_of_any_length_read_ones_behind_their_end() {
    for length in [0, 1, 3, 63, 64, 256, 257, 4095, 4096, 5000] {
        let machine = Machine::new();
        machine.plug_bytes(NIC, &vec![0x11; length]);
        let readable = (0..4096).filter(|at| machine.config_read(NIC, *at, Width::Byte) == 0x11).count();
        assert_eq!(readable, length.min(4096), "{length} bytes");
    }
}

#[test]
fn a_write_changes_its_own_bytes_and_no_others() {
    let machine = machine();
    machine.config_write(NIC, 0x1c0, Width::Dword, 0x4433_2211);
    machine.config_write(NIC, 0x1c1, Width::Byte, 0xffff_ffaa);
    machine.config_write(NIC, 0x1c2, Width::Word, 0xffff_bbbb);
    assert_eq!(machine.config_read(NIC, 0x1c0, Width::Dword), 0xbbbb_aa11);
}

#[test]
fn identity_class_status_and_header_type_are_read_only() {
    let machine = machine();
    let before = machine.config(NIC).unwrap();
    for offset in (0..0x40).step_by(4) {
        machine.config_write(NIC, offset, Width::Dword, !machine.config_read(NIC, offset, Width::Dword));
    }
    let after = machine.config(NIC).unwrap();
    for fixed in [0..4, 6..0xc, 0xe..0xf, 0x34..0x38] {
        assert_eq!(before[fixed.clone()], after[fixed.clone()], "{fixed:x?}");
    }
    assert_ne!(before[4..6], after[4..6], "the command register is not");
}

#[test]
fn functions_are_found_in_every_segment() {
    let machine = Machine::new();
    let places =
        [at("00:00.0"), at("0001:ff:1f.7"), at("0041:ff:1f.7"), at("10000:e1:00.0"), at("ffffffff:00:00.1")];
    for (place, device) in places.iter().zip(1..) {
        machine.plug(*place, ConfigBytes::endpoint(1, device));
    }
    for (place, device) in places.iter().zip(1_u32..) {
        assert_eq!(machine.config_read(*place, 2, Width::Word), device);
    }
    assert_eq!(machine.functions(), places);
}

// ---- building configuration spaces

#[test]
fn a_built_endpoint_reads_back_through_the_parsers() {
    let built = nic().class(0x01_08_02).multifunction().phantom_bits(2);
    let config = ConfigSpace::new(built.bytes());
    let header = Header::read(config).unwrap();
    assert_eq!((header.vendor, header.device, header.class), (0x8086, 0x10fb, 0x01_08_02));
    assert!(header.multifunction && header.capability_list);
    let (low, extended) = (Capabilities::read(config), ExtendedCapabilities::read(config));
    assert_eq!(low.found.iter().map(|it| it.id).collect::<Vec<_>>(), [0x10, 0x05, 0x11]);
    assert_eq!(extended.found.iter().map(|it| it.id).collect::<Vec<_>>(), [0x0f]);
    assert!(low.warnings.is_empty() && extended.warnings.is_empty());
    let express = pcidevs::device::Express::read(config).unwrap();
    assert_eq!((express.port_type, express.device_capabilities >> 28 & 1), (PortType::Endpoint, 1));
    assert_eq!(Stride::read(config, NIC.devfn()), Some(Stride::Two));
}

#[test]
fn a_capability_asked_for_twice_is_there_once() {
    let built = ConfigBytes::virtual_function().express().msi().msi().msix(1).msix(8).ats().ats();
    let config = ConfigSpace::new(built.bytes());
    assert_eq!(Capabilities::read(config).found.len(), 3);
    assert_eq!(ExtendedCapabilities::read(config).found.len(), 1);
    assert!(Header::read(config).unwrap().hides_its_identity());
}

#[test]
fn a_built_physical_function_tells_where_its_virtual_ones_are() {
    let functions =
        VirtualFunctions { count: 3, first_offset: 0x80, stride: 2, device: 0x10ed, enabled: Switch::On };
    let built = nic().sriov(functions).vf_bar(0, Bar::Memory64(0x4000)).vf_bar(5, Bar::Memory32(16));
    let sriov = SrIov::read(ConfigSpace::new(built.bytes())).unwrap();
    assert_eq!((sriov.enabled_vfs(), sriov.total_vfs, sriov.vf_device), (3, 3, 0x10ed));
    let addresses: Vec<_> = sriov.vf_addresses(NIC).map(|it| it.unwrap().to_string()).collect();
    assert_eq!(addresses, ["0000:03:10.0", "0000:03:10.2", "0000:03:10.4"]);
    assert_eq!(sriov.vf_bars[..2], [VfBar::Memory64 { prefetchable: false }, VfBar::UpperHalf]);
    let off = ConfigBytes::endpoint(1, 2).sriov(VirtualFunctions { enabled: Switch::Off, ..functions });
    assert!(SrIov::read(ConfigSpace::new(off.bytes())).unwrap().may_size_bars());
}

#[test]
fn built_bridges_read_back_with_their_buses() {
    let buses = BusRange { primary: Bus::new(0), secondary: Bus::new(2), subordinate: Bus::new(5) };
    let built = [
        (ConfigBytes::bridge(1, 2, buses), BridgeKind::LegacyPci),
        (ConfigBytes::root_port(1, 2, buses), BridgeKind::RootPort),
        (ConfigBytes::bridge(1, 2, buses).express_port(PortType::PcieToPci), BridgeKind::PcieToPci),
        (ConfigBytes::bridge(1, 2, buses).express_port(PortType::SwitchUpstream), BridgeKind::SwitchUpstream),
    ];
    for (bytes, kind) in built {
        let config = ConfigSpace::new(bytes.bytes());
        assert_eq!((BridgeKind::read(config), BusRange::read(config)), (Some(kind), Some(buses)));
    }
    let odd = ConfigBytes::endpoint(1, 2).multifunction().header_type(0x7f);
    let header = Header::read(ConfigSpace::new(odd.bytes())).unwrap();
    assert_eq!((header.layout.bits(), header.multifunction), (0x7f, true));
}

#[test]
fn bars_are_sized_by_writing_ones() {
    let machine = Machine::new();
    let functions =
        VirtualFunctions { count: 1, first_offset: 1, stride: 1, device: 3, enabled: Switch::Off };
    let built = ConfigBytes::endpoint(1, 2)
        .bar(0, Bar::Memory32(0x4000))
        .bar(1, Bar::Memory64(1 << 33))
        .bar(3, Bar::Io(0x20))
        .bar(5, Bar::Memory64(16))
        .bar(6, Bar::Io(4))
        .sriov(functions)
        .vf_bar(1, Bar::Memory32(0x1000));
    machine.plug(NIC, built);
    let sized = |offset| {
        machine.config_write(NIC, offset, Width::Dword, u32::MAX);
        machine.config_read(NIC, offset, Width::Dword)
    };
    assert_eq!(sized(0x10), 0xffff_c000);
    assert_eq!((sized(0x14), sized(0x18)), (4, 0xffff_fffe));
    assert_eq!(sized(0x1c), 0xffff_ffe1);
    assert_eq!((sized(0x20), sized(0x24)), (0, 0), "unused, and a 64-bit BAR without a second slot");
    assert_eq!((sized(0x124), sized(0x128)), (0, 0xffff_f000));
}

// ---- DMA

#[test]
fn an_unflushed_change_stays_visible() {
    let machine = machine();
    machine.iommu_attach(NIC, NIC, Owner::Host).unwrap();
    assert_eq!(machine.dma(NIC), Dma::Reaches(Owner::Host), "there was nothing to cache");
    machine.iommu_block(NIC, NIC).unwrap();
    machine.iommu_attach(NIC, NIC, GUEST).unwrap();
    assert_eq!((machine.entry(NIC), machine.dma(NIC)), (Entry::Attached(GUEST), Dma::Reaches(Owner::Host)));
    assert_eq!(machine.cached_entry(NIC), Some(Entry::Attached(Owner::Host)));
    assert_eq!(machine.unflushed(), [NIC]);
    machine.iommu_flush(NIC).unwrap();
    assert_eq!((machine.cached_entry(NIC), machine.dma(NIC)), (None, Dma::Reaches(GUEST)));
    machine.iommu_detach(NIC, NIC).unwrap();
    assert_eq!(machine.dma(NIC), Dma::Reaches(GUEST));
    machine.iommu_flush(NIC).unwrap();
    assert_eq!((machine.entry(NIC), machine.dma(NIC)), (Entry::Absent, Dma::NoEntry));
}

#[test]
fn a_flush_is_of_every_requester_id_changed_through_the_device_and_of_no_other() {
    let machine = machine();
    let (neighbour, far) = (at("03:01.0"), at("0001:03:00.0"));
    let of_nic = [NIC, PHANTOM, ALIAS, far];
    for owner in [Owner::Host, GUEST] {
        of_nic.iter().for_each(|requester| machine.iommu_attach(NIC, *requester, owner).unwrap());
        machine.iommu_attach(neighbour, neighbour, owner).unwrap();
    }
    assert_eq!(machine.unflushed(), [NIC, PHANTOM, neighbour, ALIAS, far]);
    machine.iommu_flush(NIC).unwrap();
    assert_eq!(machine.unflushed(), [neighbour]);
    let entries: Vec<_> = machine.entries().into_iter().map(|(requester, _)| requester).collect();
    assert_eq!(entries, [NIC, PHANTOM, neighbour, ALIAS, far]);
}

#[test]
fn every_owner_can_be_attached() {
    let machine = machine();
    let last = Owner::Guest(DomainId::new(u32::MAX));
    for owner in [Owner::Unowned, Owner::Host, Owner::Quarantine, Owner::Hidden, GUEST, last] {
        machine.iommu_attach(NIC, NIC, owner).unwrap();
        machine.iommu_flush(NIC).unwrap();
        assert_eq!((machine.entry(NIC), machine.dma(NIC)), (Entry::Attached(owner), Dma::Reaches(owner)));
    }
}

#[test]
fn only_a_present_function_that_masters_the_bus_sends_requests() {
    let machine = machine();
    machine.iommu_attach(NIC, NIC, GUEST).unwrap();
    machine.iommu_attach(NIC, ALIAS, GUEST).unwrap();
    assert_eq!(machine.dma_as(NIC, ALIAS), Dma::Reaches(GUEST));
    assert_eq!(machine.dma(ALIAS), Dma::Silent, "no function is there");
    machine.config_write(NIC, COMMAND, Width::Word, 2);
    assert_eq!((machine.dma(NIC), machine.dma_as(NIC, ALIAS)), (Dma::Silent, Dma::Silent));
    assert_eq!(machine.dma_raw(NIC), Dma::Reaches(GUEST), "it may not ask its command register");
    machine.config_write(NIC, COMMAND, Width::Byte, MASTER);
    assert_eq!(machine.dma(NIC), Dma::Reaches(GUEST));
    machine.unplug(NIC);
    assert_eq!(machine.dma(NIC), Dma::Silent);
    assert_eq!(machine.entry(NIC), Entry::Attached(GUEST), "until it is detached");
}

#[test]
fn dma_is_blocked_when_no_requester_id_reaches_memory_not_even_from_the_cache() {
    let machine = machine();
    assert_eq!(machine.dma_blocked(NIC), Ok(true), "no entry at all");
    machine.iommu_attach(NIC, NIC, GUEST).unwrap();
    machine.iommu_attach(NIC, ALIAS, GUEST).unwrap();
    machine.iommu_block(NIC, NIC).unwrap();
    machine.iommu_flush(NIC).unwrap();
    assert_eq!(machine.dma_blocked(NIC), Ok(false), "the alias");
    machine.iommu_detach(NIC, ALIAS).unwrap();
    assert_eq!(machine.dma_blocked(NIC), Ok(false), "the cache");
    machine.iommu_flush(NIC).unwrap();
    assert_eq!(machine.dma_blocked(NIC), Ok(true));
}

/// Another processor's requests: once an entry is blocked and flushed, none reaches the guest any more.
#[test]
fn no_request_reaches_a_guest_after_block_and_flush() {
    let machine = machine();
    let blocked = AtomicU32::new(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..20_000 {
                // Odd while the guest has no access.
                blocked.store(2 * round, Ordering::SeqCst);
                machine.iommu_attach(NIC, NIC, GUEST).unwrap();
                machine.iommu_flush(NIC).unwrap();
                machine.iommu_block(NIC, NIC).unwrap();
                machine.iommu_flush(NIC).unwrap();
                blocked.store(2 * round + 1, Ordering::SeqCst);
            }
        });
        while blocked.load(Ordering::SeqCst) < 39_999 {
            let before = blocked.load(Ordering::SeqCst);
            let dma = machine.dma(NIC);
            if before % 2 == 1 && blocked.load(Ordering::SeqCst) == before {
                assert_ne!(dma.reaches(), Some(GUEST), "round {}", before / 2);
            }
        }
    });
}

// ---- facts and policy

#[test]
fn facts_are_what_the_test_said() {
    let machine = machine();
    assert_eq!(machine.facts(NIC), Ok(Facts::default()));
    machine.set_group(NIC, GROUP);
    machine.set_node(NIC, 1);
    machine.add_alias(NIC, ALIAS);
    machine.set_phantom_stride(NIC, 4);
    let facts = Facts { group: Some(GROUP), node: Some(1), aliases: vec![ALIAS], phantom_stride: Some(4) };
    assert_eq!(machine.facts(NIC).as_ref(), Ok(&facts));
    machine.set_facts(ALIAS, facts.clone());
    assert_eq!(machine.facts(ALIAS), Ok(facts));
}

#[test]
fn drivers_and_open_groups_come_and_go() {
    let machine = machine();
    for present in [false, true, false] {
        machine.set_driver(NIC, present);
        machine.set_group_in_use(GROUP, present);
        assert_eq!((machine.has_driver(NIC), machine.group_in_use(GROUP)), (present, present));
        assert!(!machine.has_driver(ALIAS) && !machine.group_in_use(GroupId(4)));
    }
}

#[test]
fn a_rule_refuses_what_matches_all_it_names() {
    let machine = machine();
    let assign = request(Transition::Assign, GUEST);
    let rule = Rule::new(Refusal::ReservedMemory).device(NIC).transition(Transition::Assign).to(GUEST);
    machine.refuse(rule);
    assert_eq!(machine.permit(&assign), Err(Refusal::ReservedMemory));
    let others = [
        Request { device: ALIAS, ..assign },
        Request { transition: Transition::Reset, ..assign },
        Request { to: Owner::Host, ..assign },
    ];
    assert!(others.iter().all(|other| machine.permit(other).is_ok()));
    machine.refuse(Rule::new(Refusal::Dying));
    assert_eq!(machine.permit(&assign), Err(Refusal::ReservedMemory), "the first that matches");
    assert!(others.iter().all(|other| machine.permit(other) == Err(Refusal::Dying)));
    machine.permit_all();
    assert_eq!(machine.permit(&assign), Ok(()));
}

#[test]
fn the_clock_stands_until_it_is_told_otherwise() {
    let machine = machine();
    machine.advance(10);
    machine.advance(5);
    assert_eq!((machine.now(), machine.now()), (15, 15));
    machine.run_clock();
    assert!(machine.now() >= 15);
}

// ---- the device itself

#[test]
fn a_device_is_idle_once_its_bus_mastering_is_off() {
    let machine = machine();
    assert_eq!(machine.await_idle(NIC).map_err(HookError::errno), Err(Errno::ETIMEDOUT));
    machine.config_write(NIC, COMMAND, Width::Word, 0);
    assert_eq!(machine.await_idle(NIC), Ok(()));
    assert_eq!(machine.await_idle(ALIAS), Ok(()), "nothing there, nothing pending");
}

#[test]
fn ats_is_switched_in_the_capability() {
    let machine = machine();
    machine.plug(ALIAS, ConfigBytes::endpoint(1, 2));
    machine.set_ats(NIC, Switch::On).unwrap();
    assert_eq!(machine.ats(NIC), Switch::On);
    assert_eq!(machine.config_read(NIC, 0x106, Width::Word), 0x8000);
    machine.set_ats(NIC, Switch::Off).unwrap();
    assert_eq!(machine.ats(NIC), Switch::Off);
    assert_eq!(machine.set_ats(ALIAS, Switch::On).map_err(HookError::errno), Err(Errno::EOPNOTSUPP));
    assert_eq!(machine.set_ats(ALIAS, Switch::Off), Ok(()), "nothing to switch off");
}

#[test]
fn a_reset_switches_off_bus_mastering_msi_msix_and_ats() {
    let machine = machine();
    let found = Capabilities::read(ConfigSpace::new(nic().bytes())).found;
    let control = |id| u16::from(found.iter().find(|it| it.id == id).unwrap().offset) + 2;
    machine.config_write(NIC, control(0x05), Width::Word, 0x81);
    machine.config_write(NIC, control(0x11), Width::Word, 0xc003);
    machine.set_ats(NIC, Switch::On).unwrap();
    machine.reset(NIC, ResetScope::Function, Some(ResetKind::Flr)).unwrap();
    assert_eq!(machine.config_read(NIC, COMMAND, Width::Word), 0);
    assert_eq!(machine.config_read(NIC, control(0x05), Width::Word), 0x80);
    assert_eq!(machine.config_read(NIC, control(0x11), Width::Word), 0x4003);
    assert_eq!((machine.ats(NIC), machine.resets(NIC)), (Switch::Off, 1));
}

#[test]
fn a_reset_reaches_its_scope() {
    let functions = ["00:01.0", "02:00.0", "02:00.1", "02:01.0", "03:00.0", "04:00.0", "05:00.0", "06:00.0"];
    let resets = |scope| {
        let machine = Machine::new();
        functions.iter().for_each(|it| machine.plug(at(it), nic()));
        let below = |secondary, subordinate| BusRange {
            primary: Bus::new(2),
            secondary: Bus::new(secondary),
            subordinate: Bus::new(subordinate),
        };
        machine.plug(at("02:01.0"), ConfigBytes::root_port(1, 2, below(3, 5)));
        machine.plug(at("04:00.0"), ConfigBytes::bridge(1, 2, below(5, 5)));
        machine.reset(at("02:00.0"), scope, None).unwrap();
        functions.map(|it| machine.resets(at(it)))
    };
    assert_eq!(resets(ResetScope::Function), [0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(resets(ResetScope::Slot), [0, 1, 1, 0, 0, 0, 0, 0]);
    assert_eq!(resets(ResetScope::Bus), [0, 1, 1, 1, 1, 1, 1, 0]);
}

#[test]
fn the_scope_of_a_reset_is_what_the_test_said() {
    let machine = machine();
    let scope = |support| {
        machine.set_reset(NIC, support);
        machine.reset_scope(NIC, Transition::Assign).map_err(HookError::errno)
    };
    assert_eq!(machine.reset_scope(NIC, Transition::Assign), Ok(Some(ResetScope::Function)));
    assert_eq!(scope(ResetSupport::Slot), Ok(Some(ResetScope::Slot)));
    assert_eq!(scope(ResetSupport::Bus), Ok(Some(ResetScope::Bus)));
    assert_eq!(scope(ResetSupport::NotNeeded), Ok(None));
    assert_eq!(scope(ResetSupport::Missing), Err(Errno::EOPNOTSUPP));
    assert_eq!(scope(ResetSupport::Function), Ok(Some(ResetScope::Function)));
}

#[test]
fn msix_is_prepared_until_it_is_released() {
    let machine = machine();
    machine.msix_prepare(NIC).unwrap();
    assert!(machine.msix_prepared(NIC));
    machine.msix_release(NIC).unwrap();
    assert!(!machine.msix_prepared(NIC) && !machine.msix_prepared(ALIAS));
}

// ---- owners

struct Vpci;

impl Attachment<u32> for Vpci {
    fn kind(&self) -> AttachmentKind {
        AttachmentKind::Vpci
    }

    fn undo(&mut self, _: &dyn Claimed<u32>, _: Hardware) -> Result<(), HookError> {
        Ok(())
    }

    fn redo(&mut self, _: &dyn Claimed<u32>) -> Result<(), HookError> {
        Ok(())
    }
}

/// The binder is foreign code: it may lock the device, and call the machine as it likes.
#[test]
fn bind_does_what_the_test_said_with_no_lock_held() {
    let machine = Arc::new(machine());
    let device = InHand(0.into());
    assert!(machine.bind(&device, GUEST).unwrap().is_none());
    let inside = Arc::downgrade(&machine);
    machine.on_bind(move |device, owner| {
        device.with(&mut |data| *data += 1);
        inside.upgrade().unwrap().on_bind(|_, _| Err(OUTAGE));
        Ok(if owner == GUEST { Some(Box::new(Vpci)) } else { None })
    });
    assert_eq!(machine.bind(&device, GUEST).unwrap().unwrap().kind(), AttachmentKind::Vpci);
    assert_eq!(*device.0.lock().unwrap(), 1);
    assert_eq!(machine.bind(&device, GUEST).unwrap_err(), OUTAGE);
}

#[test]
fn guests_asked_and_stopped_are_remembered() {
    let machine = machine();
    machine.ask_unplug(NIC, ID).unwrap();
    machine.stop_guest(ID, NIC, OUTAGE);
    assert_eq!(machine.asked_unplug(), [(NIC, ID)]);
    assert_eq!(machine.stopped(), [Stopped { guest: ID, device: NIC, because: OUTAGE }]);
}

// ---- counting, recording, injecting

#[test]
fn calls_are_counted_while_counting_is_on() {
    let machine = machine();
    call(&machine, Hook::IommuFlush);
    assert_eq!(machine.calls(), 0);
    machine.count(true);
    Hook::ALL.iter().for_each(|hook| drop(call(&machine, *hook)));
    machine.now();
    assert_eq!(machine.calls(), 18, "all but configuration accesses and the clock");
    machine.watch_config(true);
    machine.config_read(NIC, 0, Width::Dword);
    machine.config_write(NIC, COMMAND, Width::Word, 0);
    assert_eq!(machine.calls(), 20);
    machine.count(false);
    call(&machine, Hook::IommuFlush);
    assert_eq!(machine.calls(), 20);
}

#[test]
fn a_journal_reads_like_the_transition() {
    let machine = machine();
    machine.record(true);
    machine.watch_config(true);
    machine.fail_next(Hook::IommuFlush, Fault::Error(OUTAGE));
    let _ = machine.permit(&request(Transition::Assign, GUEST));
    let _ = machine.group_in_use(GROUP);
    machine.config_write(NIC, COMMAND, Width::Word, 2);
    let _ = machine.set_ats(NIC, Switch::Off);
    let _ = machine.iommu_block(NIC, PHANTOM);
    let _ = machine.iommu_flush(NIC);
    let _ = machine.reset(NIC, ResetScope::Function, None);
    let _ = machine.iommu_attach(NIC, NIC, GUEST);
    machine.stop_guest(ID, NIC, OUTAGE);
    machine.record(false);
    let _ = machine.iommu_flush(NIC);
    let text: Vec<_> = machine.journal().iter().map(ToString::to_string).collect();
    let expected = [
        "permit 0000:03:00.0, assign to domain 7",
        "group_in_use 3",
        "config_write 0000:03:00.0, 0x4 = 0x2",
        "set_ats 0000:03:00.0, off",
        "iommu_block 0000:03:00.0 as 0000:03:00.4",
        "iommu_flush 0000:03:00.0: outage (EIO)",
        "reset 0000:03:00.0, Function",
        "iommu_attach 0000:03:00.0 as 0000:03:00.0, domain 7",
        "stop_guest 0000:03:00.0, domain 7",
    ];
    assert_eq!(text, expected);
    assert_eq!(machine.take_journal()[4].requester, Some(PHANTOM));
    assert!(machine.journal().is_empty());
}

#[test]
fn the_nth_call_from_now_meets_its_fault() {
    let machine = machine();
    machine.count(true);
    call(&machine, Hook::Facts);
    machine.fail_call(1, Fault::Error(OUTAGE));
    assert_eq!(machine.iommu_attach(NIC, NIC, GUEST), Ok(()));
    assert_eq!(machine.iommu_block(NIC, NIC), Err(OUTAGE));
    assert_eq!(machine.entry(NIC), Entry::Attached(GUEST), "and has done nothing");
    assert_eq!(machine.iommu_block(NIC, NIC), Ok(()));
    assert_eq!((machine.calls(), machine.injected(), machine.pending_faults()), (4, 1, 0));
}

#[test]
fn the_next_calls_of_a_hook_meet_their_faults_in_order() {
    let machine = machine();
    let second = HookError::new(Errno::ETIMEDOUT, "slow");
    machine.fail_next(Hook::IommuFlush, Fault::Error(OUTAGE));
    machine.fail_next(Hook::IommuFlush, Fault::Error(second));
    assert_eq!(machine.iommu_block(NIC, NIC), Ok(()));
    assert_eq!(machine.pending_faults(), 2);
    assert_eq!(machine.iommu_flush(NIC), Err(OUTAGE));
    assert_eq!(machine.iommu_flush(NIC), Err(second));
    assert_eq!(machine.iommu_flush(NIC), Ok(()));
}

#[test]
fn every_call_of_a_hook_meets_its_fault_until_they_are_cleared() {
    let machine = machine();
    machine.fail_every(Hook::Reset, Fault::Error(HookError::new(Errno::EPERM, "before")));
    machine.fail_every(Hook::Reset, Fault::Error(OUTAGE));
    for _ in 0..3 {
        assert_eq!(machine.reset(NIC, ResetScope::Bus, None), Err(OUTAGE));
        assert_eq!(machine.iommu_flush(NIC), Ok(()));
    }
    machine.clear_faults();
    assert_eq!(machine.reset(NIC, ResetScope::Bus, None), Ok(()));
    assert_eq!((machine.resets(NIC), machine.injected()), (1, 3));
}

#[test]
fn every_hook_can_fail() {
    for hook in Hook::ALL {
        let machine = machine();
        machine.watch_config(true);
        machine.fail_next(*hook, Fault::Error(OUTAGE));
        assert!(call(&machine, *hook), "{hook}");
        assert_eq!((machine.injected(), machine.pending_faults()), (1, 0), "{hook}");
    }
}

#[test]
fn every_hook_can_panic_and_the_machine_goes_on() {
    for hook in Hook::ALL {
        let machine = machine();
        machine.watch_config(true);
        machine.fail_next(*hook, Fault::Panic);
        let outcome = catch_unwind(AssertUnwindSafe(|| call(&machine, *hook)));
        assert!(outcome.is_err(), "{hook}");
        assert_eq!(machine.entries(), [], "{hook} had an effect");
        Hook::ALL.iter().for_each(|hook| drop(call(&machine, *hook)));
    }
}

#[test]
fn a_failed_hook_that_keeps_a_record_has_not_kept_one() {
    let machine = machine();
    machine.fail_every(Hook::AskUnplug, Fault::Error(OUTAGE));
    assert_eq!(machine.ask_unplug(NIC, ID), Err(OUTAGE));
    assert!(machine.asked_unplug().is_empty());
    machine.fail_every(Hook::StopGuest, Fault::Error(OUTAGE));
    machine.stop_guest(ID, NIC, OUTAGE);
    assert_eq!(machine.stopped().len(), 1, "a guest is stopped all the same");
}

#[test]
fn the_same_seed_fails_the_same_calls_at_about_the_rate_asked_for() {
    let failures = |seed, permille| {
        let machine = machine();
        machine.fault_rate(seed, permille);
        (0..10_000).map(|_| machine.iommu_flush(NIC).is_err()).collect::<Vec<_>>()
    };
    let count = |calls: &[bool]| calls.iter().filter(|failed| **failed).count();
    let first = failures(1, 50);
    assert_eq!(first, failures(1, 50));
    assert_ne!(first, failures(2, 50));
    assert!((400..600).contains(&count(&first)), "{}", count(&first));
    assert_eq!(count(&failures(1, 0)), 0);
    assert_eq!(count(&failures(1, 1000)), 10_000);
}

#[test]
fn a_hook_hangs_until_it_is_released_and_nobody_else_does() {
    let machine = machine();
    machine.fail_next(Hook::IommuBlock, Fault::Hang);
    std::thread::scope(|scope| {
        let hangs = scope.spawn(|| machine.iommu_block(NIC, NIC));
        machine.wait_for_hangs(1);
        assert_eq!((machine.hanging(), machine.entry(NIC)), (1, Entry::Absent));
        assert_eq!(machine.iommu_block(ALIAS, ALIAS), Ok(()));
        assert!(!hangs.is_finished());
        machine.release_hangs();
        assert_eq!(hangs.join().unwrap(), Ok(()));
    });
    assert_eq!((machine.hanging(), machine.entry(NIC)), (0, Entry::Blocked));
}
