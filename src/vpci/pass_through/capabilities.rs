//! The list of capabilities: which the model takes over, which are shown as they are, which are hidden.
//!
//! Where two run into each other, those of a known length come first, then vendor-specific ones: through those a guest
//! reaches hardware, so they must not have a byte of anything else, be it hidden.

use alloc::boxed::Box;

use super::{Build, PassThroughError};
use crate::device::{Capability, ConfigSpace, walk_capabilities};
use crate::memory::try_box;
use crate::platform::Width;
use crate::vpci::capability::{Power, chain, express, features, hardware, msi, msix, power, vendor};
use crate::vpci::endpoint::{add_all, check_msix};

/// There is no room for more.
const MOST: usize = 48;
/// Where they end.
const END: u16 = 0x100;
/// ID and next pointer.
const HEADER: u16 = 2;

/// Adds what is shown. Whether anything is.
pub(super) fn add(build: &mut Build<'_>) -> Result<bool, PassThroughError> {
    let mut found = [None; MOST];
    for (place, capability) in found.iter_mut().zip(walk_capabilities(build.config).flatten()) {
        let at = u16::from(capability.offset);
        // Each has a dword of its own, so its header is free.
        *place = build.occupied.take(at..at + HEADER).then_some(capability);
    }
    let mut is_shown = [false; MOST];
    for is_vendor in [false, true] {
        if is_vendor {
            for (capability, _) in found.iter().zip(is_shown).filter(|(_, is_shown)| !is_shown) {
                build.keep_off(*capability);
            }
        }
        for (capability, shown) in found.iter().zip(&mut is_shown) {
            if let Some(capability) = capability.filter(|it| (it.id == vendor::ID) == is_vendor) {
                *shown = build.add_capability(capability)?;
            }
        }
    }
    let mut shown = [chain::Shown { at: 0, id: 0 }; MOST];
    let mut count = 0;
    for (capability, _) in found.iter().zip(is_shown).filter(|(_, is_shown)| *is_shown) {
        if let (Some(Capability { offset, id }), Some(place)) = (capability, shown.get_mut(count)) {
            *place = chain::Shown { at: *offset, id: *id };
            count += 1;
        }
    }
    chain::link(&mut build.space, shown.get(..count).unwrap_or_default())?;
    Ok(count > 0)
}

