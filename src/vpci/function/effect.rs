//! What an access asks for outside the device's lock, in which order, and who has been served.
//!
//! An effect does not carry what is to be done: it names a part of the outside that no longer agrees with the model.
//! Whoever carries it out looks at the model *then*. So an effect that is asked for again before it was begun is
//! superseded: the later one does all that it would have done. That is why there is room for one of each kind and no
//! more, and why asking cannot fail.
//!
//! # Invariants
//!
//! Numbers grow. At most one effect is being carried out; those that wait are in the order of their numbers, each kind
//! at most once.

use crate::sync::{Site, weakened};

/// A part of the outside that is to be brought to what the model says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Effect {
    /// The power state is another.
    Power,
    /// BARs are to be mapped, or unmapped: decoding, the ROM's enable or the power state have changed.
    Decode,
    /// Vectors are to be routed or masked, or messages delivered.
    Vectors,
    /// The interrupt pin (`INTx`) has another level.
    Intx,
    /// Bus mastering is switched.
    BusMaster,
    /// A function-level reset was asked for.
    Reset,
    /// An emulated port has other bus numbers.
    Buses,
    /// Virtual functions are to come or go.
    VirtualFunctions,
    /// What the device behind the model asked for.
    Device,
}

impl Effect {
    const ALL: [Self; 9] = [
        Self::Power,
        Self::Decode,
        Self::Vectors,
        Self::Intx,
        Self::BusMaster,
        Self::Reset,
        Self::Buses,
        Self::VirtualFunctions,
        Self::Device,
    ];
    const KINDS: usize = Self::ALL.len();
}

/// Effects that one register's write asks for, carried out in the order of [`Effect`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects(u16);

impl Effects {
    /// These and another.
    #[must_use]
    pub const fn and(self, effect: Effect) -> Self {
        Self(self.0 | 1 << effect as u16)
    }

    /// These, and another if it is so.
    #[must_use]
    pub const fn and_if(self, is_so: bool, effect: Effect) -> Self {
        if is_so { self.and(effect) } else { self }
    }

    /// These and those.
    pub(in crate::vpci) const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether there is none.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All of them, or `None` if there is none: what a handler returns.
    pub const fn or_none(self) -> Option<Self> {
        if self.is_empty() { None } else { Some(self) }
    }

    fn iter(self) -> impl Iterator<Item = Effect> {
        Effect::ALL.into_iter().filter(move |effect| self.0 & 1 << *effect as u16 != 0)
    }
}

impl From<Effect> for Effects {
    fn from(effect: Effect) -> Self {
        Self::default().and(effect)
    }
}

/// What one access asked for: nothing, or effects with these numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "somebody has to carry out what an access asks for"]
pub struct Asked {
    first: u64,
    last: u64,
}

impl Asked {
    /// Nothing.
    pub const NOTHING: Self = Self { first: 1, last: 0 };

    /// Whether there is nothing to carry out.
    #[inline]
    pub const fn is_nothing(self) -> bool {
        self.first > self.last
    }

