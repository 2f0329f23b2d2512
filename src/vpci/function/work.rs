//! From effects to work: what is to be done outside, as the model says at the moment it is begun, and what comes of it.

use core::ops::Range;

use super::bar::{ALL, Bar, BarSet};
use super::effect::Effect;
use super::model::Model;
use crate::platform::Switch;
use crate::vpci::capability::{Level, PowerState, VectorWork};

/// Who answers for what lies below this, in bytes: what a guest's page tables can tell apart.
const PAGE: u64 = 4096;

/// A BAR that is to be mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vpci) struct Mapping {
    pub(in crate::vpci) number: u8,
    pub(in crate::vpci) bar: Bar,
    pub(in crate::vpci) base: u64,
    /// What of it has to come to the model; all of it, unless it is mapped directly.
    pub(in crate::vpci) trapped: [Option<Range<u64>>; 2],
}

/// What is to be done outside the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vpci) enum Work {
    /// These BARs are to be unmapped; what is to be mapped then, `mappings` tells.
    Decode {
        disable: BarSet,
    },
    Vector(u16, VectorWork),
    Intx(Level),
    BusMaster(Switch),
    Power(PowerState),
    Reset,
    Buses([u8; 3]),
    VirtualFunctions(u16),
    Device(u64),
}

impl Model {
    /// What an effect is now; `None` if there is nothing left to do for it.
    pub(super) fn work(&mut self, effect: Effect) -> Option<Work> {
        Some(match effect {
            Effect::Decode => {
                let wanted = self.wanted_bars();
                let disable = self.bars.mapped & !wanted;
                let enable = wanted & !self.bars.mapped;
                if disable == 0 && enable == 0 {
                    self.show_what_is();
                    return None;
                }
                self.bars.coming = enable;
                Work::Decode { disable }
            }
            Effect::Vectors => {
                let (vector, work) = self.interrupts.next_work()?;
                Work::Vector(vector, work)
            }
            Effect::Intx => {
                let level = self.interrupts.intx_level(self.command.is_intx_disabled());
                if core::mem::replace(&mut self.interrupts.intx.told, level) == level {
                    return None;
                }
                Work::Intx(level)
            }
            Effect::BusMaster => {
                self.told.is_master = self.command.is_master();
                Work::BusMaster(if self.command.is_master() { Switch::On } else { Switch::Off })
            }
            Effect::Power => {
                self.told.power = self.power.state();
                Work::Power(self.told.power)
            }
            Effect::Reset => Work::Reset,
            Effect::Buses => Work::Buses(self.buses),
            Effect::VirtualFunctions => Work::VirtualFunctions(self.virtual_functions),
            Effect::Device => Work::Device(core::mem::take(&mut self.wishes)),
        })
    }

    /// What is to be mapped of the BARs that are coming.
    pub(super) fn mappings(&self) -> [Option<Mapping>; ALL] {
        let mut mappings = [const { None }; ALL];
        for (number, place) in
            (0..).zip(&mut mappings).filter(|(number, _)| self.bars.coming & (1 << number) != 0)
        {
            *place = self.mapping(number);
        }
        mappings
    }

    fn mapping(&self, number: u8) -> Option<Mapping> {
        let placed = self.bars.get(number)?;
        let size = placed.bar.size;
        let mut trapped = [const { None }; 2];
        if placed.bar.is_direct {
            let parts = self.interrupts.msix.as_ref().map(|msix| msix.parts_in(number)).unwrap_or_default();
            trapped = parts.map(|part| part.map(|part| whole_pages(part, size)));
        } else {
            trapped[0] = Some(0..size);
        }
        Some(Mapping { number, bar: placed.bar, base: placed.address, trapped })
    }

    /// These BARs were unmapped.
    pub(super) fn unmapped(&mut self, bars: BarSet) {
        self.bars.mapped &= !bars;
        self.show_what_is();
    }

    /// What was to be done for decoding has been done: these BARs are mapped now, or refused and reported.
    pub(super) fn decoded(&mut self, disabled: BarSet, enabled: BarSet) {
        self.bars.coming = 0;
        self.bars.mapped = self.bars.mapped & !disabled | enabled;
        self.show_what_is();
    }

    /// What was to be mapped could not be: decoding is off, but for what is still mapped.
    pub(super) fn not_decoded(&mut self, disabled: BarSet) {
        self.bars.coming = 0;
        self.bars.mapped &= !disabled;
        self.show_what_is();
        self.command.give_up_decoding();
        self.bars.rom_enabled &= self.bars.mapped & (1 << super::bar::ROM) != 0;
    }

    /// The command register shows decoding of memory, or of ports, while one of those BARs is mapped, and when it is
    /// wanted and none is left to be mapped. Not what is wanted at this moment: that may have changed meanwhile.
    fn show_what_is(&mut self) {
        let (all, mapped) = (&self.bars.all, self.bars.mapped);
        let has = |bars: BarSet, io: bool| {
            let is_of = |(bar, placed): (usize, &Option<super::bar::Placed>)| {
                bars & 1 << bar != 0 && placed.is_some_and(|placed| placed.bar.is_io() == io)
            };
            all.iter().enumerate().any(is_of)
        };
        let left = self.wanted_bars() & !mapped;
        let shows = |is_wanted: bool, io: bool| has(mapped, io) || is_wanted && !has(left, io);
        let memory = shows(self.command.is_memory_wanted(), false);
        let io = shows(self.command.is_io_wanted(), true);
        self.command.show(memory, io);
        self.write_command();
    }
}

/// The pages that a part of a BAR touches.
fn whole_pages(part: Range<u64>, size: u64) -> Range<u64> {
    part.start & !(PAGE - 1)..part.end.next_multiple_of(PAGE).min(size)
}
