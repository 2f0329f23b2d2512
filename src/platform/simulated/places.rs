//! From an address to its function, without a lock.
//!
//! Tables only grow: a bus gets its 256 places when one of them is first needed, a segment its buses, and nothing
//! is given back before the machine goes. So a lookup is a few loads, and what it returns can be borrowed from the
//! machine. Segment 0 is at hand; the others hang in chains by their number.
//!
//! A hook may be the first to name a requester ID on some bus, and a hook must not abort: growing can fail.

use std::sync::OnceLock;

use super::function::Function;
use crate::address::{Bus, DevFn, Sbdf, Segment};
use crate::memory::{NoMemory, try_box};

const NUMBERS: usize = 256;
const CHAINS: usize = 64;

type Functions = OnceLock<Box<[Function]>>;

/// All places of a machine.
#[derive(Debug)]
pub(super) struct Places {
    first: Table,
    chains: [OnceLock<Box<Link>>; CHAINS],
}

/// A segment in a chain.
#[derive(Debug)]
struct Link {
    segment: Segment,
    table: Table,
    next: OnceLock<Box<Link>>,
}

/// The buses of a segment.
#[derive(Debug)]
struct Table(Box<[Functions]>);

impl Table {
    fn try_new() -> Result<Self, NoMemory> {
        Ok(Self(try_fill(NUMBERS, OnceLock::new)?))
    }

    fn bus(&self, bus: Bus) -> Option<&[Function]> {
        self.0.get(usize::from(bus.number()))?.get().map(|functions| &**functions)
    }

    fn bus_or_new(&self, bus: Bus) -> Result<&[Function], NoMemory> {
        or_new(&self.0[usize::from(bus.number())], || try_fill(NUMBERS, Function::default)).map(|bus| &**bus)
    }
}

impl Places {
    pub(super) fn try_new() -> Result<Self, NoMemory> {
        Ok(Self { first: Table::try_new()?, chains: [const { OnceLock::new() }; CHAINS] })
    }

    /// The place at this address, if anything was ever put on its bus.
    pub(super) fn find(&self, address: Sbdf) -> Option<&Function> {
        let bus = self.bus(address.segment(), address.bus())?;
        bus.get(usize::from(address.devfn().bits()))
    }

    /// The place at this address.
    pub(super) fn place(&self, address: Sbdf) -> Result<&Function, NoMemory> {
        let table = match address.segment().number() {
            0 => &self.first,
            _ => self.segment_or_new(address.segment())?,
        };
        Ok(&table.bus_or_new(address.bus())?[usize::from(address.devfn().bits())])
    }

    /// The 256 places of a bus.
    pub(super) fn bus(&self, segment: Segment, bus: Bus) -> Option<&[Function]> {
        let table = match segment.number() {
            0 => &self.first,
            _ => self.links(segment).find(|link| link.segment == segment).map(|link| &link.table)?,
        };
        table.bus(bus)
    }

    /// Every place that exists, in no particular order.
    pub(super) fn all(&self) -> impl Iterator<Item = (Sbdf, &Function)> {
        let others = self.chains.iter().flat_map(Self::chain);
        let tables = others.map(|link| (link.segment, &link.table));
        let tables = core::iter::once((Segment::new(0), &self.first)).chain(tables);
        let numbers = || 0..=u8::MAX;
        let buses = tables.flat_map(move |(segment, table)| {
            numbers().map(Bus::new).filter_map(move |bus| Some((segment, bus, table.bus(bus)?)))
        });
        buses.flat_map(move |(segment, bus, places)| {
            let devfns = numbers().map(DevFn::from_bits);
            devfns.map(move |devfn| Sbdf::new(segment, bus, devfn)).zip(places)
        })
    }

    fn segment_or_new(&self, segment: Segment) -> Result<&Table, NoMemory> {
        let new = || try_box(Link { segment, table: Table::try_new()?, next: OnceLock::new() });
        let mut link = or_new(self.chain_of(segment), new)?;
        while link.segment != segment {
            link = or_new(&link.next, new)?;
        }
        Ok(&link.table)
    }

    fn links(&self, segment: Segment) -> impl Iterator<Item = &Link> {
        Self::chain(self.chain_of(segment))
    }

    fn chain_of(&self, segment: Segment) -> &OnceLock<Box<Link>> {
        &self.chains[segment.number() as usize % CHAINS]
    }

    fn chain(first: &OnceLock<Box<Link>>) -> impl Iterator<Item = &Link> {
        core::iter::successors(first.get().map(|link| &**link), |link| link.next.get().map(|next| &**next))
    }
}

/// What the cell holds; made now, if it is empty. Two threads may both make one: the first stays.
pub(super) fn or_new<T>(cell: &OnceLock<T>, new: impl Fn() -> Result<T, NoMemory>) -> Result<&T, NoMemory> {
    if let Some(held) = cell.get() {
        return Ok(held);
    }
    let new = new()?;
    Ok(cell.get_or_init(|| new))
}

/// So many values on the heap, made there one by one: a model's stack has no room for all.
pub(super) fn try_fill<T>(count: usize, value: impl FnMut() -> T) -> Result<Box<[T]>, NoMemory> {
    let mut values = Vec::new();
    values.try_reserve_exact(count)?;
    values.resize_with(count, value);
    Ok(values.into_boxed_slice())
}
