//! Ranges of addresses as an `IoManager` takes them.
//!
//! Its ranges neither overlap nor have a size beyond their address type: all 65,536 ports are two ranges. An access must
//! lie in one of them, so ranges that touch are put together.

use std::sync::Arc;
use std::vec::Vec;

use vm_device::bus::{Error, MmioAddress, MmioRange, PioAddress, PioRange};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vm_device::{DeviceMmio, DevicePio};

use crate::vpci::{AddressRange, BarSpace};

/// What was registered with a manager; to take it back.
#[derive(Clone, Debug, Default)]
#[must_use = "the only way to take it back"]
pub struct Registered {
    ports: Vec<PioAddress>,
    memory: Vec<MmioAddress>,
}

impl Registered {
    pub(super) fn register<T: DevicePio + DeviceMmio + Send + Sync + 'static>(
        manager: &mut IoManager,
        ranges: &[AddressRange],
        device: &Arc<T>,
    ) -> Result<Self, Error> {
        let mut registered = Self::default();
        for range in ranges {
            if let Err(error) = registered.add(manager, range, device) {
                registered.deregister(manager);
                return Err(error);
            }
        }
        Ok(registered)
    }

    fn add<T: DevicePio + DeviceMmio + Send + Sync + 'static>(
        &mut self,
        manager: &mut IoManager,
        range: &AddressRange,
        device: &Arc<T>,
    ) -> Result<(), Error> {
        let (first, last) = (*range.addresses.start(), *range.addresses.end());
        match range.space {
            BarSpace::Memory => {
                for (first, size) in sized(first, last, u64::MAX) {
                    let range = MmioRange::new(MmioAddress(first), size)?;
                    manager.register_mmio(range, device.clone())?;
                    self.memory.push(range.base());
                }
            }
            BarSpace::Io => {
                // There are no ports beyond these.
                let last = last.min(u16::MAX.into());
                for (first, size) in sized(first, last, u16::MAX.into()) {
                    let (Ok(first), Ok(size)) = (u16::try_from(first), u16::try_from(size)) else { continue };
                    let range = PioRange::new(PioAddress(first), size)?;
                    manager.register_pio(range, device.clone())?;
                    self.ports.push(range.base());
                }
            }
        }
        Ok(())
    }

    /// Takes all of it off the manager it was registered with.
    pub fn deregister(self, manager: &mut IoManager) {
        for base in self.ports {
            manager.deregister_pio(base);
        }
        for base in self.memory {
            manager.deregister_mmio(base);
        }
    }
}

/// The ranges in order, those that overlap or touch as one.
pub(super) fn merged(ranges: impl Iterator<Item = AddressRange>) -> Vec<AddressRange> {
    let mut ranges: Vec<AddressRange> = ranges.filter(|range| !range.addresses.is_empty()).collect();
    ranges.sort_by_key(|range| (range.space, *range.addresses.start()));
    ranges.dedup_by(|next, one| {
        let (first, last) = (*one.addresses.start(), *one.addresses.end());
        let touches = next.space == one.space && *next.addresses.start() <= last.saturating_add(1);
        if touches {
            one.addresses = first..=last.max(*next.addresses.end());
        }
        touches
    });
    ranges
}

/// A range, from first to last address, as one or two whose sizes are possible.
fn sized(first: u64, last: u64, most: u64) -> impl Iterator<Item = (u64, u64)> {
    let whole = last.checked_sub(first);
    let half = most / 2 + 1;
    let (one, two) = match whole {
        None => (None, None),
        Some(less) if less < most => (Some((first, less + 1)), None),
        Some(less) => (Some((first, half)), Some((first + half, less - half + 1))),
    };
    one.into_iter().chain(two)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overlap_or_touch_are_one() {
        let ranges = [
            AddressRange::memory(0x300..=0x3ff),
            AddressRange::memory(0x100..=0x1ff),
            AddressRange::io(0x200..=0x2ff),
            AddressRange::memory(0x180..=0x2ff),
            AddressRange::memory(0x500..=0x5ff),
            AddressRange::memory(0x501..=0x502),
            #[expect(clippy::reversed_empty_ranges, reason = "an embedder may have none")]
            AddressRange::memory(9..=8),
        ];
        let merged = merged(ranges.into_iter());
        let expected = [
            AddressRange::memory(0x100..=0x3ff),
            AddressRange::memory(0x500..=0x5ff),
            AddressRange::io(0x200..=0x2ff),
        ];
        assert_eq!(merged, expected);
    }

    #[test]
    fn a_range_of_everything_is_two() {
        let list = |first, last, most| sized(first, last, most).collect::<Vec<_>>();
        assert_eq!(list(0, 0xffff, 0xffff), [(0, 0x8000), (0x8000, 0x8000)]);
        assert_eq!(list(1, 0xffff, 0xffff), [(1, 0xffff)]);
        assert_eq!(list(0, u64::MAX, u64::MAX), [(0, 1 << 63), (1 << 63, 1 << 63)]);
        assert_eq!(list(5, 4, 0xffff), []);
    }
}
