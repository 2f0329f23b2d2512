//! Who answers where, found in one pass over the places where that can change.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::line::{Extent, Place, Placed};
use super::piece::BarId;
use crate::memory::NoMemory;

/// An enabled BAR. Their order is that in which they were enabled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Enabled {
    pub(super) id: BarId,
    pub(super) extent: Extent,
}

impl Enabled {
    fn placed(&self) -> Placed {
        Placed { id: self.id, start: self.extent.start }
    }
}

/// A range of an enabled BAR that nobody has mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hole {
    pub(super) id: BarId,
    pub(super) extent: Extent,
}

/// Places that have all in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) extent: Extent,
    /// The enabled BAR that answers.
    pub(super) answers: Option<Placed>,
    /// There is no hole, whoever's.
    pub(super) direct: bool,
    /// The BAR that the embedder has mapped.
    pub(super) in_place: Option<Placed>,
}

impl Span {
    /// The BAR that the embedder is to have mapped.
    pub(super) fn wanted(&self) -> Option<Placed> {
        if self.direct { self.answers } else { None }
    }

    /// What is mapped and is not to be.
    pub(super) fn stale(&self) -> Option<Placed> {
        if self.in_place == self.wanted() { None } else { self.in_place }
    }

    /// What is to be mapped where nothing is.
    pub(super) fn missing(&self) -> Option<Placed> {
        if self.in_place.is_some() { None } else { self.wanted() }
    }

    /// Appends `next`, which begins where this span ends and says the same.
    fn absorb(&mut self, next: &Self) -> bool {
        let same = Self { extent: self.extent, ..*next } == *self && self.extent.end == next.extent.start;
        if same {
            self.extent.end = next.extent.end;
        }
        same
    }
}

/// What the spans are made of.
pub(super) struct Sources<'a> {
    pub(super) enabled: &'a [Enabled],
    pub(super) holes: &'a [Hole],
    /// The spans until now: of them is taken what is in place.
    pub(super) before: &'a [Span],
    /// The step that is being carried out. It stays spans of its own, so that it can be taken back.
    pub(super) under_way: Option<Extent>,
}

/// The memory of the pass.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    events: Vec<Event>,
    /// The BARs that were met, the one enabled first on top. One that has ended is dropped when it gets there.
    open: BinaryHeap<Reverse<usize>>,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    at: Place,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Nothing begins here that has to be counted, something else may be different.
    Cut,
    BarBegins(usize),
    HoleBegins,
    HoleEnds,
}

impl Sweep {
    /// Reserves what a pass needs, and any later one to which no BAR and no hole was added; answers with the most
    /// spans that these can make.
    ///
    /// Without additions no place is cut that was not cut before: what is in place begins and ends with a span.
    pub(super) fn reserve(&mut self, sources: &Sources<'_>) -> Result<usize, NoMemory> {
        let fixed = 2 * (sources.enabled.len() + sources.holes.len()) + 2;
        self.events.clear();
        self.open.clear();
        self.events.try_reserve(fixed + 2 * sources.before.len())?;
        self.open.try_reserve(sources.enabled.len())?;
        self.collect(sources);
        let spans = self.events.chunk_by(|event, next| event.at == next.at).count();
        self.events.clear();
        self.events.try_reserve(fixed + 2 * spans)?;
        Ok(spans)
    }

    /// Makes the spans, in order, in `spans`. There is room for all of it.
    pub(super) fn run(&mut self, sources: &Sources<'_>, spans: &mut Vec<Span>) {
        self.collect(sources);
        self.open.clear();
        spans.clear();
        let mut before = sources.before.iter().peekable();
        let mut holes = 0_usize;
        let mut events = self.events.iter().peekable();
        while let Some(event) = events.next() {
            match event.what {
                What::Cut => {}
                What::BarBegins(order) => self.open.push(Reverse(order)),
                What::HoleBegins => holes += 1,
                What::HoleEnds => holes -= 1,
            }
            let Some(end) = events.peek().map(|next| next.at).filter(|end| *end > event.at) else { continue };
            let extent = Extent { start: event.at, end };
            while before.next_if(|span| span.extent.end <= extent.start).is_some() {}
            let in_place =
                before.peek().filter(|span| span.extent.start <= extent.start).and_then(|span| span.in_place);
            let answers = first_open(&mut self.open, sources.enabled, extent.start);
            let span = Span { extent, answers, direct: holes == 0, in_place };
            let stays = sources.under_way.is_some_and(|under_way| under_way.within(extent).is_some());
            let begins = sources
                .under_way
                .is_some_and(|under_way| under_way.start == extent.start || under_way.end == extent.start);
            if answers.is_none() && in_place.is_none() && !stays {
                continue;
            }
            if begins || !spans.last_mut().is_some_and(|last| last.absorb(&span)) {
                debug_assert!(spans.len() < spans.capacity(), "room was made");
                spans.push(span);
            }
        }
    }

    fn collect(&mut self, sources: &Sources<'_>) {
        self.events.clear();
        let mut add = |extent: Extent, begins: What, ends: What| {
            debug_assert!(self.events.len() + 1 < self.events.capacity(), "room was made");
            self.events.push(Event { at: extent.start, what: begins });
            self.events.push(Event { at: extent.end, what: ends });
        };
        for (order, bar) in sources.enabled.iter().enumerate() {
            add(bar.extent, What::BarBegins(order), What::Cut);
        }
        for hole in sources.holes {
            add(hole.extent, What::HoleBegins, What::HoleEnds);
        }
        for span in sources.before.iter().filter(|span| span.in_place.is_some()) {
            add(span.extent, What::Cut, What::Cut);
        }
        if let Some(extent) = sources.under_way {
            add(extent, What::Cut, What::Cut);
        }
        self.events.sort_unstable_by_key(|event| event.at);
    }
}

/// The BAR that was enabled first of those that reach beyond a place.
fn first_open(open: &mut BinaryHeap<Reverse<usize>>, enabled: &[Enabled], place: Place) -> Option<Placed> {
    while let Some(Reverse(order)) = open.peek() {
        let bar = enabled.get(*order)?;
        if bar.extent.end > place {
            return Some(bar.placed());
        }
        open.pop();
    }
    None
}
