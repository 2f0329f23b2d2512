//! Which capabilities a guest sees, what of them is the hardware's, and which are hidden.

use pcidevs::platform::Width::{Byte, Dword, Word};
use pcidevs::vpci::{PassThrough, Viewer};

use super::{INTX_DISABLE, MEMORY, guest_function, hardware, nic, plugged};
use crate::guest::load;
use crate::hardware::{BAR0, COMMAND, Hardware};
use crate::recordings::Config;
use crate::walk::Walker;

#[test]
fn a_guest_sees_only_capabilities_that_are_modelled_and_ones_between_them() {
    let hardware = hardware(&nic().extended(0x100, 0x01, 2, 0x140).extended(0x140, 0x10, 1, 0));
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    let mut walker = Walker::new(&guest);
    let shown = [(0x48, 0x11), (0x60, 0x05), (0x90, 0x10), (0xd0, 0x01), (0xe0, 0x09)];
    assert_eq!(walker.capabilities(at), shown);
    assert_eq!(walker.read::<4>(at, 0x40), u32::MAX, "VPD is hidden");
    assert_eq!(walker.read::<4>(at, 0x80), u32::MAX);
    assert_eq!(walker.extended_capabilities(at), [], "neither AER nor SR-IOV");
    assert_eq!(walker.read::<4>(at, 0x100), 0, "an empty list");
    assert!((0x104..0x1000).step_by(4).all(|offset| walker.read::<4>(at, offset) == u32::MAX));
    walker.write::<4>(at, 0x148, 1);
    walker.write::<4>(at, 0x44, 0x8000_0000);
    assert_eq!(hardware.story(), [""; 0], "nothing hidden is reached");
}

#[test]
fn intx_is_disabled_in_hardware_while_msi_or_msix_is_on_and_the_guest_does_not_see_it() {
    let hardware = hardware(&nic());
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    for (control, enable) in [(0x62, 1), (0x4a, 0x8000)] {
        guest.write(at, control, Word, enable);
        assert_eq!(hardware.peek(COMMAND, Word), INTX_DISABLE);
        assert_eq!(guest.read(at, COMMAND, Word), 0);
        guest.write(at, control, Word, 0);
        assert_eq!(hardware.peek(COMMAND, Word), 0);
    }
    assert_eq!(hardware.peek(0x62, Word), 0x0184, "MSI of the hardware is the platform's");
}

#[test]
fn what_was_left_on_of_msi_and_msix_is_off() {
    let config = nic().with16(0x62, 0x0185).with16(0x4a, 0x8003);
    for viewer in [Viewer::Guest, Viewer::Host] {
        let hardware = hardware(&config).writable(0x62, Word, 0x71).writable(0x4a, Word, 0xc000);
        let mut function = PassThrough::new(viewer).build(hardware.clone()).unwrap();
        assert_eq!((hardware.peek(0x62, Word), hardware.peek(0x4a, Word)), (0x0184, 3));
        assert_eq!((function.config_read(0x62, Word), function.config_read(0x4a, Word)), (0x0184, 3));
    }
}

#[test]
fn trapped_accesses_and_pending_bits_go_to_hardware_and_the_table_does_not() {
    let hardware = hardware(&nic());
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.write(at, COMMAND, Word, MEMORY);
    hardware.story();
    let mut vcpu = guest.bus.vcpu();
    assert_eq!(load(&mut vcpu, 0xc000_200c, 4), Some(1), "the table is the model's: masked");
    assert_eq!(hardware.story(), [""; 0]);
    assert_eq!(load(&mut vcpu, 0xc000_3000, 8), Some(0x5a5a_5a5a_5a5a_5a5a));
    assert_eq!(hardware.story(), ["read 4 of BAR 0 at 0x3000", "read 4 of BAR 0 at 0x3004"]);
    assert!(vcpu.mmio_write(0xc000_3000, &[1; 4]).wait());
    assert_eq!(hardware.story(), [""; 0], "writes of pending bits are dropped");
    // Beside the table, in its page.
    assert_eq!(load(&mut vcpu, 0xc000_2100, 2), Some(0x5a5a));
    assert!(vcpu.mmio_write(0xc000_2100, &[1]).wait());
    assert_eq!(hardware.story(), ["read 2 of BAR 0 at 0x2100", "write 1 of BAR 0 at 0x2100"]);
}

#[test]
fn a_trapped_function_has_no_bar_mapped_directly() {
    let hardware = hardware(&nic());
    let function = PassThrough::new(Viewer::Guest).trapped().build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    guest.write(at, BAR0, Dword, 0xc000_0000);
    guest.write(at, COMMAND, Word, MEMORY);
    assert_eq!(guest.wiring.story(), [""; 0]);
    assert_eq!(load(&mut guest.bus.vcpu(), 0xc000_0010, 1), Some(0x5a));
}

