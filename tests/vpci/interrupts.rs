//! MSI, MSI-X and the pin: what the outside is told, and when.

use pcidevs::Sbdf;
use pcidevs::platform::Width::{Dword, Word};
use pcidevs::vpci::{Endpoint, Level};

use crate::guest::{Guest, Memory, load, nic};

const COMMAND: u16 = 4;
const STATUS: u16 = 6;
const BAR0: u16 = 0x10;
const BAR: u64 = 0xc000_0000;
const TABLE: u64 = BAR + 0x2000;
const PENDING: u64 = BAR + 0x3000;
/// The first capability, and in it the control word.
const CONTROL: u16 = 0x42;
const MSIX_ENABLE: u32 = 1 << 15;
const MSIX_MASK: u32 = 1 << 14;

/// A guest with a network card whose BAR is mapped; what has happened until then is forgotten.
fn with_nic() -> (Guest, Sbdf) {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", nic().build(Memory::new(0x4000)).unwrap());
    guest.write(at, BAR0, Dword, u32::try_from(BAR).unwrap());
    guest.write(at, COMMAND, Word, 6);
    guest.wiring.story();
    (guest, at)
}

fn store(guest: &Guest, address: u64, data: &[u8]) {
    assert!(guest.bus.vcpu().mmio_write(address, data).wait(), "{address:#x} is PCI's");
}

/// Programs a vector and unmasks it.
fn program(guest: &Guest, vector: u64, address: u32, data: u32) {
    for (at, value) in [(0, address), (4, 0), (8, data), (12, 0)] {
        store(guest, TABLE + vector * 16 + at, &value.to_le_bytes());
    }
}

fn raise(guest: &Guest, vector: u8) {
    store(guest, BAR, &[vector]);
}

#[test]
fn a_vector_is_routed_once_it_is_enabled_and_unmasked_and_then_sent() {
    let (guest, at) = with_nic();
    program(&guest, 1, 0xfee0_0000, 0x41);
    assert!(guest.wiring.story().is_empty(), "MSI-X is off");
    guest.write(at, CONTROL, Word, MSIX_ENABLE);
    assert_eq!(guest.wiring.story(), ["route 1 to 0xfee00000 0x41"]);
    raise(&guest, 1);
    assert_eq!(guest.wiring.story(), ["send 1 0xfee00000 0x41"]);
    guest.write(at, CONTROL, Word, 0);
    assert_eq!(guest.wiring.story(), ["unroute 1"]);
}

#[test]
fn a_masked_vector_is_pending_and_sent_when_it_is_unmasked() {
    let (guest, at) = with_nic();
    program(&guest, 2, 0xfee0_0000, 0x42);
    guest.write(at, CONTROL, Word, MSIX_ENABLE | MSIX_MASK);
    raise(&guest, 2);
    let mut vcpu = guest.bus.vcpu();
    assert_eq!(load(&mut vcpu, PENDING, 8), Some(1 << 2));
    assert!(guest.wiring.story().is_empty());
    guest.write(at, CONTROL, Word, MSIX_ENABLE);
    assert_eq!(guest.wiring.story(), ["route 2 to 0xfee00000 0x42", "send 2 0xfee00000 0x42"]);
    assert_eq!(load(&mut vcpu, PENDING, 8), Some(0));
    // A mask of its own.
    store(&guest, TABLE + 2 * 16 + 12, &[1, 0, 0, 0]);
    raise(&guest, 2);
    assert_eq!(guest.wiring.story(), ["unroute 2"]);
    assert_eq!(load(&mut vcpu, PENDING, 4), Some(1 << 2));
}

#[test]
fn table_and_pending_bits_take_4_and_8_bytes_and_pending_bits_no_writes() {
    let (guest, _) = with_nic();
    let mut vcpu = guest.bus.vcpu();
    store(&guest, TABLE, &0x1122_3344_fee0_1000_u64.to_le_bytes());
    assert_eq!(load(&mut vcpu, TABLE, 8), Some(0x1122_3344_fee0_1000));
    for length in [1, 2] {
        assert_eq!(load(&mut vcpu, TABLE, length), Some(u64::MAX >> (64 - 8 * length)), "reads ones");
        store(&guest, TABLE, &[0; 2][..length]);
    }
    assert_eq!(load(&mut vcpu, TABLE, 4), Some(0xfee0_1000), "and writes nothing");
    store(&guest, PENDING, &[0xff; 8]);
    assert_eq!(load(&mut vcpu, PENDING, 8), Some(0));
    assert_eq!(load(&mut vcpu, TABLE + 2, 4), Some(0xffff_ffff), "not aligned");
    assert_eq!(load(&mut vcpu, TABLE + 48, 4), Some(0), "beyond the table is the device's own");
}

