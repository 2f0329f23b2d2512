//! Carrying out what the BAR map of a guest says, one step at a time.
//!
//! The map is under a leaf lock; the embedder's steps run without it. A step of one device may uncover what another
//! device has below, so all steps of a guest go one after the other: whoever changes the map first carries out steps
//! until none is left, those of others too; who comes meanwhile waits until his are among those done.
//!
//! # Invariants
//!
//! At most one thread is the mapper. What is published for dispatch is what the map says, from before the first step of
//! a change on.

use alloc::vec::Vec;
use core::cell::Cell;
use core::num::NonZeroUsize;
use core::ops::Range;

use super::buses::Buses;
use super::buses::PortError;
use super::remembered::{self, Part};
use super::routes::{Route, Routes};
use super::waiting::{self, Waits};
use super::wiring::{Target, Wiring};
use crate::address::{Bus, Sbdf};
use crate::memory::NoMemory;
use crate::platform::HookError;
use crate::sync::{Lock, RawLock, Site, weakened};
use crate::vpci::bar_map::{BarMap, BarMapError, BarSpace, Bars, Change, Refusal, Region};
use crate::vpci::function::{BarSet, Mapping};

/// The most BARs a function has.
const ALL: usize = 7;

/// Where a guest's addresses lead: its BARs, the map and the tables by which they are found, and its bus numbers.
pub(super) struct Mapper<L: RawLock> {
    state: Lock<State, L>,
    pub(super) memory: Routes,
    pub(super) ports: Routes,
    pub(super) buses: Buses<L>,
}

struct State {
    map: BarMap,
    /// The devices that have BARs enabled.
    places: Vec<Place>,
    /// Changes of the map, and up to which all steps are done.
    asked: u64,
    settled: u64,
    /// The thread that is the mapper.
    mapper: Option<NonZeroUsize>,
}

/// A device that has BARs enabled.
struct Place {
    target: Target,
    /// What the last step of it that failed said, since its last change.
    error: Option<HookError>,
}

/// What became of a change.
pub(super) struct Outcome {
    /// BARs that were to be unmapped and are still mapped.
    pub(super) stuck: BarSet,
    /// BARs that were to be mapped, and are; `Err` if one of them is not, and then none of them is.
    pub(super) enabled: Result<BarSet, HookError>,
    pub(super) refused: Vec<Refusal>,
}

const NO_MEMORY: HookError = HookError::new(crate::errno::Errno::ENOMEM, "no memory for the BAR map");
pub(super) const NOT_UNMAPPED: HookError =
    HookError::new(crate::errno::Errno::EIO, "a BAR could not be unmapped");

/// All steps of a guest are one at a time, so this one would wait for itself.
const OWN_HOOK: HookError = HookError::new(
    crate::errno::Errno::EDEADLK,
    "BARs cannot be mapped or unmapped within a map or unmap hook",
);

impl<L: RawLock> Mapper<L> {
    pub(super) fn new(map: BarMap) -> Self {
        let state = State { map, places: Vec::new(), asked: 0, settled: 0, mapper: None };
        Self { state: Lock::new(state), memory: Routes::new(), ports: Routes::new(), buses: Buses::new() }
    }

    /// There is a port at this home, and what is behind it is at home on that bus.
    pub(super) fn add_port(&self, at: Sbdf, behind: Bus) -> Result<(), PortError> {
        self.buses.add(at, behind)?;
        self.renumbered();
        Ok(())
    }

    /// The guest has programmed the port at this home: primary, secondary and subordinate.
    pub(super) fn program_port(&self, at: Sbdf, numbers: [u8; 3]) {
        self.buses.program(at, numbers);
        self.renumbered();
    }

    /// What is remembered of configuration space is by the old bus numbers.
    fn renumbered(&self) {
        let _state = self.state.lock();
        self.memory.renew();
    }

    /// Which BAR answers at an address, by the map itself.
    pub(super) fn find(&self, space: BarSpace, address: u64) -> Option<remembered::Place> {
        let state = self.state.lock();
        let (id, offset) = state.map.at(space, address)?;
        Some(remembered::Place { seen_at: state.seen_at(id.device)?, part: Part::Bar(id.bar), offset })
    }

