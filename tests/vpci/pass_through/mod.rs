//! Pass-through, rule by rule: hardware behind the model, as a guest and as the host find it.

mod capabilities;
mod command;
mod header;
mod host;
mod hostile;

use pcidevs::platform::Width::Dword;
use pcidevs::vpci::{Function, PassThrough, PassThroughError, Viewer};

use crate::guest::Guest;
use crate::hardware::{BAR0, Hardware};
use crate::recordings::Config;

pub(super) const IO: u32 = 1;
pub(super) const MEMORY: u32 = 2;
pub(super) const MASTER: u32 = 4;
pub(super) const INTX_DISABLE: u32 = 0x400;

/// A network card: 16 KiB of 64-bit memory with MSI-X in it, 32 ports, a ROM; its list of capabilities has some that a
/// guest does not see, before, between and after those that it does.
pub(super) fn nic() -> Config {
    Config::endpoint(4096)
        .with32(BAR0.into(), 0xfe00_000c)
        .with32(0x18, 0xe001)
        .with32(0x30, 0xfd00_0000)
        .with8(0x3d, 1)
        .list(0x40)
        .capability(0x40, 0x03, 0x48)
        .capability(0x48, 0x11, 0x60)
        .with16(0x4a, 3)
        .with32(0x4c, 0x2000)
        .with32(0x50, 0x3000)
        .capability(0x60, 0x05, 0x80)
        .with16(0x62, 0x0184)
        .capability(0x80, 0x14, 0x90)
        .capability(0x90, 0x10, 0xd0)
        .with16(0x92, 0x0002)
        .with32(0x94, 0x1000_8000)
        .capability(0xd0, 0x01, 0xe0)
        .capability(0xe0, 0x09, 0)
        .with8(0xe2, 0x0e)
}

pub(super) fn hardware(config: &Config) -> Hardware {
    let hardware = Hardware::new(config).bar(BAR0, 0x4000).bar(0x18, 0x20).rom(0x30, 0x1_0000);
    hardware.writable(0xe4, Dword, u32::MAX).writable(0xe8, Dword, u32::MAX)
}

pub(super) fn guest_function(hardware: &Hardware) -> Function {
    PassThrough::new(Viewer::Guest).build(hardware.clone()).unwrap()
}

/// A guest with that function, and nothing done yet.
pub(super) fn plugged(function: Function, hardware: &Hardware) -> (Guest, pcidevs::Sbdf) {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", function);
    hardware.story();
    (guest, at)
}

pub(super) fn refused(config: &Config) -> PassThroughError {
    PassThrough::new(Viewer::Guest).build(Hardware::new(config)).unwrap_err()
}
