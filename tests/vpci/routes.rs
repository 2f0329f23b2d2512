//! A vCPU remembers where addresses lead; what it remembers is never older than the map.

use pcidevs::address::Segment;
use pcidevs::platform::Width::{Dword, Word};
use pcidevs::vpci::{Bar, Endpoint};
use pcidevs::{Member, Owner, Sbdf};

use crate::guest::{ECAM, Guest, Memory, load};

const COMMAND: u16 = 4;
const MEMORY: u32 = 2;
const BAR0: u16 = 0x10;
/// More BARs than a vCPU remembers: six for each of these devices.
const DEVICES: u64 = 30;
const BARS: u64 = 6;
const PAGE: u64 = 0x1000;

fn base(device: u64, bar: u64, moved: u64) -> u64 {
    // Moved, every device is where its neighbour was.
    0xc000_0000 + ((device + moved) % DEVICES * BARS + bar) * PAGE
}

/// A guest with devices whose memory holds their own number.
fn guest() -> Guest {
    let guest = Guest::new();
    for device in 0..DEVICES {
        let endpoint =
            (0..6).fold(Endpoint::new(0x1af4, 1), |endpoint, bar| endpoint.bar(bar, Bar::memory32(0x1000)));
        let memory = Memory(vec![u8::try_from(device).unwrap(); 0x1000]);
        guest.plug(&format!("00:{device:02x}.0"), endpoint.build(memory).unwrap());
    }
    guest
}

fn place_all(guest: &Guest, moved: u64) {
    let at = |device: u64| format!("00:{device:02x}.0").parse().unwrap();
    for device in 0..DEVICES {
        guest.write(at(device), COMMAND, Word, 0);
    }
    for device in 0..DEVICES {
        for bar in 0..6_u16 {
            let base = u32::try_from(base(device, bar.into(), moved)).unwrap();
            guest.write(at(device), BAR0 + 4 * bar, Dword, base);
        }
        guest.write(at(device), COMMAND, Word, MEMORY);
    }
}

#[test]
fn a_vcpu_finds_every_bar_where_it_is_now() {
    let guest = guest();
    let mut vcpu = guest.bus.vcpu();
    for moved in 0..3 {
        place_all(&guest, moved);
        // The second time round from memory, as far as it reaches.
        for _ in 0..2 {
            for device in 0..DEVICES {
                for bar in 0..BARS {
                    for offset in [0, PAGE - 1] {
                        assert_eq!(load(&mut vcpu, base(device, bar, moved) + offset, 1), Some(device));
                    }
                }
            }
        }
    }
    assert_eq!(load(&mut vcpu, base(DEVICES - 1, BARS, 0), 1), None);
}

#[test]
fn what_was_remembered_and_is_unmapped_is_nowhere() {
    let guest = guest();
    let mut vcpu = guest.bus.vcpu();
    place_all(&guest, 0);
    assert_eq!(load(&mut vcpu, base(7, 2, 0), 1), Some(7));
    guest.write("00:07.0".parse().unwrap(), COMMAND, Word, 0);
    assert_eq!(load(&mut vcpu, base(7, 2, 0), 1), None);
    assert_eq!(load(&mut vcpu, base(8, 2, 0), 1), Some(8));
}

#[test]
fn every_width_reads_the_same_bytes() {
    let guest = guest();
    let mut vcpu = guest.bus.vcpu();
    place_all(&guest, 0);
    for (length, all) in [(1, 0x05), (2, 0x0505), (4, 0x0505_0505), (8, 0x0505_0505_0505_0505)] {
        assert_eq!(load(&mut vcpu, base(5, 0, 0) + 8, length), Some(all));
        // Across the end, and not aligned: ones.
        let ones = u64::MAX >> (64 - 8 * length);
        if length > 1 {
            assert_eq!(load(&mut vcpu, base(5, 0, 0) + 9, length), Some(ones));
        }
    }
}

#[test]
fn what_was_remembered_of_a_device_that_is_lost_is_not_believed() {
    let guest = Guest::new();
    let device = |id: u16| Endpoint::new(0x1af4, id).build(Memory::new(0)).unwrap();
    let seen = guest.plug("00:04.0", device(1));
    let own = "80:04.0".parse().unwrap();
    let mut vcpu = guest.bus.vcpu();
    let mut id = || load(&mut vcpu, ECAM + (4 << 15), 4);
    assert_eq!(id(), Some(0x0001_1af4));

    // Another device takes its place, from another address.
    guest.registry.move_devices(&[Member::new(own)], Owner::Host).unwrap();
    assert_eq!(id(), Some(0xffff_ffff));
    let other = "90:00.0".parse().unwrap();
    guest.registry.add(other, Some(device(2))).unwrap();
    guest.registry.move_devices(&[Member::at(other, seen)], Owner::Guest(guest.domain.id())).unwrap();
    assert_eq!(id(), Some(0x0002_1af4));

    // It is pulled, and one like it comes to the same address, and so to another slot while a handle keeps the first.
    let handle = guest.registry.get(other).unwrap();
    guest.registry.report_gone(other).unwrap();
    assert_eq!(id(), Some(0xffff_ffff));
    assert!(guest.domain.acknowledge_gone(seen).unwrap());
    guest.registry.add(other, Some(device(3))).unwrap();
    guest.registry.move_devices(&[Member::at(other, seen)], Owner::Guest(guest.domain.id())).unwrap();
    assert_eq!(id(), Some(0x0003_1af4));
    drop(handle);
}

#[test]
fn more_functions_than_a_vcpu_remembers_are_all_found() {
    let guest = Guest::new();
    let places: Vec<u16> = (0..=0xffff_u16).step_by(8 * 31).collect();
    for (number, bdf) in (0..).zip(&places) {
        let at = Sbdf::from_bdf(Segment::new(0), *bdf);
        // As `Guest::plug`, but not all of these fit on its bus.
        let own = Sbdf::from_bdf(Segment::new(1), *bdf);
        let function = Endpoint::new(0x1af4, number).build(Memory::new(0)).unwrap();
        guest.registry.add(own, Some(function)).unwrap();
        guest.registry.move_devices(&[Member::at(own, at)], Owner::Guest(guest.domain.id())).unwrap();
    }
    let mut vcpu = guest.bus.vcpu();
    for _ in 0..3 {
        for (number, bdf) in (0..).zip(&places) {
            assert_eq!(load(&mut vcpu, ECAM + (u64::from(*bdf) << 12), 4), Some(number << 16 | 0x1af4));
        }
    }
}

#[test]
fn a_first_device_with_six_bars_is_found_and_so_are_fewer_and_more() {
    let guest = guest();
    let mut vcpu = guest.bus.vcpu();
    let at = |device: u64| format!("00:{device:02x}.0").parse().unwrap();
    for count in [1, 2, 7, DEVICES, 5, 2, 1] {
        for device in 0..DEVICES {
            guest.write(at(device), COMMAND, Word, 0);
            for bar in 0..6_u16 {
                let base = u32::try_from(base(device, bar.into(), 0)).unwrap();
                guest.write(at(device), BAR0 + 4 * bar, Dword, base);
            }
        }
        (0..count).for_each(|device| guest.write(at(device), COMMAND, Word, MEMORY));
        for device in 0..DEVICES {
            for bar in 0..BARS {
                let expected = (device < count).then_some(device);
                assert_eq!(load(&mut vcpu, base(device, bar, 0), 1), expected, "{count} devices");
            }
        }
    }
}
