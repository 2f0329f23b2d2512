//! Finding out how large the BARs of hardware are: ones are written, and the bits that stay 0 are below the size
//! (PCIe 6.0 §7.5.1.2.1).
//!
//! Whoever calls this has turned decoding off: a BAR that is being sized is somewhere else for a moment. Every register
//! is given back what it held.

use super::bar::{ALL, Bar, BarKind, IS_64, IS_IO, PREFETCHABLE, join};
use crate::platform::Width;
use crate::vpci::backing::Backing;

/// The bits of an address; those below say what kind of BAR it is.
const MEMORY_ADDRESS: u32 = !0xf;
const IO_ADDRESS: u32 = !0x3;
const ROM_ADDRESS: u32 = !0x7ff;
const KIND: u32 = 6;

/// The BARs in so many slots (up to six) from this register on. A 64-bit one without a place for its upper half is none.
pub(in crate::vpci) fn size_bars(backing: &mut dyn Backing, first: u16, slots: u8) -> [Option<Bar>; ALL] {
    let mut bars = [None; ALL];
    let mut slot = 0;
    while slot < slots {
        let offset = first + 4 * u16::from(slot);
        let register = backing.config_read(offset, Width::Dword);
        let is_64 = register & IS_IO == 0 && register & KIND == IS_64;
        let bar = match (is_64, slot + 1 < slots) {
            (true, true) => size_64(backing, offset),
            (true, false) => None,
            (false, _) => size_32(backing, offset, register),
        };
        if let Some(place) = bars.get_mut(usize::from(slot)) {
            *place = bar.map(|(kind, size)| Bar {
                kind,
                size,
                is_prefetchable: kind != BarKind::Io && register & PREFETCHABLE != 0,
                is_direct: true,
            });
        }
        slot += if is_64 { 2 } else { 1 };
    }
    bars
}

/// The expansion ROM behind this register. It is not enabled meanwhile.
pub(in crate::vpci) fn size_rom(backing: &mut dyn Backing, offset: u16) -> Option<Bar> {
    let mask = writable(backing, offset, ROM_ADDRESS) & ROM_ADDRESS;
    lowest(mask.into()).map(|size| Bar {
        kind: BarKind::Memory32,
        size,
        is_prefetchable: false,
        is_direct: true,
    })
}

fn size_32(backing: &mut dyn Backing, offset: u16, register: u32) -> Option<(BarKind, u64)> {
    let (kind, address) =
        if register & IS_IO != 0 { (BarKind::Io, IO_ADDRESS) } else { (BarKind::Memory32, MEMORY_ADDRESS) };
    // I/O BARs may leave out the upper half: no machine has so many ports.
    let mask = writable(backing, offset, u32::MAX) & address;
    Some((kind, lowest(mask.into())?))
}

fn size_64(backing: &mut dyn Backing, offset: u16) -> Option<(BarKind, u64)> {
    let lower = writable(backing, offset, u32::MAX) & MEMORY_ADDRESS;
    let upper = writable(backing, offset + 4, u32::MAX);
    Some((BarKind::Memory64, lowest(join(lower, upper))?))
}

/// The bits that can be set among these.
fn writable(backing: &mut dyn Backing, offset: u16, ones: u32) -> u32 {
    let before = backing.config_read(offset, Width::Dword);
    backing.config_write(offset, Width::Dword, ones);
    let mask = backing.config_read(offset, Width::Dword);
    backing.config_write(offset, Width::Dword, before);
    mask
}

/// The lowest bit that can be set is the size.
fn lowest(mask: u64) -> Option<u64> {
    (mask != 0).then(|| 1 << mask.trailing_zeros())
}
