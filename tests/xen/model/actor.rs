//! The parties.

use pcidevs::xen::pciback::PcibackError;
use pcidevs::xen::store::StoreError;

use super::driver::Driver;
use super::frontend::Frontend;
use super::replay::Replay;

/// Something a tool stack does.
pub(super) type Deed = fn(&mut Replay<'_>) -> Result<(), PcibackError>;

/// A tool stack, or an administrator: one deed after the other.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    pub(super) deeds: &'static [Deed],
    /// What came of those that are done.
    pub(super) done: Vec<Result<(), PcibackError>>,
    /// Whether its time can be up, at its first deed.
    pub(super) impatient: bool,
    /// Whether a guest can die of it.
    pub(super) deadly: bool,
}

impl Tool {
    pub(super) fn patient(deeds: &'static [Deed]) -> Actor {
        Actor::Tool(Self { deeds, done: Vec::new(), impatient: false, deadly: false })
    }

    pub(super) fn deadly(deeds: &'static [Deed]) -> Actor {
        Actor::Tool(Self { deeds, done: Vec::new(), impatient: false, deadly: true })
    }

    pub(super) fn impatient(deeds: &'static [Deed]) -> Actor {
        Actor::Tool(Self { deeds, done: Vec::new(), impatient: true, deadly: false })
    }
}

/// A party, between two turns. Its deeds are its own and do not change, so they are no part of its state.
#[derive(Clone, Debug)]
pub(super) enum Actor {
    Tool(Tool),
    Driver(Driver),
    Frontend(Frontend),
}

impl std::hash::Hash for Actor {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self {
            Self::Tool(tool) => tool.done.hash(state),
            Self::Driver(driver) => driver.hash(state),
            Self::Frontend(frontend) => frontend.hash(state),
        }
    }
}

impl Actor {
    /// One turn: a deed, or what one event leads to. An error is a store that has not answered yet.
    pub(super) fn turn(&mut self, store: &mut Replay<'_>) -> Result<(), StoreError> {
        match self {
            Self::Tool(tool) => {
                let deed = tool.deeds[tool.done.len()];
                let result = deed(store);
                tool.done.push(result);
                Ok(())
            }
            Self::Driver(driver) => driver.turn(store),
            Self::Frontend(frontend) => frontend.turn(store),
        }
    }

    /// Whether there is nothing left to do.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Tool(tool) if tool.done.len() == tool.deeds.len())
    }

    pub(super) fn is_deadly(&self) -> bool {
        matches!(self, Self::Tool(tool) if tool.deadly && tool.done.len() < tool.deeds.len())
    }

    pub(super) fn is_impatient(&self) -> bool {
        matches!(self, Self::Tool(tool) if tool.impatient && tool.done.is_empty())
    }
}
