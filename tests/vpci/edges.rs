//! The edges: the top of the address space, the largest BARs, ports beyond 64 KiB, windows of several segments.

use std::sync::mpsc;
use std::thread;

use pcidevs::address::{Bus as BusNumber, Segment};
use pcidevs::platform::Width::{Byte, Dword, Word};
use pcidevs::vpci::{
    AddressRange, Backing, Bar, BarMap, Bus, Ecam, Endpoint, ExtendedRegisters, Layout, MsixPlace, Signals,
};
use pcidevs::{Member, Owner, Sbdf};

use crate::guest::{Guest, GuestBus, Memory, load, nic};
use crate::walk::{SizedBar, Walker};

const COMMAND: u16 = 4;
const BAR0: u16 = 0x10;
const MEMORY: u32 = 2;
const IO: u32 = 1;

/// Reads as the upper bytes of the offset.
struct Huge;

impl Backing for Huge {
    fn bar_read(&mut self, _: u8, offset: u64, data: &mut [u8]) {
        data.fill(offset.to_le_bytes()[7]);
    }

    fn bar_write(&mut self, _: u8, _: u64, _: &[u8], _: &mut Signals<'_>) {}
}

/// The guest's bus, where BARs may be anywhere and configuration space is where these windows are.
fn anywhere(guest: &Guest, ecam: &[Ecam]) -> GuestBus {
    let windows = [AddressRange::memory(0..=u64::MAX), AddressRange::io(0..=u64::MAX)];
    let bars = BarMap::new(&windows, &[]).unwrap();
    let layout = Layout { ecam, extended: ExtendedRegisters::Present, bars };
    Bus::new(guest.domain.clone(), guest.wiring.clone(), layout).unwrap()
}

#[test]
fn a_bar_of_half_of_everything_answers_up_to_the_last_byte() {
    let guest = Guest::new();
    let bus = anywhere(&guest, &[]);
    // The pending bits are at the highest offset that their register can say.
    let place = MsixPlace { table_bar: 0, table: 0xffff_7ff8, pending_bar: 0, pending: 0xffff_fff8 };
    let device = Endpoint::new(1, 2).bar(0, Bar::memory64(1 << 63).prefetchable().direct());
    let at = guest.plug("00:03.0", device.msix(2047, place).build(Huge).unwrap());
    for (offset, value) in [(BAR0, u32::MAX), (BAR0 + 4, u32::MAX), (COMMAND, MEMORY)] {
        assert!(bus.config_write(at, offset, Dword, value).wait());
    }
    assert_eq!(bus.config_read(at, BAR0, Dword), 0xc);
    assert_eq!(bus.config_read(at, BAR0 + 4, Dword), 0x8000_0000);
    let mapped = [
        "map 0000:80:03.0.0 +0x0 at 0x8000000000000000 for 0xffff7000",
        "map 0000:80:03.0.0 +0x100001000 at 0x8000000100001000 for 0x7ffffffefffff000",
    ];
    assert_eq!(guest.wiring.story(), mapped);
    let mut vcpu = bus.vcpu();
    assert_eq!(load(&mut vcpu, u64::MAX, 1), Some(0x7f));
    assert_eq!(load(&mut vcpu, u64::MAX - 7, 8), Some(0x7f7f_7f7f_7f7f_7f7f));
    assert_eq!(load(&mut vcpu, u64::MAX - 3, 8), Some(u64::MAX), "not aligned");
    assert_eq!(load(&mut vcpu, (1 << 63) + 0xffff_fff8, 8), Some(0), "pending bits");
    assert_eq!(load(&mut vcpu, (1 << 63) + 0x1_0000_00f8, 8), Some(0), "the device's own, on their page");
    assert_eq!(load(&mut vcpu, (1 << 63) - 1, 1), None);
    assert!(bus.config_write(at, COMMAND, Dword, 0).wait());
    assert_eq!(load(&mut vcpu, u64::MAX, 1), None);
}

#[test]
fn a_64_bit_bar_is_above_4_gib_where_the_guest_puts_it() {
    let guest = Guest::new();
    let bus = anywhere(&guest, &[]);
    let at = guest.plug("00:03.0", nic().build(Memory::new(0x4000)).unwrap());
    for (offset, value) in [(BAR0, 0xffff_ffff), (BAR0 + 4, 0x12), (COMMAND, MEMORY)] {
        assert!(bus.config_write(at, offset, Dword, value).wait());
    }
    assert_eq!(guest.wiring.story(), ["map 0000:80:03.0.0 +0x0 at 0x12ffffc000 for 0x2000"]);
    assert_eq!(load(&mut bus.vcpu(), 0x12_ffff_e00c, 4), Some(1));
}

#[test]
fn ports_beyond_64_kib_are_outside_the_windows_and_are_no_ports() {
    let device = || Endpoint::new(1, 2).bar(0, Bar::io(16)).build(Memory::new(16)).unwrap();
    let guest = Guest::new();
    let at = guest.plug("00:03.0", device());
    guest.write(at, BAR0, Dword, 0x0001_2000);
    guest.write(at, COMMAND, Word, IO);
    assert_eq!(guest.wiring.story(), ["refused 0000:80:03.0.0"]);
    assert!(!guest.bus.vcpu().io_read(0x2000, &mut [0]));
    // Where nobody refuses it, no port leads there either.
    let guest = Guest::new();
    let bus = anywhere(&guest, &[]);
    let at = guest.plug("00:03.0", device());
    for (base, port) in [(0x0001_2000, 0x2000), (0xffff_fff0, 0xfff0)] {
        assert!(bus.config_write(at, COMMAND, Word, 0).wait());
        assert!(bus.config_write(at, BAR0, Dword, base).wait());
        assert!(bus.config_write(at, COMMAND, Word, IO).wait());
        assert!(!bus.vcpu().io_read(port, &mut [0]), "{base:#x}");
    }
}

#[test]
fn a_bar_over_configuration_space_is_not_mapped_and_that_is_reported() {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", nic().build(Memory::new(0x4000)).unwrap());
    guest.write(at, BAR0, Dword, u32::try_from(crate::guest::ECAM).unwrap());
    guest.write(at, COMMAND, Byte, MEMORY);
    assert_eq!(guest.wiring.story(), ["refused 0000:80:03.0.0"]);
    assert_eq!(load(&mut guest.bus.vcpu(), crate::guest::ECAM + (3 << 15), 4), Some(0x1041_1af4));
}

#[test]
fn every_kind_of_bar_is_sized_by_writing_ones() {
    let guest = Guest::new();
    let device = Endpoint::new(1, 2)
        .bar(0, Bar::memory32(1 << 31))
        .bar(1, Bar::memory32(16).prefetchable())
        .bar(2, Bar::io(4))
        .bar(3, Bar::io(256))
        .bar(4, Bar::memory64(1 << 40).prefetchable())
        .rom(16 << 20);
    let at = guest.plug("00:03.0", device.build(Memory::new(0)).unwrap());
    let bars = [(0, 0, 1 << 31), (1, 8, 16), (2, 1, 4), (3, 1, 256), (4, 0xc, 1 << 40), (6, 0, 16 << 20)];
    let bars = bars.map(|(slot, flags, size)| SizedBar { slot, flags, size });
    assert_eq!(Walker::new(&guest).size_bars(at), bars);
}

#[test]
fn a_rom_answers_while_it_is_enabled_and_memory_is_decoded() {
    let guest = Guest::new();
    let device = Endpoint::new(1, 2).rom(0x800).power_management();
    let at = guest.plug("00:03.0", device.build(Memory(vec![0x55; 0x800])).unwrap());
    let answers = || load(&mut guest.bus.vcpu(), 0xc000_0000, 1) == Some(0x55);
    guest.write(at, 0x30, Dword, 0xc000_0000);
    guest.write(at, COMMAND, Word, MEMORY);
    assert!(!answers());
    guest.write(at, 0x30, Dword, 0xc000_0001);
    assert!(answers());
    guest.write(at, 0x30, Dword, 0xc100_0001);
    assert_eq!(guest.read(at, 0x30, Dword), 0xc000_0001, "ignored while mapped");
    guest.write(at, COMMAND, Word, 0);
    assert!(!answers());
    guest.write(at, COMMAND, Word, MEMORY);
    assert!(answers());
    // Power Management, the first capability.
    guest.write(at, 0x44, Word, 3);
    assert!(!answers());
    guest.write(at, 0x44, Word, 0);
    guest.write(at, 0x30, Byte, 0);
    assert!(!answers());
}

#[test]
fn a_multifunction_probe_finds_exactly_what_is_there() {
    let guest = Guest::new();
    let device = |number| Endpoint::new(0x1af4, number);
    guest.plug("00:03.0", device(1).multifunction().build(Memory::new(0)).unwrap());
    guest.plug("00:03.5", device(2).build(Memory::new(0)).unwrap());
    guest.plug("00:04.0", device(3).build(Memory::new(0)).unwrap());
    guest.plug("00:04.1", device(4).build(Memory::new(0)).unwrap());
    guest.plug("07:1f.0", device(5).build(Memory::new(0)).unwrap());
    let found = ["00:03.0", "00:03.5", "00:04.0", "07:1f.0"].map(|at| at.parse::<Sbdf>().unwrap());
    assert_eq!(Walker::new(&guest).probe(0..=255), found, "function 0 of 04 says that it is alone");
}

#[test]
fn each_window_shows_its_own_segment_and_buses() {
    let guest = Guest::new();
    let window = |segment, buses: std::ops::RangeInclusive<u8>, base| {
        let buses = BusNumber::new(*buses.start())..=BusNumber::new(*buses.end());
        Ecam::new(Segment::new(segment), buses, base).unwrap()
    };
    let (first, second) = (window(0, 0..=0, 0xb000_0000), window(5, 0x80..=0xff, 0xffff_ffff_f800_0000));
    let bus = anywhere(&guest, &[first, second]);
    for (number, at) in [(1, "0000:00:03.0"), (2, "0005:80:00.0"), (3, "0005:ff:1f.7"), (4, "0005:00:03.0")] {
        let at: Sbdf = at.parse().unwrap();
        let own = Sbdf::new(Segment::new(9), at.bus(), at.devfn());
        let own = if number == 1 { Sbdf::new(Segment::new(8), at.bus(), at.devfn()) } else { own };
        let function = Endpoint::new(number, 1).build(Memory::new(0)).unwrap();
        guest.registry.add(own, Some(function)).unwrap();
        guest.registry.move_devices(&[Member::at(own, at)], Owner::Guest(guest.domain.id())).unwrap();
    }
    let mut vcpu = bus.vcpu();
    let ids = [
        (0xb000_0000 + (3 << 15), Some(1)),
        (0xb000_0000 + (1 << 20), None),
        (second.base(), Some(2)),
        (u64::MAX - 0xfff, Some(3)),
    ];
    for (address, id) in ids {
        assert_eq!(load(&mut vcpu, address, 2), id, "{address:#x}");
    }
    assert_eq!(load(&mut vcpu, u64::MAX - 7, 8), Some(0), "its last bytes are configuration space, too");
}

#[test]
fn a_write_of_8_bytes_is_two_of_4_the_low_one_first() {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", Endpoint::new(1, 2).msi(1).build(Memory::new(0)).unwrap());
    let mut vcpu = guest.bus.vcpu();
    // Enabled by the first, with the address that the second changes.
    let both = 0xfee0_1000_0001_0000_u64;
    assert!(vcpu.mmio_write(crate::guest::ECAM + (3 << 15) + 0x40, &both.to_le_bytes()).wait());
    assert_eq!(guest.wiring.story(), ["route 0 to 0x0 0x0", "route 0 to 0xfee01000 0x0"]);
    assert_eq!(guest.read(at, 0x44, Dword), 0xfee0_1000);
    // Not aligned it is none.
    assert!(vcpu.mmio_write(crate::guest::ECAM + (3 << 15) + 0x44, &[0; 8]).wait());
    assert_eq!(guest.read(at, 0x44, Dword), 0xfee0_1000);
}

/// Stops in a read until it is told to go on.
struct Slow(mpsc::Sender<()>, mpsc::Receiver<()>);

impl Backing for Slow {
    fn bar_read(&mut self, _: u8, _: u64, _: &mut [u8]) {
        self.0.send(()).unwrap();
        self.1.recv().unwrap();
    }