    /// Disables these BARs of a device, then enables those, and returns when all of it is done.
    pub(super) fn change(
        &self,
        wiring: &impl Wiring,
        target: Target,
        disable: BarSet,
        enable: &[Option<Mapping>; ALL],
    ) -> Outcome {
        let device = target.device;
        let mut state = self.state.lock();
        if state.mapper == Some(L::current()) {
            return Outcome { stuck: disable, enabled: Err(OWN_HOOK), refused: Vec::new() };
        }
        if let Some(place) = state.place(device) {
            place.error = None;
        }
        for bar in numbers(disable) {
            state.map.disable(device, Bars::One(bar));
        }
        let coming: BarSet = enable.iter().flatten().map(|mapping| 1 << mapping.number).sum();
        let refused = match self.enable(&mut state, target, enable) {
            Ok(refused) => refused,
            Err(error) => {
                drop(state);
                let stuck = self.settle(wiring, device, disable);
                return Outcome { stuck, enabled: Err(error), refused: Vec::new() };
            }
        };
        drop(state);
        let stuck = self.settle(wiring, device, disable);
        // Not whether something is missing now: another device may have uncovered it this instant.
        let Some(error) = self.state.lock().place(device).and_then(|place| place.error.take()) else {
            return Outcome { stuck, enabled: Ok(coming), refused };
        };
        // Not all of them: then none.
        let mut state = self.state.lock();
        for bar in numbers(coming) {
            state.map.disable(device, Bars::One(bar));
        }
        drop(state);
        let stuck = stuck | self.settle(wiring, device, coming);
        Outcome { stuck, enabled: Err(error), refused }
    }

    /// These BARs of a device answer no more. What is mapped of them is unmapped with the next change.
    pub(super) fn forget(&self, device: Sbdf, bars: BarSet) {
        let mut state = self.state.lock();
        for bar in numbers(bars) {
            state.map.disable(device, Bars::One(bar));
        }
        self.publish(&state);
    }

    /// Disables all BARs of a device. Which are mapped all the same, and why.
    pub(super) fn disable_all(&self, wiring: &impl Wiring, device: Sbdf) -> (BarSet, Result<(), HookError>) {
        let mut state = self.state.lock();
        if state.mapper == Some(L::current()) {
            return (BarSet::MAX, Err(OWN_HOOK));
        }
        state.map.disable(device, Bars::All);
        drop(state);
        let stuck = self.settle(wiring, device, BarSet::MAX);
        if stuck == 0 {
            return (0, Ok(()));
        }
        let error = self.state.lock().place(device).and_then(|place| place.error.take());
        (stuck, Err(error.unwrap_or(NOT_UNMAPPED)))
    }

    fn enable(
        &self,
        state: &mut State,
        target: Target,
        enable: &[Option<Mapping>; ALL],
    ) -> Result<Vec<Refusal>, HookError> {
        if enable.iter().all(Option::is_none) {
            return Ok(Vec::new());
        }
        state.put_place(target).map_err(|NoMemory| NO_MEMORY)?;
        let holes: [[Range<u64>; 2]; ALL] = core::array::from_fn(|bar| match &enable[bar] {
            Some(mapping) => mapping.trapped.clone().map(|hole| hole.unwrap_or(0..0)),
            None => [0..0, 0..0],
        });
        let mut regions = [const { None }; ALL];
        let mut count = 0;
        for (mapping, holes) in enable.iter().zip(&holes) {
            let Some(mapping) = mapping else { continue };
            let space = if mapping.bar.is_io() { BarSpace::Io } else { BarSpace::Memory };
            let (bar, base, size) = (mapping.number, mapping.base, mapping.bar.size());
            regions[count] = Some(Region { bar, space, base, size, holes });
            count += 1;
        }
        // Compact by construction: the first `count` are there.
        let mut list: Vec<Region<'_>> = Vec::new();
        list.try_reserve_exact(count).map_err(|_| NO_MEMORY)?;
        list.extend(regions.into_iter().flatten());
        let most = 2 * (state.map.len() + count);
        self.memory.reserve(most).and_then(|()| self.ports.reserve(most)).map_err(|NoMemory| NO_MEMORY)?;
        state.map.enable(target.device, &list).map_err(|error| match error {
            BarMapError::NoMemory(_) => NO_MEMORY,
            _ => HookError::new(crate::errno::Errno::EEXIST, "the BAR is enabled already"),
        })
    }

