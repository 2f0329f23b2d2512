//! The host: what is between the registers is its hardware.

use pcidevs::platform::Width::{Dword, Word};
use pcidevs::vpci::{Bar, BarFault, PassThrough, PassThroughError, Viewer, VirtualFunction};

use super::{MASTER, MEMORY, hardware, nic, plugged};
use crate::hardware::{BAR0, COMMAND, Hardware};
use crate::recordings::Config;
use crate::walk::Walker;

#[test]
fn the_host_maps_a_virtual_function_where_its_physical_one_says() {
    let hardware = Hardware::new(&Config::virtual_function(256)).writable(COMMAND, Word, MASTER);
    let described = VirtualFunction::new(0x1234, 0x9abc).bar(0, Bar::memory32(0x1000).direct(), 0xca00_0000);
    let function =
        PassThrough::new(Viewer::Host).virtual_function(described).build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    assert_eq!(guest.read(at, 0, Dword), u32::MAX, "as hardware has it");
    guest.write(at, COMMAND, Word, MEMORY);
    assert_eq!(guest.read(at, COMMAND, Word), MEMORY);
    assert_eq!(guest.wiring.story(), ["map 0000:80:03.0.0 +0x0 at 0xca000000 for 0x1000"]);
    assert_eq!(guest.read(at, BAR0, Dword), 0);
    let io = described.bar(1, Bar::io(16), 0);
    let error = PassThrough::new(Viewer::Host).virtual_function(io).build(hardware).unwrap_err();
    assert_eq!(error, PassThroughError::Bar { bar: 1, fault: BarFault::VirtualIo });
}

#[test]
fn what_is_between_is_the_hosts_hardware() {
    let hardware = hardware(&nic().extended(0x100, 0x01, 2, 0)).writable(0x108, Dword, u32::MAX);
    let function = PassThrough::new(Viewer::Host).build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    guest.write(at, 0x108, Dword, 0x1234_5678);
    guest.write(at, 0x44, Dword, 0x8000_0000);
    assert_eq!(hardware.story(), ["write 4 at 0x108 = 0x12345678", "write 4 at 0x44 = 0x80000000"]);
    assert_eq!(guest.read(at, 0x108, Dword), 0x1234_5678);
    assert_eq!(Walker::new(&guest).capabilities(at).len(), 7, "all of them");
    assert_eq!(Walker::new(&guest).extended_capabilities(at), [(0x100, 1)]);
}

#[test]
fn the_hosts_decoding_is_as_firmware_left_it_and_mapped_from_the_beginning() {
    let config = nic().with32(BAR0.into(), 0xc000_000c).with16(COMMAND.into(), 0x0106);
    let hardware = hardware(&config);
    let function = PassThrough::new(Viewer::Host).build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    assert!(guest.bus.start(at).wait());
    assert_eq!(guest.wiring.story(), ["map 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x2000"]);
    assert_eq!(guest.read(at, COMMAND, Word), 0x0106);
    assert_eq!(hardware.peek(COMMAND, Word), 0x0106);
    guest.write(at, BAR0, Dword, 0xc100_0000);
    assert_eq!(hardware.peek(BAR0, Dword), 0xc000_000c, "ignored while mapped");
    guest.write(at, COMMAND, Word, 0x0100);
    assert_eq!(hardware.peek(COMMAND, Word), 0x0100, "the host's own error reporting");
    guest.write(at, BAR0, Dword, 0xc100_0000);
    assert_eq!(hardware.peek(BAR0, Dword), 0xc100_000c);
    guest.write(at, COMMAND, Word, 0x0102);
    let story = [
        "unmap 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x2000",
        "map 0000:80:03.0.0 +0x0 at 0xc1000000 for 0x2000",
    ];
    assert_eq!(
        guest.wiring.story().iter().filter(|line| line.contains("map")).collect::<Vec<_>>(),
        story.iter().collect::<Vec<_>>()
    );
}

#[test]
fn who_does_not_start_a_function_of_the_hosts_has_it_mapped_with_the_first_effect() {
    let config = nic().with32(BAR0.into(), 0xc000_000c).with16(COMMAND.into(), 0x0002);
    let hardware = hardware(&config);
    let function = PassThrough::new(Viewer::Host).build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    guest.write(at, COMMAND, Word, MEMORY | MASTER);
    assert_eq!(guest.wiring.story(), ["map 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x2000", "bus master On"]);
}

#[test]
fn what_is_hidden_the_host_may_only_look_at() {
    let config = nic().with16(COMMAND.into(), 0x0006);
    let hardware = hardware(&config);
    let function = PassThrough::new(Viewer::Host).read_only().build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    for (offset, bytes) in (0_u16..).step_by(4).zip(config.0.chunks(4)) {
        let expected = u32::from_le_bytes(bytes.try_into().unwrap());
        assert_eq!(guest.read(at, offset, Dword), expected, "{offset:#x}");
        guest.write(at, offset, Dword, !expected);
    }
    assert_eq!((hardware.story(), guest.wiring.story()), (vec![], vec![]), "not even to find sizes out");
    let refused = PassThrough::new(Viewer::Guest).read_only().build(hardware).unwrap_err();
    assert_eq!(refused, PassThroughError::ReadOnlyGuest);
}
