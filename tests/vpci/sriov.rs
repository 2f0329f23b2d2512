//! SR-IOV, rule by rule: the host switches virtual functions, and a guest does not see that there are any.

use pcidevs::platform::Width::{Dword, Word};
use pcidevs::vpci::{Bar, PassThrough, Viewer};

use crate::guest::Guest;
use crate::hardware::Hardware;
use crate::recordings::Config;
use crate::walk::Walker;

const AT: u16 = 0x100;
const CONTROL: u16 = AT + 8;
const NUM_VFS: u16 = AT + 0x10;
const PAGE_SIZE: u16 = AT + 0x20;
const VF_BAR0: u16 = AT + 0x24;
const ENABLE: u32 = 1;
const MEMORY: u32 = 8;

/// Up to eight virtual functions, 1234:9abc, with 16 KiB of 64-bit memory each.
fn config() -> Config {
    let config = Config::endpoint(4096).extended(AT, 0x10, 1, 0x160).extended(0x160, 0x01, 2, 0);
    let config = config.with16(0x10c, 8).with16(0x10e, 8).with16(0x114, 0x80).with16(0x116, 2);
    config.with16(0x11a, 0x9abc).with32(VF_BAR0.into(), 0x4).with32(0x11c, 0x553).with32(PAGE_SIZE.into(), 1)
}

fn hardware(config: &Config) -> Hardware {
    let hardware = Hardware::new(config).bar(VF_BAR0, 0x4000);
    hardware.writable(CONTROL, Word, 0x1f).writable(NUM_VFS, Word, 0xffff).writable(PAGE_SIZE, Dword, 0x553)
}

fn plugged(config: &Config) -> (Guest, pcidevs::Sbdf, Hardware) {
    let hardware = hardware(config);
    let function = PassThrough::new(Viewer::Host).build(hardware.clone()).unwrap();
    let guest = Guest::new();
    let at = guest.plug("00:03.0", function);
    hardware.story();
    (guest, at, hardware)
}

/// Addresses and sizes of a virtual function's BARs, as its physical function says.
fn bars(guest: &Guest, at: pcidevs::Sbdf, index: u16) -> Option<Vec<(u64, u64)>> {
    let mut device = guest.domain.lock(at).unwrap();
    let function = device.as_mut().unwrap().virtual_function(index)?;
    assert_eq!((function.vendor(), function.device()), (0x1234, 0x9abc));
    Some(function.bars().iter().flatten().map(|(bar, address)| (*address, bar.size())).collect())
}

#[test]
fn enabling_goes_to_hardware_and_is_an_effect() {
    let (guest, at, hardware) = plugged(&config());
    guest.write(at, NUM_VFS, Word, 5);
    assert_eq!(guest.wiring.story(), [""; 0], "none is enabled yet");
    guest.write(at, VF_BAR0, Dword, 0xc000_0000);
    guest.write(at, VF_BAR0 + 4, Dword, 0x10);
    assert_eq!(bars(&guest, at, 0), None);
    guest.write(at, CONTROL, Word, ENABLE | MEMORY);
    assert_eq!(guest.wiring.story(), ["virtual functions 5"]);
    assert_eq!((hardware.peek(NUM_VFS, Word), hardware.peek(CONTROL, Word)), (5, 9));
    assert_eq!(guest.read(at, CONTROL, Word), 9);
    assert_eq!(bars(&guest, at, 0), Some(vec![(0x10_c000_0000, 0x4000)]));
    assert_eq!(bars(&guest, at, 4), Some(vec![(0x10_c001_0000, 0x4000)]));
    assert_eq!(bars(&guest, at, 5), None);
    guest.write(at, CONTROL, Word, ENABLE);
    assert_eq!(guest.wiring.story(), [""; 0], "as many as before");
    guest.write(at, CONTROL, Word, 0);
    assert_eq!(guest.wiring.story(), ["virtual functions 0"]);
    assert_eq!(bars(&guest, at, 0), None);
}

#[test]
fn their_number_and_bars_do_not_change_while_they_are_enabled_nor_beyond_what_there_can_be() {
    let (guest, at, hardware) = plugged(&config());
    guest.write(at, NUM_VFS, Word, 9);
    assert_eq!(guest.read(at, NUM_VFS, Word), 0);
    guest.write(at, NUM_VFS, Word, 2);
    guest.write(at, CONTROL, Word, ENABLE);
    guest.write(at, NUM_VFS, Word, 3);
    guest.write(at, VF_BAR0, Dword, 0xd000_0000);
    guest.write(at, PAGE_SIZE, Dword, 0x10);
    assert_eq!((hardware.peek(NUM_VFS, Word), hardware.peek(VF_BAR0, Dword)), (2, 4));
    assert_eq!(hardware.peek(PAGE_SIZE, Dword), 1);
}