#[test]
fn a_route_that_fails_is_tried_again_when_the_vector_changes() {
    let (guest, at) = with_nic();
    program(&guest, 0, 0xfee0_0000, 1);
    guest.wiring.fail("route");
    guest.write(at, CONTROL, Word, MSIX_ENABLE);
    assert_eq!(guest.wiring.story(), ["route 0 to 0xfee00000 0x1", "failed 0000:80:03.0: told to fail"]);
    guest.wiring.fail(None);
    store(&guest, TABLE + 8, &2_u32.to_le_bytes());
    assert_eq!(guest.wiring.story(), ["route 0 to 0xfee00000 0x2"]);
}

#[test]
fn msi_sends_its_vectors_with_low_bits_of_their_own_and_no_more_than_there_are() {
    let guest = Guest::new();
    let device = Endpoint::new(1, 2).bar(0, pcidevs::vpci::Bar::memory32(0x1000)).msi(4);
    let at = guest.plug("00:03.0", device.build(Memory::new(0x1000)).unwrap());
    guest.write(at, 0x44, Dword, 0xfee0_0000);
    guest.write(at, 0x4c, Word, 0x4143);
    // Eight vectors are asked for; it has four.
    guest.write(at, CONTROL, Word, 1 | 3 << 4);
    assert_eq!(guest.read(at, CONTROL, Word) >> 4 & 7, 2);
    let routes = [0x4140, 0x4141, 0x4142, 0x4143].iter().enumerate();
    let routes: Vec<String> =
        routes.map(|(vector, data)| format!("route {vector} to 0xfee00000 {data:#x}")).collect();
    assert_eq!(guest.wiring.story(), routes);
    guest.write(at, 0x50, Dword, 1 << 2);
    assert_eq!(guest.wiring.story(), ["unroute 2"]);
    assert!(guest.bus.bar_write(at, 0, 0, &[2]).wait());
    assert_eq!(guest.read(at, 0x54, Dword), 1 << 2);
    assert!(guest.bus.bar_write(at, 0, 0, &[4]).wait(), "there is no such vector");
    assert!(guest.wiring.story().is_empty());
    guest.write(at, 0x50, Dword, 0);
    assert_eq!(guest.wiring.story(), ["route 2 to 0xfee00000 0x4142", "send 2 0xfee00000 0x4142"]);
}

#[test]
fn the_pin_is_used_as_long_as_messages_are_not_and_shows_in_status() {
    let (guest, at) = with_nic();
    store(&guest, BAR + 1, &[1]);
    assert_eq!(guest.wiring.story(), ["intx High"]);
    assert_eq!(guest.read(at, STATUS, Word) & 8, 8);
    guest.write(at, COMMAND, Word, 6 | 1 << 10);
    assert_eq!(guest.wiring.story(), ["intx Low"], "switched off by the guest");
    guest.write(at, COMMAND, Word, 6);
    guest.write(at, CONTROL, Word, MSIX_ENABLE);
    assert_eq!(guest.wiring.story(), ["intx High", "intx Low"], "messages in its place");
    guest.write(at, CONTROL, Word, 0);
    store(&guest, BAR + 1, &[0]);
    assert_eq!(guest.wiring.story(), ["intx High", "intx Low"]);
    // From outside, without an access.
    assert!(guest.bus.signal(at, |signals| signals.set_intx(Level::High)).wait());
    assert_eq!(guest.wiring.story(), ["intx High"]);
}

#[test]
fn wishes_are_told_once() {
    let (guest, _) = with_nic();
    store(&guest, BAR + 2, &[5]);
    store(&guest, BAR + 2, &[64]);
    assert_eq!(guest.wiring.story(), ["wishes 0x20"]);
}
