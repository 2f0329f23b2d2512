//! The simulated machine keeps what its documentation promises: tests of transitions rest on it.

use pcidevs::address::Bus;
use pcidevs::device::{
    BridgeKind, BusRange, Capabilities, ConfigSpace, Express, ExtendedCapabilities, Header, PortType, SrIov,
    Stride,
};
use pcidevs::platform::{
    Call, ConfigBytes, Dma, Entry, Fault, GroupId, Hook, HookError, Platform, Refusal, Request, ResetScope,
    ResetSupport, Rule, Simulated, Switch, VirtualFunctions, Width,
};
use pcidevs::{DomainId, Errno, Owner, Sbdf, Transition};

type Machine = Simulated<u32>;

const GUEST: Owner = Owner::Guest(DomainId::new(7));
const NIC: Sbdf = Sbdf::from_u32(0x0300);
const PHANTOM: Sbdf = Sbdf::from_u32(0x0304);
const ALIAS: Sbdf = Sbdf::from_u32(0x0500);
const OUTAGE: HookError = HookError::new(Errno::EIO, "outage");

/// A machine with one function that masters the bus.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.plug(NIC, ConfigBytes::endpoint(0x8086, 0x10fb).express().flr().msi().msix(4).ats());
    machine.config_write(NIC, 4, Width::Word, 6);
    machine
}

#[test]
fn an_absent_function_reads_all_ones() {
    let machine = machine();
    assert_eq!(machine.config_read(ALIAS, 0, Width::Dword), u32::MAX);
    assert_eq!(machine.config_read(ALIAS, 0, Width::Word), 0xffff);
    assert_eq!(machine.config_read(ALIAS, 0, Width::Byte), 0xff);
    machine.unplug(NIC);
    assert_eq!(machine.config_read(NIC, 0, Width::Dword), u32::MAX);
    assert_eq!(machine.config(NIC), None);
}

#[test]
fn an_unflushed_entry_stays_in_use() {
    let machine = machine();
    machine.iommu_attach(NIC, NIC, GUEST).unwrap();
    assert_eq!(machine.dma(NIC), Dma::Reaches(GUEST));
    machine.iommu_block(NIC, NIC).unwrap();
    assert_eq!((machine.entry(NIC), machine.dma(NIC)), (Entry::Blocked, Dma::Reaches(GUEST)));
    machine.iommu_flush(NIC).unwrap();
    assert_eq!(machine.dma(NIC), Dma::Blocked);
}

#[test]
fn every_call_can_be_made_to_fail_and_then_has_done_nothing() {
    let machine = machine();
    machine.fail_call(1, Fault::Error(OUTAGE));
    machine.iommu_attach(NIC, NIC, GUEST).unwrap();
    assert_eq!(machine.iommu_block(NIC, NIC), Err(OUTAGE));
    assert_eq!(machine.entry(NIC), Entry::Attached(GUEST));
    assert_eq!((machine.calls(), machine.injected(), machine.pending_faults()), (2, 1, 0));
}
