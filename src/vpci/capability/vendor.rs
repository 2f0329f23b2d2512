//! Vendor-specific capabilities: bytes whose meaning only the device and its driver know (PCIe 6.0 §7.9.4).

use super::hardware::own;
use crate::platform::Width;
use crate::vpci::function::{Effects, Model};
use crate::vpci::registers::Register;

pub(in crate::vpci) const ID: u8 = 0x09;

/// The registers of a capability of `length` bytes at this place, but for its header: its length, and what is the
/// device's own, byte by byte where it is not a whole dword.
pub(in crate::vpci) fn registers(at: u16, length: u8) -> impl Iterator<Item = Register<Model, Effects>> {
    let dwords = dwords(at, length).map(|offset| own(offset, Width::Dword));
    bytes(at, length).chain(dwords)
}

/// Those of them that are no whole dwords.
pub(in crate::vpci) fn bytes(at: u16, length: u8) -> impl Iterator<Item = Register<Model, Effects>> {
    let end = at + u16::from(length);
    let first = (at + 3..end.min(at + 4)).chain((end & !3).max(at + 4)..end);
    let length = Register::constant(at + 2, Width::Byte, length.into());
    core::iter::once(length).chain(first.map(|offset| own(offset, Width::Byte)))
}

/// Its whole dwords, but for the first.
pub(in crate::vpci) fn dwords(at: u16, length: u8) -> impl Iterator<Item = u16> {
    (at + 4..(at + u16::from(length)) & !3).step_by(4)
}
