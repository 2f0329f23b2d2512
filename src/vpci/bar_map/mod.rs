//! The BAR map of one guest: which BAR answers at an address, and what is to be mapped there.
//!
//! BARs of several devices may overlap. The one that was enabled first answers; another's bytes below it are hidden, and
//! appear when it is disabled. A *hole* (the pages of an MSI-X table and its PBA) belongs to its BAR like the rest and
//! is trapped: nobody's bytes are mapped there directly, whoever answers.
//!
//! The map is two pictures on one list of *spans*: what the enabled BARs ask for, and what the embedder has mapped.
//! [`enable`](BarMap::enable) and [`disable`](BarMap::disable) redraw the first;
//! [`next_change`](BarMap::next_change) leads the second after it, step by step. That is why a list of changes is
//! nowhere kept, disabling needs no memory, a BAR toggled faster than it is mapped costs nothing, and a step that
//! failed is not undone later as if it had been done.
//!
//! There is no lock in here. The map of a guest is under a leaf lock, off the path of accesses: these go by a table
//! made of [`visible`](BarMap::visible). The steps of one guest are carried out one after the other, without that
//! lock: a step of one device may map what another device's step, before it, uncovers.

mod error;
mod line;
mod piece;
mod ranges;
mod sweep;

use alloc::vec::Vec;
use core::ops::Range;

pub use error::{BarMapError, Reason, Refusal};
use line::{Extent, Placed, place};
pub use piece::{AddressRange, BarId, BarSpace, Bars, Change, Piece, Region};
use ranges::Ranges;
use sweep::{Enabled, Hole, Sources, Span, Sweep};

use crate::address::Sbdf;
use crate::memory::NoMemory;

/// Which BAR of a guest answers at which address, and what is mapped there.
///
/// Pieces are exact to the byte. An embedder that maps pages maps the whole pages of a piece; what is left of it is
/// trapped, as is everything that it does not map.
///
/// ```
/// use pcidevs::Sbdf;
/// use pcidevs::vpci::{AddressRange, BarMap, BarSpace, Bars, Change, Region};
/// let mut map = BarMap::new(&[AddressRange::memory(0xc000_0000..=0xdfff_ffff)], &[])?;
/// let [nic, gpu] = [Sbdf::from_u32(0x0100), Sbdf::from_u32(0x0200)];
/// let bar = |base| Region { bar: 0, space: BarSpace::Memory, base, size: 0x4000, holes: &[0x1000..0x2000] };
///
/// assert!(map.enable(nic, &[bar(0xc000_0000)])?.is_empty());
/// assert!(map.enable(gpu, &[bar(0xc000_2000)])?.is_empty());
/// let mut mapped = vec![];
/// while let Some(Change::Map(piece)) = map.next_change() {
///     mapped.push((piece.id.device, piece.base, piece.length));
/// }
/// let expected = [
///     (nic, 0xc000_0000, 0x1000), // then its hole, where it answers and nothing is mapped,
///     (nic, 0xc000_2000, 0x1000), // then the gpu's hole: the nic answers there, too,
///     (gpu, 0xc000_4000, 0x2000),
/// ];
/// assert_eq!(mapped, expected);
///
/// map.disable(nic, Bars::Of(BarSpace::Memory));
/// let (bar, offset) = map.at(BarSpace::Memory, 0xc000_3000).ok_or("the gpu")?;
/// assert_eq!((bar.device, offset), (gpu, 0x1000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Invariants
///
/// `spans` are in order and do not overlap; what they ask for is what `enabled` and `holes` say. `spans`, `next` and
/// `sweep` have room for every pass until another BAR is added.
#[derive(Debug)]
pub struct BarMap {
    ranges: Ranges,
    enabled: Vec<Enabled>,
    holes: Vec<Hole>,
    spans: Vec<Span>,
    /// Where the next pass puts its spans.
    next: Vec<Span>,
    sweep: Sweep,
    under_way: Option<Step>,
    /// Among the spans before these there is nothing to be unmapped, and to be mapped, that was not tried.
    unmapped: usize,
    mapped: usize,
}

/// A change that was handed out.
#[derive(Clone, Copy, Debug)]
struct Step {
    extent: Extent,
    /// What was in place before.
    before: Option<Placed>,
}