impl Build<'_> {
    /// Adds the registers of one, but for its header. Whether it is shown.
    fn add_capability(&mut self, Capability { offset, id }: Capability) -> Result<bool, PassThroughError> {
        let at = u16::from(offset);
        match (id, self.is_for_guest()) {
            (msi::ID, _) => self.add_msi(at),
            (msix::ID, _) => self.add_msix(at),
            (_, false) => Ok(true),
            (power::ID, _) => self.add_power(at),
            (express::ID, _) => self.add_express(at),
            (features::ID, _) => self.add_features(at),
            (vendor::ID, _) => self.add_vendor(at),
            _ => Ok(false),
        }
    }

    /// What is hidden is not to be reached through something that begins within it.
    fn keep_off(&mut self, capability: Option<Capability>) {
        if let Some(Capability { offset, id }) = capability {
            self.occupied.mark(usize::from(offset)..usize::from(offset) + least_length(id));
        }
    }

    /// Takes the bytes behind a capability's header.
    fn take_body(&mut self, at: u16, length: u16) -> bool {
        at + length <= END && self.occupied.take(at + HEADER..at + length)
    }

    fn word(&self, offset: u16) -> u16 {
        self.config.u16(offset.into()).unwrap_or_default()
    }

    fn add_msi(&mut self, at: u16) -> Result<bool, PassThroughError> {
        let control = at + 2;
        self.clear(control, msi::ENABLE);
        let is_first = self.model.interrupts.msi.is_none();
        let shape = msi::Msi::shape(self.word(control)).filter(|_| is_first);
        let fits = |(_, is_64, has_masks): &(u8, bool, bool)| {
            self.take_body(at, msi::Msi::length(*is_64, *has_masks))
        };
        let Some((vectors, is_64, has_masks)) = shape.filter(fits) else { return self.guard(control) };
        let msi = msi::Msi::new(vectors, is_64, has_masks)?;
        add_all(&mut self.space, msi.registers(at))?;
        self.model.interrupts.msi = Some(msi);
        Ok(true)
    }

    fn add_msix(&mut self, at: u16) -> Result<bool, PassThroughError> {
        let control = at + 2;
        self.clear(control, msix::ENABLE);
        let dword = |offset: u16| self.config.u32(offset.into()).unwrap_or_default();
        let (vectors, place) = msix::Msix::shape(self.word(control), dword(at + 4), dword(at + 8));
        let bar = |bar| self.model.bars.get(bar).map(|placed| placed.bar).filter(|_| bar < 6);
        let is_first = self.model.interrupts.msix.is_none();
        let is_possible = is_first && check_msix(vectors, &place, bar).is_ok();
        if !is_possible || !self.take_body(at, msix::LENGTH) {
            return self.guard(control);
        }
        let msix: Box<msix::Msix> = try_box(msix::Msix::new(vectors, place)?)?;
        add_all(&mut self.space, msix.registers(at))?;
        self.model.interrupts.msix = Some(msix);
        Ok(true)
    }

    /// It is hidden: the host, which can guess where it is, may look at its control register and not write.
    fn guard(&mut self, control: u16) -> Result<bool, PassThroughError> {
        if !self.is_for_guest() && control + 2 <= END && self.occupied.take(control..control + 2) {
            self.space.add(hardware::shown(control, Width::Word))?;
        }
        Ok(false)
    }

    fn add_power(&mut self, at: u16) -> Result<bool, PassThroughError> {
        if !self.is_first(at, power::ID) || !self.take_body(at, power::LENGTH) {
            return Ok(false);
        }
        self.model.power = Power::of(self.word(at + 4));
        add_all(&mut self.space, power::registers(at))?;
        Ok(true)
    }

    fn add_express(&mut self, at: u16) -> Result<bool, PassThroughError> {
        let is_first = self.is_first(at, express::ID);
        let Some(shape) = express::Shape::read(self.config, at).filter(|_| is_first) else {
            return Ok(false);
        };
        let Some(length) = shape.lengths().find(|length| self.take_body(at, *length)) else {
            return Ok(false);
        };
        add_all(&mut self.space, express::registers(at, shape, length))?;
        Ok(true)
    }

    fn add_features(&mut self, at: u16) -> Result<bool, PassThroughError> {
        let [length, capable] = self.word(at + 2).to_le_bytes();
        let is_possible =
            u16::from(length) == features::LENGTH && capable & features::CAPABLE == features::CAPABLE;
        if !is_possible || !self.is_first(at, features::ID) || !self.take_body(at, features::LENGTH) {
            return Ok(false);
        }
        add_all(&mut self.space, features::registers(at))?;
        Ok(true)
    }

    fn add_vendor(&mut self, at: u16) -> Result<bool, PassThroughError> {
        let length = self.config.u8(usize::from(at) + 2).unwrap_or_default();
        if length < 3 || !self.take_body(at, length.into()) {
            return Ok(false);
        }
        add_all(&mut self.space, vendor::bytes(at, length))?;
        // Whole dwords as wide as the guest accesses them: reading what it does not write could do something.
        self.model.passed |= vendor::dwords(at, length).fold(0, |passed, offset| passed | 1 << (offset / 4));
        Ok(true)
    }

    /// Whether no other of this ID comes before it: there is one of each but for vendor-specific ones.
    fn is_first(&self, at: u16, id: u8) -> bool {
        first_of(self.config, id) == Some(at)
    }
}

fn first_of(config: ConfigSpace<'_>, id: u8) -> Option<u16> {
    crate::device::find_capability(config, id).map(u16::from)
}

/// How many bytes a capability has at least, if it is none that tells by itself.
const fn least_length(id: u8) -> usize {
    /// Vital Product Data, PCI-X, and the subsystem of a bridge.
    const VPD: u8 = 0x03;
    const PCI_X: u8 = 0x07;
    const SUBSYSTEM: u8 = 0x0d;
    match id {
        power::ID | VPD | PCI_X | SUBSYSTEM | features::ID => 8,
        msi::ID => 10,
        msix::ID => 12,
        express::ID => 0x14,
        _ => HEADER as usize,
    }
}
