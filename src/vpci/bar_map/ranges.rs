//! Where BARs may lie.

use alloc::vec::Vec;

use super::error::Reason;
use super::line::Extent;
use super::piece::{AddressRange, Region};
use crate::memory::NoMemory;

/// The host bridge's windows, and what in them is something else.
#[derive(Debug)]
pub(super) struct Ranges {
    windows: Vec<Extent>,
    reserved: Vec<Extent>,
}

impl Ranges {
    pub(super) fn new(windows: &[AddressRange], reserved: &[AddressRange]) -> Result<Self, NoMemory> {
        Ok(Self { windows: merged(windows)?, reserved: merged(reserved)? })
    }

    /// No BAR may be here either.
    pub(super) fn reserve(&mut self, range: &AddressRange) -> Result<(), NoMemory> {
        self.reserved.try_reserve(1)?;
        self.reserved.extend(Extent::of_range(range));
        merge(&mut self.reserved);
        Ok(())
    }

    /// Where a region is, if it may be there.
    pub(super) fn admit(&self, region: &Region<'_>) -> Result<Extent, Reason> {
        let Some(extent) = Extent::of_region(region) else {
            return Err(if region.size == 0 { Reason::Empty } else { Reason::TooHigh });
        };
        // Merged ones do not touch, so what lies in several of them lies outside of them, too.
        if overlapping(&self.windows, extent) != Some(extent) {
            return Err(Reason::OutsideWindows);
        }
        if overlapping(&self.reserved, extent).is_some() {
            return Err(Reason::Reserved);
        }
        Ok(extent)
    }
}

/// What the first extent that has something in common with this one has in common with it.
fn overlapping(extents: &[Extent], extent: Extent) -> Option<Extent> {
    let first = extents.partition_point(|other| other.end <= extent.start);
    extents.get(first)?.within(extent)
}

/// In the order of addresses; those that overlap or touch are one.
fn merged(ranges: &[AddressRange]) -> Result<Vec<Extent>, NoMemory> {
    let mut extents = Vec::new();
    extents.try_reserve_exact(ranges.len())?;
    extents.extend(ranges.iter().filter_map(Extent::of_range));
    merge(&mut extents);
    Ok(extents)
}

fn merge(extents: &mut Vec<Extent>) {
    extents.sort_unstable_by_key(|extent| extent.start);
    extents.dedup_by(|next, before| {
        // The last byte of memory and port 0 touch, on the line only. No region crosses, so that is the same.
        let touches = next.start <= before.end;
        if touches {
            before.end = before.end.max(next.end);
        }
        touches
    });
}