    /// This and what was asked for right after it.
    fn and(self, number: u64) -> Self {
        if self.is_nothing() { Self { first: number, last: number } } else { Self { last: number, ..self } }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbered {
    effect: Effect,
    number: u64,
}

/// The effects of one function that are still to be carried out.
#[derive(Debug, Default)]
pub(in crate::vpci) struct Queue {
    /// The number given last.
    last: u64,
    running: Option<Numbered>,
    /// From the front, in order; the rest is empty.
    waiting: [Option<Numbered>; Effect::KINDS],
}

impl Queue {
    /// Asks for effects, behind all others, as part of what an access asks for.
    pub(in crate::vpci) fn ask(&mut self, asked: Asked, effects: Effects) -> Asked {
        effects.iter().fold(asked, |asked, effect| self.ask_one(asked, effect))
    }

    fn ask_one(&mut self, asked: Asked, effect: Effect) -> Asked {
        self.last += 1;
        let number = self.last;
        // Superseded: out it goes, the others close up, and the new one is the last.
        let mut kept = self.waiting.into_iter().flatten().filter(|waiting| waiting.effect != effect);
        let mut waiting = [None; Effect::KINDS];
        let mut places = waiting.iter_mut();
        for place in places.by_ref() {
            *place = kept.next();
            if place.is_none() {
                *place = Some(Numbered { effect, number });
                break;
            }
        }
        self.waiting = waiting;
        asked.and(number)
    }

    /// The next effect, to be carried out by the caller, unless somebody is carrying one out.
    pub(in crate::vpci) fn begin(&mut self) -> Option<Effect> {
        if self.running.is_some() && !weakened(Site::OneExecutor) {
            return None;
        }
        self.running = self.waiting[0].take();
        self.waiting.rotate_left(1);
        self.running.map(|running| running.effect)
    }

    /// What is being carried out.
    pub(in crate::vpci) fn running(&self) -> Option<Effect> {
        self.running.map(|running| running.effect)
    }

    /// What was begun has been carried out.
    pub(in crate::vpci) fn end(&mut self) {
        self.running = None;
    }

    /// All that waits is superseded: which these were.
    pub(in crate::vpci) fn clear(&mut self) -> Effects {
        let waiting = core::mem::replace(&mut self.waiting, [None; Effect::KINDS]);
        waiting.iter().flatten().fold(Effects::default(), |all, waiting| all.and(waiting.effect))
    }

    /// Whether it waits, or is being carried out.
    pub(in crate::vpci) fn has(&self, effect: Effect) -> bool {
        self.waiting.iter().flatten().chain(&self.running).any(|open| open.effect == effect)
    }

    /// Whether all of this is done or superseded.
    pub(in crate::vpci) fn is_settled(&self, asked: Asked) -> bool {
        let mut open = self.waiting.iter().flatten().chain(&self.running);
        asked.is_nothing() || !open.any(|open| (asked.first..=asked.last).contains(&open.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(queue: &mut Queue, effect: Effect) -> Asked {
        queue.ask(Asked::NOTHING, effect.into())
    }

    #[test]
    fn effects_come_in_order_and_one_at_a_time() {
        let mut queue = Queue::default();
        for effect in [Effect::Decode, Effect::BusMaster, Effect::Intx] {
            let _ = ask(&mut queue, effect);
        }
        assert_eq!(queue.begin(), Some(Effect::Decode));
        assert_eq!(queue.begin(), None, "one at a time");
        queue.end();
        assert_eq!(queue.begin(), Some(Effect::BusMaster));
        queue.end();
        assert_eq!(queue.begin(), Some(Effect::Intx));
        queue.end();
        assert_eq!(queue.begin(), None);
    }

    #[test]
    fn an_effect_asked_for_again_is_superseded_and_goes_to_the_end() {
        let mut queue = Queue::default();
        let first = ask(&mut queue, Effect::Decode);
        let master = ask(&mut queue, Effect::BusMaster);
        let again = ask(&mut queue, Effect::Decode);
        assert!(queue.is_settled(first) && !queue.is_settled(master) && !queue.is_settled(again));
        assert_eq!(queue.begin(), Some(Effect::BusMaster));
        assert!(!queue.is_settled(master), "begun is not done");
        queue.end();
        assert!(queue.is_settled(master));
        assert_eq!(queue.begin(), Some(Effect::Decode));
        // One that has begun is not superseded: it may have looked at the model already.
        let third = ask(&mut queue, Effect::Decode);
        assert!(!queue.is_settled(again));
        queue.end();
        assert!(queue.is_settled(again) && !queue.is_settled(third));
    }

    #[test]
    fn one_access_may_ask_for_several() {
        let mut queue = Queue::default();
        let asked = queue.ask(Asked::NOTHING, Effects::default().and(Effect::BusMaster).and(Effect::Decode));
        assert_eq!(queue.begin(), Some(Effect::Decode));
        queue.end();
        assert!(!queue.is_settled(asked));
        assert_eq!(queue.begin(), Some(Effect::BusMaster));
        queue.end();
        assert!(queue.is_settled(asked) && queue.is_settled(Asked::NOTHING));
    }

    #[test]
    fn there_is_room_for_every_kind() {
        let mut queue = Queue::default();
        let all = Effect::ALL;
        for effect in all.into_iter().chain(all) {
            let _ = ask(&mut queue, effect);
        }
        let found: Vec<_> = core::iter::from_fn(|| queue.begin().inspect(|_| queue.end())).collect();
        assert_eq!(found, all);
    }
}
