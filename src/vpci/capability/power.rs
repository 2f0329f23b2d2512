//! Power management, as little of it as a function may have: D0 and D3hot (PCIe 6.0 §7.5.2).

use crate::platform::Width;
use crate::vpci::function::{Effect, Effects, Model};
use crate::vpci::registers::{At, Read, Register, Write};

pub(in crate::vpci) const ID: u8 = 0x01;
/// In bytes.
pub(in crate::vpci) const LENGTH: u16 = 8;

const CAPABILITIES: u16 = 2;
const CONTROL: u16 = 4;
/// Version 3, neither D1 nor D2, no PME.
const VERSION: u32 = 3;
const STATE: u32 = 3;
const NO_SOFT_RESET: u32 = 1 << 3;

/// A power state that is modelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PowerState {
    /// On.
    #[default]
    D0,
    /// Configuration space answers, BARs do not.
    D3hot,
}

/// The state of a function.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::vpci) struct Power {
    state: PowerState,
    /// Coming back from D3hot resets it.
    soft_reset: bool,
}

impl Power {
    pub(in crate::vpci) const fn new(soft_reset: bool) -> Self {
        Self { state: PowerState::D0, soft_reset }
    }

    pub(in crate::vpci) const fn state(self) -> PowerState {
        self.state
    }

    pub(in crate::vpci) fn set(&mut self, state: PowerState) {
        self.state = state;
    }

    pub(in crate::vpci) fn reset(&mut self) {
        self.state = PowerState::D0;
    }
}

/// The registers of a capability at this place, but for its header.
pub(in crate::vpci) fn registers(at: u16) -> [Register<Model, Effects>; 3] {
    [
        Register::constant(at + CAPABILITIES, Width::Word, VERSION),
        Register::new(at + CONTROL, Width::Word, Read::Handler(read), Write::Handler(write)),
        Register::constant(at + CONTROL + 2, Width::Word, 0),
    ]
}

fn read(model: &mut Model, _: At) -> u32 {
    let state = if model.power.state == PowerState::D0 { 0 } else { 3 };
    state | if model.power.soft_reset { 0 } else { NO_SOFT_RESET }
}

fn write(model: &mut Model, _: At, value: u32) -> Option<Effects> {
    // A state that the function does not have is not taken (PCIe 6.0 §7.5.2.2).
    let state = match value & STATE {
        0 => PowerState::D0,
        3 => PowerState::D3hot,
        _ => return None,
    };
    if state == model.power.state {
        return None;
    }
    let resets = state == PowerState::D0 && model.power.soft_reset;
    model.power.state = state;
    let decodes = model.command.is_memory_wanted() || model.command.is_io_wanted();
    let effects = Effects::from(Effect::Power).and_if(decodes, Effect::Decode);
    effects.and_if(resets, Effect::Reset).or_none()
}
