//! What recorded bytes say, read by code that shares nothing with the model.
//!
//! They do not tell how large BARs are; the sizes here are as large as their addresses allow.

use std::collections::{BTreeMap, BTreeSet};

use pcidevs::topology::Function as Recorded;
use pcidevs::vpci::{Bar, BarKind};

pub(crate) const POWER: u8 = 0x01;
pub(crate) const MSI: u8 = 0x05;
pub(crate) const VENDOR: u8 = 0x09;
pub(crate) const EXPRESS: u8 = 0x10;
pub(crate) const MSIX: u8 = 0x11;
pub(crate) const FEATURES: u8 = 0x13;
pub(crate) const REBAR: u16 = 0x15;
pub(crate) const SRIOV: u16 = 0x10;

/// A function's bytes, as they were recorded; beyond them ones.
pub(crate) struct Bytes(Vec<u8>);

impl Bytes {
    pub(crate) fn of(recorded: &Recorded) -> Self {
        let mut bytes = recorded.config.clone();
        bytes.resize(4096, 0xff);
        Self(bytes)
    }

    pub(crate) fn number(&self, at: usize, length: usize) -> u64 {
        self.0[at..at + length].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    pub(crate) fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }

    pub(crate) fn u16(&self, at: usize) -> u16 {
        self.number(at, 2).try_into().unwrap()
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        self.number(at, 4).try_into().unwrap()
    }

    pub(crate) fn is_bridge(&self) -> bool {
        self.u8(0xe) & 0x7f == 1
    }

    /// BARs by slot, as large as their addresses allow and no larger than these.
    pub(crate) fn bars(&self, first: usize, slots: usize, most: u64) -> Vec<(u8, Bar, u64)> {
        let (mut bars, mut slot) = (Vec::new(), 0);
        while slot < slots {
            let register = self.u32(first + 4 * slot);
            let (is_io, is_64) = (register & 1 == 1, register & 7 == 4);
            let upper = if is_64 { self.u32(first + 4 * slot + 4) } else { 0 };
            let address = (u64::from(upper) << 32 | u64::from(register)) & if is_io { !3 } else { !0xf };
            let aligned = if address == 0 { most } else { 1 << address.trailing_zeros() };
            let size = aligned.min(most).min(if is_io { 256 } else { u64::MAX });
            let bar = match (is_io, is_64) {
                (true, _) => Bar::io(size.try_into().unwrap()),
                (_, true) => Bar::memory64(size),
                _ => Bar::memory32(size.try_into().unwrap()),
            };
            let bar = if !is_io && register & 8 != 0 { bar.prefetchable() } else { bar };
            if address != 0 || register & 0xf != 0 {
                bars.push((slot.try_into().unwrap(), bar, address));
            }
            slot += if is_64 { 2 } else { 1 };
        }
        bars
    }

    /// Where the capabilities are, and their IDs.
    pub(crate) fn capabilities(&self) -> Vec<(u16, u8)> {
        let mut found: Vec<(u16, u8)> = Vec::new();
        let mut next = if self.u16(6) & 0x10 == 0 { 0 } else { self.u8(0x34) & !3 };
        while next >= 0x40
            && self.u8(next.into()) != 0xff
            && !found.iter().any(|(at, _)| *at == u16::from(next))
        {
            found.push((next.into(), self.u8(next.into())));
            next = self.u8(usize::from(next) + 1) & !3;
        }
        found
    }

    /// How long a capability is that the model takes over; `None` if it has a shape that cannot be.
    pub(crate) fn length(&self, (at, id): (u16, u8), bars: &BTreeMap<u8, Bar>) -> Option<u16> {
        let start = usize::from(at);
        let control = self.u16(start + 2);
        match id {
            POWER => Some(8),
            MSI if control >> 1 & 7 > 5 => None,
            MSI => {
                Some(10 + if control & 0x80 != 0 { 4 } else { 0 } + if control & 0x100 != 0 { 10 } else { 0 })
            }
            VENDOR => Some(self.u8(start + 2).into()).filter(|length| *length >= 3),
            EXPRESS => Some(match (control & 0xf, control >> 4 & 0xf) {
                (0, _) => return None,
                (1, 9 | 10) => 0x0c,
                (1, _) => 0x14,
                (_, 9 | 10) => 0x2c,
                _ => 0x34,
            }),
            MSIX => {
                let vectors = u64::from(control & 0x7ff) + 1;
                let [table, pending] = [4, 8].map(|offset| self.u32(start + offset));
                let fits = |place: u32, length: u64| {
                    let bar = bars.get(&u8::try_from(place & 7).unwrap());
                    bar.is_some_and(|bar| {
                        bar.kind() != BarKind::Io && u64::from(place & !7) + length <= bar.size()
                    })
                };
                let is_apart = table & 7 != pending & 7
                    || u64::from(table & !7) + vectors * 16 <= u64::from(pending & !7)
                    || u64::from(pending & !7) + vectors.div_ceil(64) * 8 <= u64::from(table & !7);
                let is_possible =
                    fits(table, vectors * 16) && fits(pending, vectors.div_ceil(64) * 8) && is_apart;
                is_possible.then_some(12)
            }
            FEATURES => Some(6).filter(|_| self.u8(start + 2) == 6 && self.u8(start + 3) & 3 == 3),
            _ => None,
        }
    }

    /// What of the list can be modelled: nothing that is malformed, runs into another, or comes twice.
    pub(crate) fn modelled(&self, bars: &BTreeMap<u8, Bar>) -> Vec<(u16, u8)> {
        let all = self.capabilities();
        let mut seen = BTreeSet::new();
        let is_modelled = |capability: &(u16, u8)| {
            let (at, id) = *capability;
            let Some(length) = self.length(*capability, bars) else { return false };
            let is_alone = !all.iter().any(|(other, _)| *other > at && *other < at + length);
            is_alone && at + length <= 0x100 && (seen.insert(id) || id == VENDOR)
        };
        all.iter().copied().filter(is_modelled).collect()
    }

    /// BARs that can be resized, and how large they are now.
    pub(crate) fn resizable(&self) -> Vec<(u8, u64)> {
        let found = self.extended().into_iter().find(|(_, id)| *id == REBAR);
        let Some((at, _)) = found else { return Vec::new() };
        let control = |entry: usize| self.u32(usize::from(at) + 8 + 8 * entry);
        let entry = |control: u32| (u8::try_from(control & 7).unwrap(), 1 << (20 + (control >> 8 & 0x1f)));
        (0..(control(0) >> 5 & 7) as usize).map(|number| entry(control(number))).collect()
    }

    pub(crate) fn has_extended(&self) -> bool {
        let aliases = (0x100..0x1000).step_by(0x100).all(|at| self.u32(at) == self.u32(0));
        self.u32(0x100) != u32::MAX && !aliases
    }

    /// Where the extended capabilities are, and their IDs.
    pub(crate) fn extended(&self) -> Vec<(u16, u16)> {
        let mut found: Vec<(u16, u16)> = Vec::new();
        let mut next = if self.has_extended() { 0x100 } else { 0 };
        while next >= 0x100 && !found.iter().any(|(at, _)| *at == next) {
            let header = self.u32(next.into());
            if header == 0 || header == u32::MAX {
                break;
            }
            found.push((next, self.u16(next.into())));
            next = u16::try_from(header >> 20).unwrap() & !3;
        }
        found
    }
}
