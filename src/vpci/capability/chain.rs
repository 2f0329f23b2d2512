//! The lists of capabilities: which are shown, where, and how one leads to the next.
//!
//! A capability that is not shown is skipped: the one before it leads to the one after it. The extended list begins at
//! 100 whatever is shown; where nothing is there, a capability without registers (ID 0) leads on.

use crate::device::EXTENDED_START;
use crate::platform::Width;
use crate::vpci::function::{Effects, Model};
use crate::vpci::registers::{Register, RegisterError, Space};

/// The pointer to the first capability (PCIe 6.0 §7.5.1.1.11).
const POINTER: u16 = 0x34;

/// A capability that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vpci) struct Shown {
    pub(in crate::vpci) at: u8,
    pub(in crate::vpci) id: u8,
}

/// An extended capability that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vpci) struct ShownExtended {
    pub(in crate::vpci) at: u16,
    pub(in crate::vpci) id: u16,
    pub(in crate::vpci) version: u8,
}

/// Adds the headers of these capabilities and the pointer to the first.
pub(in crate::vpci) fn link(space: &mut Space<Model, Effects>, shown: &[Shown]) -> Result<(), RegisterError> {
    let next = shown.iter().skip(1).map(|shown| shown.at).chain([0]);
    for (shown, next) in shown.iter().zip(next) {
        let header = u32::from(shown.id) | u32::from(next) << 8;
        space.add(Register::constant(shown.at.into(), Width::Word, header))?;
    }
    let first = shown.first().map_or(0, |first| first.at);
    space.add(Register::constant(POINTER, Width::Byte, first.into()))
}

/// Adds the headers of these extended capabilities; the list is empty if there are none.
pub(in crate::vpci) fn link_extended(
    space: &mut Space<Model, Effects>,
    shown: &[ShownExtended],
) -> Result<(), RegisterError> {
    let start = u16::try_from(EXTENDED_START).unwrap_or_default();
    let is_first_there = shown.first().is_some_and(|first| first.at == start);
    if !is_first_there {
        let next = shown.first().map_or(0, |first| first.at);
        let version = u32::from(next != 0);
        space.add(Register::constant(start, Width::Dword, version << 16 | u32::from(next) << 20))?;
    }
    let next = shown.iter().skip(1).map(|shown| shown.at).chain([0]);
    for (shown, next) in shown.iter().zip(next) {
        let header = u32::from(shown.id) | u32::from(shown.version) << 16 | u32::from(next) << 20;
        space.add(Register::constant(shown.at, Width::Dword, header))?;
    }
    Ok(())
}