impl BarMap {
    /// A map without BARs. They may lie where the host bridge has windows, and no byte of what is reserved is theirs:
    /// RAM, ECAM windows, what else answers there.
    pub fn new(windows: &[AddressRange], reserved: &[AddressRange]) -> Result<Self, NoMemory> {
        Ok(Self {
            ranges: Ranges::new(windows, reserved)?,
            enabled: Vec::new(),
            holes: Vec::new(),
            spans: Vec::new(),
            next: Vec::new(),
            sweep: Sweep::default(),
            under_way: None,
            unmapped: 0,
            mapped: 0,
        })
    }

    /// No byte of this is a BAR's either. For ranges in which none is enabled yet.
    pub(in crate::vpci) fn keep_off(&mut self, range: &AddressRange) -> Result<(), NoMemory> {
        self.ranges.reserve(range)
    }

    /// Enables BARs of a device, in this order, and says which of them are refused for where they are.
    ///
    /// A refused BAR is as if it had not been asked for. On an error nothing has changed.
    pub fn enable(&mut self, device: Sbdf, regions: &[Region<'_>]) -> Result<Vec<Refusal>, BarMapError> {
        for (place, region) in regions.iter().enumerate() {
            let id = BarId { device, bar: region.bar };
            let twice = regions.iter().take(place).any(|other| other.bar == region.bar);
            if twice || self.enabled.iter().any(|bar| bar.id == id) {
                return Err(BarMapError::AlreadyEnabled(id));
            }
        }
        let refused = regions.iter().filter(|region| self.ranges.admit(region).is_err()).count();
        let mut refusals = Vec::new();
        refusals.try_reserve_exact(refused).map_err(NoMemory::from)?;
        let (bars, holes) = (self.enabled.len(), self.holes.len());
        self.enabled.try_reserve(regions.len()).map_err(NoMemory::from)?;
        let more_holes = regions.iter().map(|region| region.holes.len()).sum();
        self.holes.try_reserve(more_holes).map_err(NoMemory::from)?;
        for region in regions {
            let id = BarId { device, bar: region.bar };
            match self.ranges.admit(region) {
                Ok(extent) => self.add(id, extent, region.holes),
                Err(reason) => refusals.push(Refusal { id, reason }),
            }
        }
        if let Err(no_memory) = self.reserve() {
            self.enabled.truncate(bars);
            self.holes.truncate(holes);
            return Err(no_memory.into());
        }
        self.redraw();
        Ok(refusals)
    }

    /// Disables BARs of a device; those that are not enabled stay so. It needs no memory.
    pub fn disable(&mut self, device: Sbdf, bars: Bars) {
        let Self { enabled, holes, .. } = self;
        enabled.retain(|bar| !(bar.id.device == device && bars.contain(bar.id.bar, bar.extent.space())));
        holes.retain(|hole| !(hole.id.device == device && bars.contain(hole.id.bar, hole.extent.space())));
        self.redraw();
    }

    /// The next step of the embedder, `None` when all is as it should be; it needs no memory.
    ///
    /// What is to be unmapped comes first, then what is to be mapped, each in the order of addresses and in as few
    /// pieces as can be. A step counts as done, unless [`failed`](Self::failed) says otherwise before the next one is
    /// asked for. Meanwhile, BARs can be enabled and disabled.
    pub fn next_change(&mut self) -> Option<Change> {
        self.under_way = None;
        if let Some((spans, placed)) = self.run(self.unmapped, Span::stale) {
            self.unmapped = spans.end;
            return Some(Change::Unmap(self.step(spans, placed, None)));
        }
        self.unmapped = self.spans.len();
        if let Some((spans, placed)) = self.run(self.mapped, Span::missing) {
            self.mapped = spans.end;
            return Some(Change::Map(self.step(spans, placed, Some(placed))));
        }
        self.mapped = self.spans.len();
        None
    }

    /// The last step failed: nothing is mapped that was not, and what was to be unmapped is mapped still.
    ///
    /// It is tried again after the next time that BARs are enabled or disabled. Until something is unmapped, nothing
    /// is mapped over it.
    pub fn failed(&mut self) {
        let Some(Step { extent, before }) = self.under_way.take() else { return };
        let first = self.spans.partition_point(|span| span.extent.end <= extent.start);
        for span in self.spans.iter_mut().skip(first) {
            if span.extent.within(extent).is_none() {
                break;
            }
            span.in_place = before;
        }
    }

    /// Which BAR answers at an address, in its holes too, and how far into it that is.
    pub fn at(&self, space: BarSpace, address: u64) -> Option<(BarId, u64)> {
        let place = place(space, address);
        let span = self.spans.get(self.spans.partition_point(|span| span.extent.end <= place))?;
        let placed = span.answers.filter(|_| span.extent.start <= place)?;
        Some((placed.id, placed.offset(place)))
    }

    /// Where which BAR answers, holes and all, in the order of addresses, memory before ports.
    pub fn visible(&self) -> impl Iterator<Item = Piece> + '_ {
        self.pieces(|span| span.answers)
    }

