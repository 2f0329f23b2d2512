//! One function as a `PciDevice`.

use std::sync::{Arc, Barrier};
use std::vec::Vec;

use super::release::Releasers;
use super::shape::{BarReprogrammingParams, PciDevice};
use crate::address::Sbdf;
use crate::platform::Width;
use crate::sync::{RawLock, with_default_lock};
use crate::vpci::{Bus, Modelled, Wiring};

/// Registers of 4 bytes in configuration space.
const REGISTERS: usize = 1024;

with_default_lock! {
    /// A place on a guest's bus as a `PciDevice`, for the `PciBus` of a VMM that keeps its own.
    ///
    /// It is the place and not the device: while nothing is plugged there it reads ones. BARs are mapped by the bus
    /// itself, when decoding is turned on, so none is ever to be moved; accesses to them come through
    /// [`Memory`](super::Memory) and [`Ports`](super::Ports).
    pub struct Seat<D, W; L> {
        bus: Bus<D, W, L>,
        releasers: Releasers,
        at: Sbdf,
    }
}

impl<D: Modelled, W: Wiring, L: RawLock> Seat<D, W, L> {
    pub(super) fn new(bus: Bus<D, W, L>, releasers: Releasers, at: Sbdf) -> Self {
        Self { bus, releasers, at }
    }

    /// Where the guest sees it.
    pub fn address(&self) -> Sbdf {
        self.at
    }
}

impl<D, W, L> PciDevice for Seat<D, W, L>
where
    D: Modelled + Send + 'static,
    W: Wiring + 'static,
    L: RawLock + 'static,
{
    fn write_config_register(
        &mut self,
        reg_idx: usize,
        offset: u64,
        data: &[u8],
    ) -> (Vec<BarReprogrammingParams>, Option<Arc<Barrier>>) {
        let barrier = part(reg_idx, offset, data).and_then(|(at, width, value)| {
            let written = self.bus.config_write(self.at, at, width, value);
            self.releasers.barrier(written)
        });
        (Vec::new(), barrier)
    }

    fn read_config_register(&mut self, reg_idx: usize) -> u32 {
        match register(reg_idx) {
            Some(at) => self.bus.config_read(self.at, at, Width::Dword),
            None => u32::MAX,
        }
    }
}

fn register(reg_idx: usize) -> Option<u16> {
    let number = u16::try_from(reg_idx).ok().filter(|_| reg_idx < REGISTERS)?;
    Some(number * 4)
}

/// Offset, width and value of a write within one register; `None` if there is no such write.
fn part(reg_idx: usize, offset: u64, data: &[u8]) -> Option<(u16, Width, u32)> {
    let register = register(reg_idx)?;
    let (width, value) = match *data {
        [byte] => (Width::Byte, byte.into()),
        [low, high] => (Width::Word, u16::from_le_bytes([low, high]).into()),
        [b0, b1, b2, b3] => (Width::Dword, u32::from_le_bytes([b0, b1, b2, b3])),
        _ => return None,
    };
    let within = u16::try_from(offset).ok().filter(|within| *within < 4)?;
    usize::from(within).is_multiple_of(data.len()).then_some((register + within, width, value))
}

impl<D, W, L: RawLock> core::fmt::Debug for Seat<D, W, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Seat").field(&self.at).finish()
    }
}