#[test]
fn the_pending_bits_of_msi_are_the_hardwares() {
    let hardware = hardware(&nic());
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    // 64-bit with masks: the last of its registers.
    hardware.poke(0x74, Dword, 0x3);
    assert_eq!(guest.read(at, 0x74, Dword), 3);
}

#[test]
fn a_vendor_specific_capability_is_passed_through_as_wide_as_it_is_accessed() {
    let hardware = hardware(&nic()).writable(0xe3, Byte, 0xff).writable(0xec, Dword, u32::MAX);
    hardware.poke(0xe4, Dword, 0x1122_3344);
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    assert_eq!(guest.read(at, 0xe4, Dword), 0x1122_3344);
    guest.write(at, 0xe5, Byte, 0x99);
    guest.write(at, 0xe3, Byte, 0x77);
    guest.write(at, 0xe2, Byte, 0xff);
    guest.write(at, 0xec, Dword, 0x0403_0201);
    let story = [
        "write 1 at 0xe5 = 0x99",
        "write 1 at 0xe3 = 0x77",
        "write 1 at 0xec = 0x1",
        "write 1 at 0xed = 0x2",
    ];
    assert_eq!(hardware.story(), story, "neither its length nor what is behind it");
    assert_eq!(guest.read(at, 0xe4, Dword), 0x1122_9944);
    assert_eq!(guest.read(at, 0xec, Dword), 0xffff_0201);
}

#[test]
fn flr_and_power_are_effects_of_a_guest() {
    let features = Config::endpoint(256).list(0x40).capability(0x40, 0x13, 0).with16(0x42, 0x0306);
    let af = Hardware::new(&features);
    let (guest, at) = plugged(guest_function(&af), &af);
    guest.write(at, 0x44, Byte, 1);
    assert_eq!(guest.wiring.story(), ["reset"]);

    let hardware = hardware(&nic()).writable(0x98, Word, u32::MAX).writable(0xd4, Word, 3);
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    guest.write(at, 0x98, Word, 0x8000);
    assert_eq!(guest.wiring.story(), ["reset"]);
    guest.write(at, 0xd4, Word, 3);
    assert_eq!(guest.wiring.story(), ["power D3hot"]);
    // This hardware resets itself on its way back.
    guest.write(at, 0xd4, Word, 0);
    assert_eq!(guest.wiring.story(), ["power D0", "reset"]);
    let writes = hardware.story();
    assert!(writes.iter().all(|line| line.starts_with("write 2 at 0x4 ")), "{writes:?}");
}

#[test]
fn a_capability_that_cannot_be_initialised_is_hidden_and_the_others_are_not() {
    let cases: [(&str, Config); 6] = [
        ("MSI with 64 vectors", nic().with16(0x62, 0x018c)),
        ("a table of MSI-X outside its BAR", nic().with32(0x4c, 0x4000)),
        ("pending bits in an I/O BAR", nic().with32(0x50, 2)),
        ("pending bits in the table", nic().with32(0x50, 0x2000)),
        ("an Express capability of version 0", nic().with16(0x92, 0)),
        ("a vendor-specific one that is too short", nic().with8(0xe2, 2)),
    ];
    let hidden = [0x60, 0x48, 0x48, 0x48, 0x90, 0xe0];
    for ((what, config), hidden) in cases.into_iter().zip(hidden) {
        let hardware = hardware(&config);
        let (guest, at) = plugged(guest_function(&hardware), &hardware);
        let shown: Vec<u16> = Walker::new(&guest).capabilities(at).into_iter().map(|(at, _)| at).collect();
        let expected: Vec<u16> =
            [0x48, 0x60, 0x90, 0xd0, 0xe0].into_iter().filter(|at| *at != hidden).collect();
        assert_eq!(shown, expected, "{what}");
    }
}

#[test]
fn the_host_does_not_reach_a_capability_that_cannot_be_initialised() {
    let config = nic().with16(0x62, 0x018c).with32(0x4c, 0x4000);
    let hardware = hardware(&config).writable(0x62, Word, 0x71).writable(0x4a, Word, 0xc000);
    let function = PassThrough::new(Viewer::Host).build(hardware.clone()).unwrap();
    let (guest, at) = plugged(function, &hardware);
    let shown: Vec<u16> = Walker::new(&guest).capabilities(at).into_iter().map(|(at, _)| at).collect();
    assert_eq!(shown, [0x40, 0x80, 0x90, 0xd0, 0xe0]);
    guest.write(at, 0x62, Word, 1);
    guest.write(at, 0x4a, Word, 0x8000);
    assert_eq!(hardware.story(), [""; 0]);
    assert_eq!((guest.read(at, 0x62, Word), guest.read(at, 0x4a, Word)), (0x018c, 3));
}

