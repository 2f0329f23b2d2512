//! What a guest does to find out what it has: it probes, sizes BARs and follows lists, by memory accesses and nothing
//! else. It shares no code with the model.

use pcidevs::Sbdf;
use pcidevs::address::Segment;

use crate::guest::{ECAM, Guest, GuestVcpu};

/// A BAR as a guest sizes it: its slot, the bits below the address, its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizedBar {
    pub(crate) slot: u8,
    pub(crate) flags: u32,
    pub(crate) size: u64,
}

/// A guest that walks.
pub(crate) struct Walker {
    vcpu: GuestVcpu,
}

impl Walker {
    pub(crate) fn new(guest: &Guest) -> Self {
        Self { vcpu: guest.bus.vcpu() }
    }

    pub(crate) fn read<const N: usize>(&mut self, at: Sbdf, offset: u16) -> u32 {
        let mut data = [0; N];
        assert!(self.vcpu.mmio_read(address(at, offset), &mut data));
        data.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
    }

    pub(crate) fn write<const N: usize>(&mut self, at: Sbdf, offset: u16, value: u32) {
        assert!(self.vcpu.mmio_write(address(at, offset), &value.to_le_bytes()[..N]).wait());
    }

    /// Every function on these buses, as firmware looks for them: functions 1 to 7 only where function 0 says so.
    pub(crate) fn probe(&mut self, buses: std::ops::RangeInclusive<u8>) -> Vec<Sbdf> {
        let mut found = Vec::new();
        for device in buses.flat_map(|bus| (0..32).map(move |device| u16::from(bus) << 8 | device << 3)) {
            let first = Sbdf::from_bdf(Segment::new(0), device);
            if self.read::<2>(first, 0) == 0xffff {
                continue;
            }
            let functions = if self.read::<1>(first, 0xe) & 0x80 != 0 { 8 } else { 1 };
            let all = (device..=device + (functions - 1)).map(|bdf| Sbdf::from_bdf(Segment::new(0), bdf));
            found.extend(all.filter(|function| self.read::<2>(*function, 0) != 0xffff));
        }
        found
    }

    /// Writes ones to every BAR, with decoding off, and puts back what was there.
    pub(crate) fn size_bars(&mut self, at: Sbdf) -> Vec<SizedBar> {
        let command = self.read::<2>(at, 4);
        self.write::<2>(at, 4, command & !3);
        let slots = if self.read::<1>(at, 0xe) & 0x7f == 1 { 2 } else { 6 };
        let (mut bars, mut slot) = (Vec::new(), 0);
        while slot < slots {
            let register = 0x10 + 4 * u16::from(slot);
            let (before, mask) = self.ones(at, register, u32::MAX);
            let is_64 = before & 7 == 4;
            let flags = before & if before & 1 == 1 { 3 } else { 0xf };
            let mut mask = u64::from(mask & !flags) | u64::from(u32::MAX) << 32;
            if is_64 {
                let (_, upper) = self.ones(at, register + 4, u32::MAX);
                mask = mask & 0xffff_ffff | u64::from(upper) << 32;
            }
            if mask & 0xffff_ffff != 0 || is_64 && mask != 0 {
                bars.push(SizedBar { slot, flags, size: (!mask).wrapping_add(1) });
            }
            slot += if is_64 { 2 } else { 1 };
        }
        let rom = if slots == 2 { 0x38 } else { 0x30 };
        let (_, mask) = self.ones(at, rom, 0xffff_f800);
        if mask != 0 {
            bars.push(SizedBar { slot: 6, flags: 0, size: u64::from((!(mask & !1)).wrapping_add(1)) });
        }
        self.write::<2>(at, 4, command);
        bars
    }

    fn ones(&mut self, at: Sbdf, register: u16, ones: u32) -> (u32, u32) {
        let before = self.read::<4>(at, register);
        self.write::<4>(at, register, ones);
        let mask = self.read::<4>(at, register);
        self.write::<4>(at, register, before);
        (before, mask)
    }

    /// The list of capabilities: where they are, and their IDs. It has to end.
    pub(crate) fn capabilities(&mut self, at: Sbdf) -> Vec<(u16, u8)> {
        let mut found = Vec::new();
        if self.read::<2>(at, 6) & 0x10 == 0 {
            assert_eq!(self.read::<1>(at, 0x34), 0, "a pointer to a list that is not announced");
            return found;
        }
        let mut next = u16::from(byte(self.read::<1>(at, 0x34)));
        while next != 0 {
            assert!(next >= 0x40 && next.is_multiple_of(4), "{next:#x}");
            found.push((next, byte(self.read::<1>(at, next))));
            assert!(found.len() <= 48, "the list has no end");
            next = u16::from(byte(self.read::<1>(at, next + 1)));
        }
        found
    }

    /// The list of extended capabilities, with those that are null.
    pub(crate) fn extended_capabilities(&mut self, at: Sbdf) -> Vec<(u16, u16)> {
        let (mut found, mut next) = (Vec::new(), 0x100_u16);
        while next != 0 {
            assert!(next >= 0x100 && next.is_multiple_of(4), "{next:#x}");
            let header = self.read::<4>(at, next);
            if header == 0 || header == u32::MAX {
                break;
            }
            found.push((next, u16::try_from(header & 0xffff).unwrap()));
            assert!(found.len() <= 960, "the list has no end");
            next = u16::try_from(header >> 20).unwrap();
        }
        found
    }
}

fn address(at: Sbdf, offset: u16) -> u64 {
    ECAM + (u64::from(at.bdf()) << 12) + u64::from(offset)
}

fn byte(value: u32) -> u8 {
    u8::try_from(value).unwrap()
}
