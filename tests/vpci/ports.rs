//! Emulated ports: what is behind one is where the guest's numbers say.

use pcidevs::address::Bus;
use pcidevs::device::PortType;
use pcidevs::platform::Width::{Byte, Dword};
use pcidevs::vpci::Endpoint;

use crate::guest::{ECAM, Guest, Memory, load, nic};

#[test]
fn a_device_behind_a_port_is_found_at_the_numbers_that_the_guest_programs() {
    let guest = Guest::new();
    let port = Endpoint::port(0x1b36, 0x000c, PortType::RootPort);
    let port = guest.plug("00:02.0", port.build(Memory::new(0)).unwrap());
    guest.bus.add_port(port, Bus::new(0x7f)).unwrap();
    guest.plug("7f:00.0", nic().build(Memory::new(0x4000)).unwrap());
    let mut vcpu = guest.bus.vcpu();
    let mut ids = |bus: u64| load(&mut vcpu, ECAM + (bus << 20), 4).unwrap();

    assert_eq!(guest.read(port, 0x0e, Byte), 1, "a type 1 header");
    assert_eq!([0x7f, 1].map(&mut ids), [0xffff_ffff; 2], "no number yet");
    guest.write(port, 0x18, Dword, 0x0005_0300);
    assert_eq!([3, 1, 4, 0x7f].map(&mut ids), [0x1041_1af4, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff]);
    // The guest moves it, byte by byte.
    guest.write(port, 0x1a, Byte, 9);
    guest.write(port, 0x19, Byte, 7);
    assert_eq!([3, 7].map(&mut ids), [0xffff_ffff, 0x1041_1af4]);
    // By the ports as well.
    assert!(vcpu.io_write(0xcf8, &0x8007_0000_u32.to_le_bytes()).wait());
    let mut data = [0; 4];
    assert!(vcpu.io_read(0xcfc, &mut data));
    assert_eq!(u32::from_le_bytes(data), 0x1041_1af4);
    assert_eq!(guest.read(port, 0x18, Dword), 0x0009_0700);
}
