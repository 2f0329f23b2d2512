//! A removal's answer, held against what was so.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pcidevs::platform::{Dma, Entry};
use pcidevs::{Busy, Holder, Sbdf};

use super::ledger::Tick;
use super::life::Life;
use super::party::Party;
use super::statistics::Statistics;
use super::world::World;

/// A removal, from its beginning.
pub(crate) struct Call<'w> {
    world: &'w World,
    /// What is to leave, as far as it is there.
    lives: Vec<Arc<Life>>,
    begun: Tick,
}

impl<'w> Call<'w> {
    pub(crate) fn begin(world: &'w World, places: &[usize]) -> Self {
        let lives = places.iter().filter_map(|place| world.life(*place)).collect();
        Self { world, lives, begun: world.books().begin_checked_call() }
    }

    /// `Ok`: nobody had any of them, their destructors have run, and nothing of them reaches anybody any more. Returns
    /// how many there were.
    pub(crate) fn removed(self) -> u64 {
        let ended = self.world.books().tick();
        self.lives.iter().for_each(|life| drop(self.world.end_life(life.place)));
        self.lives.iter().for_each(|life| self.check_removed(life, ended));
        self.lives.iter().for_each(|life| self.world.platform().unplug(life.address));
        self.lives.len() as u64
    }

    fn check_removed(&self, life: &Life, ended: Tick) {
        let (world, address) = (self.world, life.address);
        for holder in world.books().certain(life.place, self.begun, ended) {
            world.violation_at(address, format_args!("{address} was removed while held: {holder}"));
        }
        let handles = life.handles.load(Ordering::SeqCst);
        if handles > 0 {
            world.violation_at(
                address,
                format_args!("{address} was removed while {handles} handles were in use"),
            );
        }
        if life.times_destroyed() != 1 {
            let times = life.times_destroyed();
            world.violation_at(
                address,
                format_args!("{address} was removed and its destructor ran {times} times"),
            );
        }
        if life.view.get() != Party::NOBODY || life.vector.get() != Party::NOBODY {
            world.violation_at(
                address,
                format_args!("{address} was removed and somebody still sees it, or is interrupted"),
            );
        }
        for requester in life.requesters.get().into_iter().flatten() {
            self.check_silent(address, *requester);
        }
    }

    /// Nothing lands any more that comes under this requester ID, unless it is another device's as well.
    fn check_silent(&self, address: Sbdf, requester: Sbdf) {
        let (world, platform) = (self.world, self.world.platform());
        let is_anothers = |place| {
            let life = world.life(place);
            life.is_some_and(|life| life.requesters.get().is_some_and(|ids| ids.contains(&requester)))
        };
        if (0..world.plan().len()).any(is_anothers) {
            return;
        }
        let (entry, dma) = (platform.entry(requester), platform.dma_raw(requester));
        if entry != Entry::Absent || dma != Dma::NoEntry {
            world.violation_at(
                address,
                format_args!(
                    "{address} was removed and the IOMMU has {entry:?} for {requester}: DMA is {dma}"
                ),
            );
        }
    }

    /// `Busy`: who is named may have had it, and who certainly had it is named.
    pub(crate) fn check_busy(&self, address: Sbdf, busy: &Busy, statistics: &mut Statistics) {
        let (world, ended) = (self.world, self.world.books().tick());
        let Some(place) = world.plan().find(address) else {
            return world.violation_at(address, format_args!("{address} is busy and was not asked for"));
        };
        for holder in &busy.holders {
            statistics.count_holder(*holder);
            if !self.is_possible(place, *holder, ended) {
                world.violation_at(
                    address,
                    format_args!("{address} is said to be held by somebody who did not hold it: {holder}"),
                );
            }
        }
        for holder in self.certain(place, ended) {
            if !busy.truncated && !names(busy, holder) {
                world.violation_at(
                    address,
                    format_args!("{address} is held and Busy does not say so: {holder}"),
                );
            }
        }
        let named = u32::try_from(busy.holders.len()).unwrap_or(u32::MAX);
        if busy.uses == 0 || busy.uses.saturating_sub(named) != busy.unnamed {
            world.violation_at(address, format_args!("{address}: the figures do not add up: {busy}"));
        }
        if busy.unnamed > 0 {
            *statistics.busy_by_holder.entry("unnamed".to_owned()).or_default() += 1;
        }
    }

    fn is_possible(&self, place: usize, holder: Holder, ended: Tick) -> bool {
        let may_have = |holder| self.world.books().possible(place, holder, self.begun, ended);
        match holder {
            // Only this thread adds and removes them.
            Holder::Vf(_) | Holder::Child(_) => self.depends(place, holder),
            // A hook failed, and what it was to undo may last until the repair.
            Holder::DmaOf(_) => self.world.mishaps().are_possible(),
            holder => may_have(holder),
        }
    }

    /// Whether there is a device that depends on this one by that name, and does not leave with it.
    fn depends(&self, place: usize, holder: Holder) -> bool {
        let mut holders = self.world.plan().holders(place);
        holders.any(|(below, name)| name == holder && self.stays(below))
    }

    fn stays(&self, place: usize) -> bool {
        self.world.life(place).is_some() && self.lives.iter().all(|life| life.place != place)
    }

    fn certain(&self, place: usize, ended: Tick) -> Vec<Holder> {
        let dependants = self.world.plan().holders(place).filter(|(below, _)| self.stays(*below));
        let mut certain = self.world.books().certain(place, self.begun, ended);
        certain.extend(dependants.map(|(_, holder)| holder));
        certain
    }
}

/// Whether `Busy` names a holder; a broken device is held by its guest's DMA.
fn names(busy: &Busy, holder: Holder) -> bool {
    let is_it = |named: &Holder| match (named, holder) {
        (Holder::DmaOf(guest), Holder::Domain(id)) => *guest == id,
        (named, holder) => *named == holder,
    };
    busy.holders.iter().any(is_it)
}