    /// How many BARs are enabled.
    pub fn len(&self) -> usize {
        self.enabled.len()
    }

    /// Whether no BAR is enabled.
    pub fn is_empty(&self) -> bool {
        self.enabled.is_empty()
    }

    /// Whether a BAR of this device is enabled.
    pub fn has(&self, device: Sbdf) -> bool {
        self.enabled.iter().any(|bar| bar.id.device == device)
    }

    /// What the embedder has mapped, the last step included, in the order of addresses, memory before ports.
    pub fn in_place(&self) -> impl Iterator<Item = Piece> + '_ {
        self.pieces(|span| span.in_place)
    }

    fn pieces(&self, what: fn(&Span) -> Option<Placed>) -> impl Iterator<Item = Piece> + '_ {
        let mut from = 0;
        core::iter::from_fn(move || {
            let (spans, placed) = self.run(from, what)?;
            from = spans.end;
            Some(placed.piece(self.extent(spans)))
        })
    }

    /// The first spans from one on that lie side by side and of which `what` says the same BAR.
    fn run(&self, from: usize, what: fn(&Span) -> Option<Placed>) -> Option<(Range<usize>, Placed)> {
        let mut spans = self.spans.iter().enumerate().skip(from);
        let (first, span, placed) = spans.find_map(|(at, span)| Some((at, span, what(span)?)))?;
        let mut end = span.extent.end;
        let more = spans.take_while(|(_, span)| {
            let goes_on = span.extent.start == end && what(span) == Some(placed);
            end = span.extent.end;
            goes_on
        });
        Some((first..first + 1 + more.count(), placed))
    }

    /// From the first of these spans to the last.
    fn extent(&self, spans: Range<usize>) -> Extent {
        Extent { start: self.spans[spans.start].extent.start, end: self.spans[spans.end - 1].extent.end }
    }

    /// Hands out one step, after which these spans, of one BAR, have `after` in place.
    fn step(&mut self, spans: Range<usize>, placed: Placed, after: Option<Placed>) -> Piece {
        let extent = self.extent(spans.clone());
        let before = if after.is_some() { None } else { Some(placed) };
        self.under_way = Some(Step { extent, before });
        for span in &mut self.spans[spans] {
            span.in_place = after;
        }
        placed.piece(extent)
    }

    /// Adds a BAR. There is room.
    fn add(&mut self, id: BarId, extent: Extent, holes: &[Range<u64>]) {
        self.enabled.push(Enabled { id, extent });
        let holes = holes.iter().filter_map(|hole| extent.part(hole));
        self.holes.extend(holes.map(|extent| Hole { id, extent }));
    }

    /// Makes room for the pass after BARs were added, and for all until more are.
    fn reserve(&mut self) -> Result<(), NoMemory> {
        let Self { enabled, holes, spans, next, sweep, under_way, .. } = self;
        let under_way = under_way.map(|step| step.extent);
        let most = sweep.reserve(&Sources { enabled, holes, before: spans, under_way })?;
        next.clear();
        next.try_reserve(most)?;
        Ok(spans.try_reserve(most.saturating_sub(spans.len()))?)
    }

    /// Finds anew who answers where. There is room.
    fn redraw(&mut self) {
        let Self { enabled, holes, spans, next, sweep, under_way, .. } = self;
        let under_way = under_way.map(|step| step.extent);
        sweep.run(&Sources { enabled, holes, before: spans, under_way }, next);
        core::mem::swap(spans, next);
        (self.unmapped, self.mapped) = (0, 0);
    }
}