    fn bar_write(&mut self, _: u8, _: u64, _: &[u8], _: &mut Signals<'_>) {}
}

#[test]
fn an_access_takes_the_lock_of_its_device_and_nothing_wider() {
    let guest = Guest::new();
    let (arrived, is_there) = mpsc::channel();
    let (go_on, go) = mpsc::channel();
    let device = Endpoint::new(1, 2).bar(0, Bar::memory32(0x1000));
    let slow = guest.plug("00:01.0", device.build(Slow(arrived, go)).unwrap());
    let other = guest.plug("00:02.0", nic().build(Memory::new(0x4000)).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| guest.bus.bar_read(slow, 0, 0, &mut [0]));
        is_there.recv().unwrap();
        guest.write(other, BAR0, Dword, 0xc000_0000);
        guest.write(other, COMMAND, Word, MEMORY);
        let mut vcpu = guest.bus.vcpu();
        assert_eq!(load(&mut vcpu, 0xc000_200c, 4), Some(1));
        assert!(vcpu.mmio_write(0xc000_0008, &[7]).wait());
        assert!(vcpu.io_write(0xcf8, &0x8000_1000_u32.to_le_bytes()).wait());
        let mut id = [0; 4];
        assert!(vcpu.io_read(0xcfc, &mut id));
        assert_eq!(u32::from_le_bytes(id), 0x1041_1af4);
        go_on.send(()).unwrap();
    });
}

#[test]
fn a_function_saved_in_d3hot_is_restored_there_and_mapped_with_d0() {
    let build = || {
        let device = Endpoint::new(1, 2).bar(0, Bar::memory32(0x1000).direct()).power_management();
        device.build(Memory::new(0x1000)).unwrap()
    };
    let old = Guest::new();
    let at = old.plug("00:03.0", build());
    for (offset, value) in [(BAR0, 0xc000_0000), (COMMAND, MEMORY), (0x44, 3)] {
        old.write(at, offset, Dword, value);
    }
    let own: Sbdf = "80:03.0".parse().unwrap();
    let state = old.registry.lock(own).unwrap().as_ref().unwrap().save().unwrap();
    let new = Guest::new();
    new.plug("00:03.0", build());
    assert!(new.bus.restore(at, &state).unwrap().wait());
    assert_eq!(new.wiring.story(), ["power D3hot"]);
    assert_eq!(new.read(at, 0x44, Word) & 3, 3);
    new.write(at, 0x44, Word, 0);
    assert_eq!(new.wiring.story(), ["power D0", "map 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x1000"]);
}