    /// Publishes the map as it is now, and sees to it that every step that it needs is done. Which of these BARs of the
    /// device are mapped nevertheless.
    fn settle(&self, wiring: &impl Wiring, device: Sbdf, of: BarSet) -> BarSet {
        let mut state = self.state.lock();
        state.asked += 1;
        let mine = state.asked;
        self.publish(&state);
        if state.mapper.is_some() && !weakened(Site::OneMapper) {
            drop(state);
            waiting::until(self, wiring, || self.state.lock().settled >= mine);
        } else {
            state.mapper = Some(L::current());
            drop(state);
            let turn = Turn { mapper: self, is_over: Cell::new(false) };
            while let Some(change) = turn.next() {
                if let Err(error) = waiting::guarded(|| carry_out(wiring, &change)) {
                    self.failed(wiring, device, &change, error);
                }
            }
        }
        let state = self.state.lock();
        let mapped = state.map.in_place().filter(|piece| piece.id.device == device);
        mapped.fold(0, |set, piece| set | 1 << piece.id.bar) & of
    }

    /// A step has failed. Of a device that is not this thread's nobody else will say so.
    fn failed(&self, wiring: &impl Wiring, mine: Sbdf, change: &Change, error: HookError) {
        let mut state = self.state.lock();
        state.map.failed();
        let Some(place) = state.place(device_of(change)) else { return };
        place.error = Some(error);
        let target = place.target;
        drop(state);
        if target.device != mine {
            waiting::report(wiring, target, error);
        }
    }

    fn publish(&self, state: &State) {
        for (space, routes) in [(BarSpace::Memory, &self.memory), (BarSpace::Io, &self.ports)] {
            let pieces = || state.map.visible().filter(move |piece| piece.space == space);
            let route = |piece: crate::vpci::bar_map::Piece| {
                let addresses = piece.base..=piece.base + (piece.length - 1);
                let seen_at = state.seen_at(piece.id.device)?;
                Some(Route { addresses, seen_at, bar: piece.id.bar, offset: piece.offset })
            };
            routes.publish(pieces().filter_map(route), pieces().count());
        }
    }
}

impl State {
    fn seen_at(&self, device: Sbdf) -> Option<Sbdf> {
        self.places.iter().find(|place| place.target.device == device).map(|place| place.target.seen_at)
    }

    fn place(&mut self, device: Sbdf) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.target.device == device)
    }

    fn put_place(&mut self, target: Target) -> Result<(), NoMemory> {
        // Those that have left are forgotten here, where there may be no memory for more.
        let Self { map, places, .. } = self;
        places.retain(|place| place.target.device != target.device && map.has(place.target.device));
        places.try_reserve(1).map_err(NoMemory::from)?;
        places.push(Place { target, error: None });
        Ok(())
    }
}

/// The mapper's turn, which ends in any case.
struct Turn<'a, L: RawLock> {
    mapper: &'a Mapper<L>,
    is_over: Cell<bool>,
}

impl<L: RawLock> Turn<'_, L> {
    fn next(&self) -> Option<Change> {
        let mut state = self.mapper.state.lock();
        let change = state.map.next_change();
        if change.is_none() {
            // Here and not in `drop`: between this look and that somebody could come and rely on this turn.
            state.settled = state.asked;
            state.mapper = None;
            self.is_over.set(true);
        }
        change
    }
}

impl<L: RawLock> Drop for Turn<'_, L> {
    fn drop(&mut self) {
        if !self.is_over.get() {
            // A hook's panic is on its way through here. Who waits is not kept waiting; what is left, the next one does.
            let mut state = self.mapper.state.lock();
            state.settled = state.asked;
            state.mapper = None;
        }
        self.mapper.wake();
    }
}

impl<L: RawLock> Waits for Mapper<L> {
    type Lock = L;
}

fn carry_out(wiring: &impl Wiring, change: &Change) -> Result<(), HookError> {
    match change {
        Change::Map(piece) => wiring.map(piece.id.device, piece),
        Change::Unmap(piece) => wiring.unmap(piece.id.device, piece),
    }
}

const fn device_of(change: &Change) -> Sbdf {
    match change {
        Change::Map(piece) | Change::Unmap(piece) => piece.id.device,
    }
}

fn numbers(bars: BarSet) -> impl Iterator<Item = u8> {
    (0..8).filter(move |bar| bars & 1 << bar != 0)
}
