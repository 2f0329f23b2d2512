//! What the handlers of a function's registers work on.

use alloc::boxed::Box;

use super::bar::{BarSet, Bars};
use super::command::Command;
use crate::platform::Width;
use crate::vpci::backing::Backing;
use crate::vpci::capability::{Interrupts, Power, PowerState, Resizable, Sriov};
use crate::vpci::registers::{Behind, all_bits};

/// Only capabilities are passed through, and those are below this.
const PASSED_END: u16 = 0x100;

/// For whom the model is made: what he may see and do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Viewer {
    /// The host: what is not modelled is the hardware's.
    Host,
    /// A guest: it sees what is modelled, and nothing else.
    Guest,
}

/// The state of one function.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says one thing of the function, and they are independent"
)]
pub(in crate::vpci) struct Model {
    pub(in crate::vpci) viewer: Viewer,
    pub(in crate::vpci) backing: Box<dyn Backing>,
    /// Whether there is configuration space of hardware behind the model.
    pub(in crate::vpci) is_hardware: bool,
    /// What is between registers reads 0, not ones.
    pub(in crate::vpci) has_zero_gaps: bool,
    pub(in crate::vpci) is_vf: bool,
    pub(in crate::vpci) is_bridge: bool,
    /// I/O BARs can be mapped.
    pub(in crate::vpci) maps_io: bool,
    /// The host may look and not touch.
    pub(in crate::vpci) is_read_only: bool,
    pub(in crate::vpci) command: Command,
    /// The status register's errors, without hardware.
    pub(in crate::vpci) status: u16,
    pub(in crate::vpci) bars: Bars,
    pub(in crate::vpci) interrupts: Interrupts,
    pub(in crate::vpci) power: Power,
    /// What the outside was last told of the two.
    pub(in crate::vpci) told: Activity,
    /// What the device asked for, in its own numbers.
    pub(in crate::vpci) wishes: u64,
    /// The bus numbers of a bridge: primary, secondary, subordinate.
    pub(in crate::vpci) buses: [u8; 3],
    pub(in crate::vpci) virtual_functions: u16,
    /// The guest's own copy of Device Control.
    pub(in crate::vpci) device_control: u16,
    /// Dwords of the first 256 bytes that a guest reaches in hardware: a bit each.
    pub(in crate::vpci) passed: u64,
    /// BARs whose size can be chosen.
    pub(in crate::vpci) resizable: [Option<Resizable>; 6],
    /// The virtual functions that it can show.
    pub(in crate::vpci) sriov: Option<Box<Sriov>>,
}

/// Whether a function masters the bus, and its power state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::vpci) struct Activity {
    pub(in crate::vpci) is_master: bool,
    pub(in crate::vpci) power: PowerState,
}

impl Model {
    /// A function of which nothing is known yet.
    pub(in crate::vpci) fn new(backing: Box<dyn Backing>, viewer: Viewer) -> Self {
        Self {
            viewer,
            backing,
            is_hardware: false,
            has_zero_gaps: false,
            is_vf: false,
            is_bridge: false,
            maps_io: true,
            is_read_only: false,
            command: Command::default(),
            status: 0,
            bars: Bars::default(),
            interrupts: Interrupts::default(),
            power: Power::new(false),
            told: Activity::default(),
            wishes: 0,
            buses: [0; 3],
            virtual_functions: 0,
            device_control: 0,
            passed: 0,
            resizable: [None; 6],
            sriov: None,
        }
    }

    pub(in crate::vpci) fn has_hardware(&self) -> bool {
        self.is_hardware
    }

    /// Whether a guest reaches this dword in hardware.
    fn is_passed(&self, offset: u16) -> bool {
        offset < PASSED_END && self.passed >> (offset / 4) & 1 != 0
    }

    pub(in crate::vpci) fn read_hardware(&mut self, offset: u16, width: Width) -> Option<u32> {
        self.is_hardware.then(|| self.backing.config_read(offset, width) & all_bits(width))
    }

    pub(in crate::vpci) fn write_hardware(&mut self, offset: u16, width: Width, value: u32) {
        if self.is_hardware && !self.is_read_only {
            self.backing.config_write(offset, width, value);
        }
    }

    /// The BARs that are to be mapped.
    pub(in crate::vpci) fn wanted_bars(&self) -> BarSet {
        if self.power.state() != PowerState::D0 {
            return 0;
        }
        self.bars.wanted(self.command.is_memory_wanted(), self.command.is_io_wanted() && self.maps_io)
    }

    /// Whether a BAR is mapped or about to be: then it stays where it is.
    pub(in crate::vpci) fn is_decoding(&self, bar: u8) -> bool {
        (self.wanted_bars() | self.bars.mapped | self.bars.coming) & (1 << bar) != 0
    }
}

impl Behind for Model {
    #[inline]
    fn read_gap(&mut self, offset: u16, width: Width) -> u32 {
        match self.viewer {
            Viewer::Guest if self.is_passed(offset) => {
                self.read_hardware(offset, width).unwrap_or(all_bits(width))
            }
            Viewer::Guest if self.has_zero_gaps => 0,
            Viewer::Guest => all_bits(width),
            Viewer::Host => self.read_hardware(offset, width).unwrap_or(all_bits(width)),
        }
    }

    #[inline]
    fn write_gap(&mut self, offset: u16, width: Width, value: u32) {
        if self.viewer == Viewer::Host || self.is_passed(offset) {
            self.write_hardware(offset, width, value);
        }
    }
}
