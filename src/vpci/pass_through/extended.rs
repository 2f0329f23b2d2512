//! The list of extended capabilities: the host sees all but those that could not be modelled, a guest at most that of
//! resizable BARs.

use alloc::vec::Vec;

use super::{Build, PassThrough, PassThroughError};
use crate::device::{ExtendedCapability, FULL_SIZE, walk_extended_capabilities};
use crate::memory::NoMemory;
use crate::platform::Width;
use crate::vpci::capability::{Sriov, chain, hardware, rebar, sriov};
use crate::vpci::endpoint::add_all;

const HEADER: u16 = 4;

/// Adds what is shown.
pub(super) fn add(build: &mut Build<'_>, wanted: &PassThrough) -> Result<(), PassThroughError> {
    if !build.is_for_guest() && !build.config.has_extended() {
        // Whatever hardware has there.
        return Ok(());
    }
    let mut shown = Vec::new();
    for capability in walk_extended_capabilities(build.config).flatten() {
        // Each has a dword of its own, so its header is free.
        build.occupied.take(capability.offset..capability.offset + HEADER);
        shown.try_reserve(1).map_err(NoMemory::from)?;
        shown.push(chain::ShownExtended {
            at: capability.offset,
            id: capability.id,
            version: capability.version,
        });
    }
    // No more memory is needed for what is taken out again.
    let mut failed = Ok(());
    shown.retain(|chain::ShownExtended { at, id, version }| {
        let capability = ExtendedCapability { offset: *at, id: *id, version: *version };
        let is_shown = failed.and_then(|()| build.add_extended(capability, wanted));
        is_shown.unwrap_or_else(|error| {
            failed = Err(error);
            false
        })
    });
    failed?;
    chain::link_extended(&mut build.space, &shown)?;
    Ok(())
}

impl Build<'_> {
    /// Adds the registers of one, but for its header. Whether it is shown.
    fn add_extended(
        &mut self,
        ExtendedCapability { offset: at, id, .. }: ExtendedCapability,
        wanted: &PassThrough,
    ) -> Result<bool, PassThroughError> {
        match (id, self.is_for_guest()) {
            (rebar::ID, false) => self.add_rebar(at),
            (rebar::ID, true) if wanted.resizes => self.add_rebar(at),
            (sriov::ID, false) => self.add_sriov(at, wanted),
            (_, is_for_guest) => Ok(!is_for_guest),
        }
    }

    fn take_extended_body(&mut self, at: u16, length: u16) -> bool {
        usize::from(at + length) <= FULL_SIZE && self.occupied.take(at + HEADER..at + length)
    }

    fn add_rebar(&mut self, at: u16) -> Result<bool, PassThroughError> {
        let is_first = self.model.resizable.iter().all(Option::is_none);
        let found = if is_first { rebar::read(self.config, at, self.model) } else { None };
        let Some(found) = found.filter(|found| self.take_extended_body(at, found.length())) else {
            return self.guard_all(rebar::controls(self.config, at), Width::Dword);
        };
        add_all(&mut self.space, found.registers(at))?;
        for (slot, resizable) in found.bars() {
            if let Some(place) = self.model.resizable.get_mut(usize::from(slot)) {
                *place = Some(resizable);
            }
        }
        Ok(true)
    }

    fn add_sriov(&mut self, at: u16, wanted: &PassThrough) -> Result<bool, PassThroughError> {
        let is_possible = self.model.sriov.is_none() && wanted.virtual_function.is_none();
        if !is_possible || !self.take_extended_body(at, sriov::LENGTH) {
            return self.guard_all(sriov::controls(at), Width::Word);
        }
        let Some(found) = Sriov::new(self.config, at, self.model, wanted.virtual_bars)? else {
            // Its bytes are taken already: by itself.
            add_all(&mut self.space, sriov::controls(at).map(|offset| hardware::shown(offset, Width::Word)))?;
            return Ok(false);
        };
        self.model.sriov = Some(found);
        add_all(&mut self.space, sriov::registers(at))?;
        Ok(true)
    }

    /// It is hidden: the host, which can guess where it is, may look at its control registers and not write.
    fn guard_all(
        &mut self,
        controls: impl IntoIterator<Item = u16>,
        width: Width,
    ) -> Result<bool, PassThroughError> {
        if self.is_for_guest() {
            return Ok(false);
        }
        for control in controls {
            if self.occupied.take(control..control.saturating_add(width as u16)) {
                self.space.add(hardware::shown(control, width))?;
            }
        }
        Ok(false)
    }
}
