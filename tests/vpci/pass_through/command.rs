//! Decoding, the command register, interrupts and the ROM: what reaches the hardware, and when.

use pcidevs::platform::Width::{Dword, Word};
use pcidevs::vpci::{PassThrough, Viewer};

use super::{INTX_DISABLE, IO, MASTER, MEMORY, guest_function, hardware, nic, plugged};
use crate::hardware::{BAR0, COMMAND};

#[test]
fn hardware_decodes_once_the_bars_are_mapped_and_not_when_they_could_not_be() {
    let hardware = hardware(&nic());
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.wiring.fail("map");
    guest.write(at, COMMAND, Word, MEMORY | MASTER);
    assert_eq!(guest.read(at, COMMAND, Word), MASTER);
    assert!(hardware.story().iter().all(|line| line == "write 2 at 0x4 = 0x4"), "never decoded");
    guest.wiring.fail(None);
    guest.wiring.story();
    guest.write(at, COMMAND, Word, MEMORY | MASTER);
    let mapped = guest.wiring.story();
    assert_eq!(mapped, ["map 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x2000"]);
    assert_eq!(hardware.story().last().unwrap(), "write 2 at 0x4 = 0x6");
    guest.write(at, COMMAND, Word, 0);
    assert_eq!(hardware.story().last().unwrap(), "write 2 at 0x4 = 0x0");
    assert_eq!(hardware.peek(BAR0, Dword), 0xfe00_000c, "a guest's addresses are not the hardware's");
}

#[test]
fn a_guests_parity_serr_and_fast_back_to_back_are_dropped_and_the_platforms_stay() {
    let hardware = hardware(&nic().with16(COMMAND.into(), 0x0147));
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    assert_eq!(hardware.peek(COMMAND, Word), 0x0140, "a guest begins with everything off");
    assert_eq!(guest.read(at, COMMAND, Word), 0);
    guest.write(at, COMMAND, Word, 0x0340 | MASTER);
    assert_eq!(guest.read(at, COMMAND, Word), MASTER);
    assert_eq!(hardware.peek(COMMAND, Word), 0x0140 | MASTER);
    assert_eq!(guest.wiring.story(), ["bus master On"]);
}

#[test]
fn io_decoding_is_kept_only_where_the_platform_maps_io_bars() {
    let hardware = hardware(&nic());
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    guest.write(at, 0x18, Dword, 0x2000);
    guest.write(at, COMMAND, Word, IO);
    assert_eq!(guest.read(at, COMMAND, Word), IO);
    assert_eq!(hardware.peek(COMMAND, Word), IO);
    assert_eq!(guest.wiring.story(), ["map 0000:80:03.0.2 +0x0 at 0x2000 for 0x20"]);

    let function = PassThrough::new(Viewer::Guest).without_io().build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    guest.write(at, COMMAND, Word, IO);
    assert_eq!((guest.read(at, COMMAND, Word), hardware.peek(COMMAND, Word)), (0, 0));
    assert_eq!(guest.read(at, 0x18, Dword), 0, "a BAR that cannot be decoded is none");
    assert!(guest.wiring.story().is_empty());
}

#[test]
fn after_a_reset_hardware_is_off_whatever_was_put_back() {
    let config = nic().with16(COMMAND.into(), 0x0140);
    let hardware = hardware(&config).writable(0x98, Word, u32::MAX);
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.write(at, COMMAND, Word, MEMORY | MASTER);
    assert_eq!(hardware.peek(COMMAND, Word), 0x0140 | MEMORY | MASTER);
    guest.write(at, 0x98, Word, 0x8000);
    assert_eq!((guest.read(at, COMMAND, Word), guest.read(at, BAR0, Dword)), (0, 0xc));
    assert_eq!(hardware.peek(COMMAND, Word), 0x0140);
}

#[test]
fn a_saved_state_does_not_get_a_guest_more_of_the_command_register_than_it_has() {
    let build = || PassThrough::new(Viewer::Guest).without_io().build(hardware(&nic())).unwrap();
    let mut function = build();
    let off = function.save().unwrap();
    assert!(!function.config_write(COMMAND, Word, MASTER | INTX_DISABLE).is_nothing());
    let mut on = function.save().unwrap();
    let changed: Vec<usize> = (0..on.len()).filter(|at| on[*at] != off[*at]).collect();
    assert_eq!(changed.len(), 2, "the two bytes of the register");
    for at in changed {
        on[at] = 0xff;
    }
    let mut function = build();
    assert!(!function.restore(&on).unwrap().is_nothing());
    // Neither I/O nor parity, SERR, fast back-to-back; memory is not mapped yet.
    assert_eq!(function.config_read(COMMAND, Word), 0x043c);
}