#[test]
fn nothing_hidden_is_reached_through_a_vendor_specific_capability() {
    let base = || Config::endpoint(256).list(0x40);
    let cases = [
        (
            "over a hidden one",
            base().capability(0x40, 0x09, 0x50).with8(0x42, 0x20).capability(0x50, 0x03, 0),
        ),
        ("over MSI", base().capability(0x40, 0x09, 0x50).with8(0x42, 0x20).capability(0x50, 0x05, 0)),
        ("within VPD", base().capability(0x40, 0x03, 0x44).capability(0x44, 0x09, 0).with8(0x46, 8)),
        ("within MSI that is hidden", {
            base().capability(0x40, 0x05, 0x44).with16(0x42, 0xe).capability(0x44, 0x09, 0).with8(0x46, 4)
        }),
        ("over the end", base().capability(0xf0, 0x09, 0).with8(0xf2, 0x20).with8(0x34, 0xf0)),
    ];
    for (what, config) in cases {
        let hardware = Hardware::new(&config);
        let (guest, at) = plugged(guest_function(&hardware), &hardware);
        let shown = Walker::new(&guest).capabilities(at);
        assert!(shown.iter().all(|(_, id)| *id != 0x09), "{what}: {shown:?}");
    }
}

#[test]
fn lists_that_loop_or_lead_nowhere_end() {
    let base = || Config::endpoint(4096).list(0x40);
    let power = |config: Config, next| config.capability(0x40, 0x01, next);
    for config in [
        power(base(), 0x40),
        power(base(), 0x10),
        power(base(), 0xff),
        power(base(), 0x60).with16(0x60, 0x40ff),
        power(base(), 0x4a).capability(0x48, 0x03, 0x41),
        power(base(), 0).extended(0x100, 0x0b, 1, 0x100),
        power(base(), 0).extended(0x100, 0x0b, 1, 0x104).extended(0x104, 0x0b, 1, 0x100),
    ] {
        for viewer in [Viewer::Guest, Viewer::Host] {
            let hardware = Hardware::new(&config);
            let function = PassThrough::new(viewer).build(hardware.clone()).unwrap();
            let (guest, at) = plugged(function, &hardware);
            let mut walker = Walker::new(&guest);
            assert_eq!(walker.capabilities(at).first(), Some(&(0x40, 0x01)));
            walker.extended_capabilities(at);
        }
    }
}

#[test]
fn a_pointer_without_a_list_is_none() {
    let hardware = Hardware::new(&Config::endpoint(256).with8(0x34, 0x40).with8(0x40, 1));
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    assert_eq!(Walker::new(&guest).capabilities(at), []);
}

#[test]
fn an_express_capability_is_the_hardwares_but_for_what_would_not_be_the_guests() {
    // Phantom functions; a link of 8 GT/s, four lanes.
    let config = nic().with32(0x94, 0x1000_8018).with32(0x9c, 0x0000_0043).with16(0xa2, 0x0043);
    let hardware = hardware(&config.with32(0xb4, 0x5).with32(0xbc, 0xe));
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    assert_eq!(guest.read(at, 0x92, Word), 2);
    assert_eq!(guest.read(at, 0x94, Dword), 0x1000_8000, "their requester IDs are none of its own");
    assert_eq!((guest.read(at, 0x9c, Dword), guest.read(at, 0xa2, Word)), (0x43, 0x43));
    assert_eq!((guest.read(at, 0xb4, Dword), guest.read(at, 0xbc, Dword)), (0, 0xe));
    hardware.poke(0xa2, Word, 0x0041);
    assert_eq!(guest.read(at, 0xa2, Word), 0x41, "a link may be trained anew");
    guest.write(at, 0x98, Word, 0x7000);
    assert_eq!((guest.read(at, 0x98, Word), hardware.peek(0x98, Word)), (0x7000, 0), "its own copy");
    // Transactions pending, and an error that is the host's.
    hardware.poke(0x9a, Word, 0x21);
    assert_eq!(guest.read(at, 0x9a, Word), 0x20);
    guest.write(at, 0x9a, Word, 0xf);
    assert_eq!(hardware.peek(0x9a, Word), 0x21);
}

#[test]
fn an_express_capability_of_version_1_ends_where_it_ends() {
    // An endpoint's, then another capability right behind it.
    let config =
        Config::endpoint(256).list(0x40).capability(0x40, 0x10, 0x54).with16(0x42, 1).capability(0x54, 1, 0);
    let hardware = Hardware::new(&config);
    let (guest, at) = plugged(guest_function(&hardware), &hardware);
    assert_eq!(Walker::new(&guest).capabilities(at), [(0x40, 0x10), (0x54, 0x01)]);
    assert_eq!(guest.read(at, 0x54, Dword), 0x0003_0001);
}
