//! What a reset reaches.

use super::function::Function;
use super::places::Places;
use crate::address::{Bus, DevFn, Sbdf};
use crate::platform::{ResetScope, Width};

const HEADER_TYPE: u16 = 0x0e;
const MULTIFUNCTION: u32 = 0x80;
const BRIDGE: u32 = 1;
const BUS_NUMBERS: u16 = 0x18;

impl Places {
    /// Resets every function that is in the scope and there.
    #[inline]
    pub(super) fn reset(&self, device: Sbdf, scope: ResetScope) {
        match scope {
            ResetScope::Function => self.reset_function(device),
            ResetScope::Slot => self.reset_slot(device),
            ResetScope::Bus => self.reset_bus(device),
        }
    }

    fn reset_function(&self, function: Sbdf) {
        self.find(function).into_iter().for_each(Function::reset);
    }

    fn reset_slot(&self, device: Sbdf) {
        let functions = (0..8).filter_map(|function| DevFn::new(device.device(), function));
        functions.for_each(|devfn| self.reset_function(device.with_devfn(devfn)));
    }

    /// Resets the device's bus, and those behind the bridges there.
    fn reset_bus(&self, device: Sbdf) {
        let bus = |bus| self.bus(device.segment(), bus).into_iter().flatten();
        bus(device.bus()).for_each(Function::reset);
        // A bridge's range holds the ranges of those nested in it, and only buses of higher numbers than its own.
        let below = bus(device.bus()).filter_map(buses_below).flat_map(|(first, last)| first..=last);
        for below in below.filter(|below| *below > device.bus().number()) {
            bus(Bus::new(below)).for_each(Function::reset);
        }
    }
}

/// The first and last bus behind a bridge that has them.
fn buses_below(place: &Function) -> Option<(u8, u8)> {
    let registers = place.registers()?;
    let is_bridge = registers.read(HEADER_TYPE, Width::Byte) & !MULTIFUNCTION == BRIDGE;
    let [_, secondary, subordinate, _] = registers.read(BUS_NUMBERS, Width::Dword).to_le_bytes();
    (is_bridge && secondary != 0).then_some((secondary, subordinate))
}
