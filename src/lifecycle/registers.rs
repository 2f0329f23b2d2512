//! The few registers that transitions read and write themselves: bus mastering, the enables of MSI and MSI-X; and
//! whether ATS is on, which the platform switches.

use super::known::Known;
use crate::Sbdf;
use crate::platform::{Platform, Width};

const COMMAND: u16 = 0x04;
const BUS_MASTER: u32 = 1 << 2;
/// Message Control is two bytes into both capabilities.
const CONTROL: u16 = 2;
/// The Control register of the ATS capability (PCIe 6.0 §10.5.1.3).
const ATS_CONTROL: u16 = 6;
const ATS_ENABLE: u32 = 1 << 15;
const MSI_ENABLE: u32 = 1 << 0;
const MSIX_FUNCTION_MASK: u32 = 1 << 14;
const MSIX_ENABLE: u32 = 1 << 15;

/// What the registers held before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quiesced {
    command: u32,
    msi: Option<(u16, u32)>,
    msix: Option<(u16, u32)>,
    ats_on: bool,
}

impl Quiesced {
    /// Whether address translation services were on.
    pub(super) const fn has_ats_on(&self) -> bool {
        self.ats_on
    }
}

/// Reads what [`quiesce`] changes. Under the device's lock.
pub(super) fn before<P: Platform>(platform: &P, at: Sbdf, known: &Known<P::Lock>) -> Quiesced {
    let read = |offset: u16| platform.config_read(at, offset, Width::Word) & 0xffff;
    let control = |capability: u16| (capability + CONTROL, read(capability + CONTROL));
    Quiesced {
        command: read(COMMAND),
        msi: known.msi.map(control),
        msix: known.msix.map(control),
        ats_on: known.ats.is_some_and(|capability| read(capability + ATS_CONTROL) & ATS_ENABLE != 0),
    }
}

/// Masks MSI and MSI-X and switches bus mastering off. Under the device's lock.
pub(super) fn quiesce<P: Platform>(platform: &P, at: Sbdf, before: &Quiesced) {
    let change = |offset: u16, before: u32, after: u32| {
        if after != before {
            platform.config_write(at, offset, Width::Word, after);
        }
    };
    if let Some((offset, control)) = before.msi {
        change(offset, control, control & !MSI_ENABLE);
    }
    if let Some((offset, control)) = before.msix {
        let is_enabled = control & MSIX_ENABLE != 0;
        change(offset, control, if is_enabled { control | MSIX_FUNCTION_MASK } else { control });
    }
    change(COMMAND, before.command, before.command & !BUS_MASTER);
}

/// Writes back what the registers held.
pub(super) fn resume<P: Platform>(platform: &P, at: Sbdf, before: Quiesced) {
    platform.config_write(at, COMMAND, Width::Word, before.command);
    for (offset, control) in before.msix.into_iter().chain(before.msi) {
        platform.config_write(at, offset, Width::Word, control);
    }
}

/// Switches bus mastering off. Under the device's lock.
pub(super) fn stop_mastering<P: Platform>(platform: &P, at: Sbdf) {
    let command = platform.config_read(at, COMMAND, Width::Word) & 0xffff;
    platform.config_write(at, COMMAND, Width::Word, command & !BUS_MASTER);
}

/// Whether all vectors of an enabled MSI-X capability are masked as a whole. Under the device's lock.
pub(super) fn is_msix_masked<P: Platform>(platform: &P, at: Sbdf, msix: u16) -> bool {
    let control = platform.config_read(at, msix + CONTROL, Width::Word);
    control & (MSIX_ENABLE | MSIX_FUNCTION_MASK) == MSIX_ENABLE | MSIX_FUNCTION_MASK
}