#[test]
fn hardware_that_does_not_enable_any_is_believed() {
    let hardware = hardware(&config()).writable(CONTROL, Word, 0);
    let function = PassThrough::new(Viewer::Host).build(hardware).unwrap();
    let guest = Guest::new();
    let at = guest.plug("00:03.0", function);
    guest.write(at, NUM_VFS, Word, 5);
    guest.write(at, CONTROL, Word, ENABLE);
    assert_eq!(guest.wiring.story(), [""; 0]);
}

#[test]
fn an_enable_that_could_not_be_carried_out_is_reported() {
    let (guest, at, _) = plugged(&config());
    guest.write(at, NUM_VFS, Word, 1);
    guest.wiring.fail("virtual functions");
    guest.write(at, CONTROL, Word, ENABLE);
    assert_eq!(guest.wiring.story(), ["virtual functions 1", "failed 0000:80:03.0: told to fail"]);
}

#[test]
fn the_page_size_changes_how_large_their_bars_are() {
    let (guest, at, hardware) = plugged(&config());
    // This hardware's BARs have a whole number of 64 KiB pages.
    let _wider = hardware.clone().bar(VF_BAR0, 0x1_0000);
    guest.write(at, PAGE_SIZE, Dword, 0x10);
    guest.write(at, NUM_VFS, Word, 2);
    guest.write(at, CONTROL, Word, ENABLE);
    assert_eq!(bars(&guest, at, 1), Some(vec![(0x1_0000, 0x1_0000)]));
}

#[test]
fn bars_that_cannot_be_found_out_have_to_be_given() {
    let enabled = config().with16(CONTROL.into(), 9).with16(NUM_VFS.into(), 3);
    let (guest, at, hardware) = plugged(&enabled);
    assert_eq!(Walker::new(&guest).extended_capabilities(at), [(0x100, 0), (0x160, 1)], "hidden");
    guest.write(at, CONTROL, Word, 0);
    guest.write(at, NUM_VFS, Word, 1);
    assert_eq!(hardware.story(), [""; 0]);
    assert_eq!(guest.read(at, CONTROL, Word), 9);

    let given = [Some(Bar::memory64(0x4000)), None, None, None, None, None];
    let function = PassThrough::new(Viewer::Host).virtual_bars(given).build(hardware).unwrap();
    let guest = Guest::new();
    let at = guest.plug("00:03.0", function);
    assert_eq!(Walker::new(&guest).extended_capabilities(at), [(0x100, 0x10), (0x160, 1)]);
    assert_eq!(bars(&guest, at, 2), Some(vec![(0x8000, 0x4000)]), "they are there from the beginning");
    guest.write(at, CONTROL, Word, 0);
    assert_eq!(guest.wiring.story(), ["virtual functions 0"]);
}

#[test]
fn one_that_breaks_the_standard_is_hidden() {
    for (what, config) in [
        ("an I/O BAR", config().with32(VF_BAR0.into(), 1)),
        ("a 64-bit BAR in the last slot", config().with32(usize::from(VF_BAR0) + 20, 4)),
        ("over another", config().extended(AT, 0x10, 1, 0x130).extended(0x130, 0x01, 2, 0)),
    ] {
        let (guest, at, _) = plugged(&config);
        let shown = Walker::new(&guest).extended_capabilities(at);
        assert!(shown.iter().all(|(_, id)| *id != 0x10), "{what}: {shown:x?}");
    }
}

#[test]
fn a_guest_does_not_see_it() {
    let hardware = hardware(&config());
    let function = PassThrough::new(Viewer::Guest).build(hardware.clone()).unwrap();
    let guest = Guest::new();
    let at = guest.plug("00:03.0", function);
    hardware.story();
    assert_eq!(Walker::new(&guest).extended_capabilities(at), []);
    guest.write(at, NUM_VFS, Word, 5);
    guest.write(at, CONTROL, Word, ENABLE);
    assert_eq!((hardware.story(), guest.wiring.story()), (vec![], vec![]));
}
