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

/// What the registers held before they were changed, in the order of the changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quiesced {
    before: [Option<(u16, u32)>; 3],
}

impl Quiesced {
    /// The device was silenced meanwhile: its bus mastering stays off.
    pub(super) fn forget_mastering(&mut self) {
        for (register, value) in self.before.iter_mut().flatten() {
            if *register == COMMAND {
                *value &= !BUS_MASTER;
            }
        }
    }
}

/// Switches MSI, MSI-X and bus mastering off. Under the device's lock. `quiesced` is right at any moment: an access
/// may panic.
///
/// The function mask of MSI-X is left alone: it is the host's, and a device that nobody resets would keep it.
pub(super) fn quiesce<P: Platform>(platform: &P, at: Sbdf, known: &Known<P::Lock>, quiesced: &mut Quiesced) {
    let registers = [
        (known.msi.map(|capability| capability + CONTROL), MSI_ENABLE),
        (known.msix.map(|capability| capability + CONTROL), MSIX_ENABLE),
        (Some(COMMAND), BUS_MASTER),
    ];
    for ((register, bit), before) in registers.into_iter().zip(&mut quiesced.before) {
        let Some(register) = register else { continue };
        let value = platform.config_read(at, register, Width::Word) & 0xffff;
        if value & bit != 0 {
            *before = Some((register, value));
            platform.config_write(at, register, Width::Word, value & !bit);
        }
    }
}

/// Writes back what the registers held, the last change first.
pub(super) fn resume<P: Platform>(platform: &P, at: Sbdf, quiesced: Quiesced) {
    for (register, value) in quiesced.before.into_iter().rev().flatten() {
        platform.config_write(at, register, Width::Word, value);
    }
}

/// Whether address translation services are on. Under the device's lock.
pub(super) fn is_ats_on<P: Platform>(platform: &P, at: Sbdf, ats: u16) -> bool {
    platform.config_read(at, ats + ATS_CONTROL, Width::Word) & ATS_ENABLE != 0
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
