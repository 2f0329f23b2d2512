//! What the hypervisor lets a guest do with a device: map its BARs, use its ports and its interrupt, have its DMA.
//!
//! Each is a step with its undo. The hypervisor counts none of them: what two devices of one guest share (a page, a
//! line) is taken back with the last of them.

use std::collections::BTreeMap;

use super::error::XenError;
use super::platform::Core;
use crate::Sbdf;
use crate::errno::Errno;
use crate::owner::DomainId;
use crate::xen::assignable;
use crate::xen::hypercall::{Access, Frames, Gsi, HypercallError, Pirq, Ports};
use crate::xen::pciback::Options;

/// What a device has that a guest must be allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resources {
    frames: Vec<Frames>,
    ports: Vec<Ports>,
    line: Option<Gsi>,
}

/// One thing that was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grant {
    Ports(Ports),
    Frames(Frames),
    Line(Gsi, Pirq),
    Interrupt(Pirq),
    Dma,
}

/// What a guest was given of one device.
#[derive(Clone, Debug)]
pub(super) struct Granted {
    guest: DomainId,
    grants: Vec<Grant>,
    /// Nothing is missing: no attempt to take it back has failed half way.
    is_whole: bool,
}

/// By device.
pub(super) type AllGranted = BTreeMap<Sbdf, Granted>;

/// Linux's flags in `resource`.
const IS_PORTS: u64 = 0x100;
const IS_MEMORY: u64 = 0x200;
/// Six BARs and the ROM. What follows are a physical function's BARs for its virtual ones, and bridges' windows.
const BARS: usize = 7;

impl Resources {
    /// As sysfs has them.
    pub(super) fn read(core: &Core, device: Sbdf) -> Result<Self, XenError> {
        let text = assignable::resources(&*core.kernel, device, "resource")
            .map_err(XenError::unreadable("read its resources"))?;
        let mut found = Self::default();
        for line in text.lines().take(BARS) {
            let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
            let numbers: Option<Vec<u64>> = line.split_whitespace().map(number).collect();
            let Some([start, end, flags]) = numbers.and_then(|numbers| <[u64; 3]>::try_from(numbers).ok())
            else {
                return Err(XenError::Unreadable { what: "understand its resources", errno: Errno::EINVAL });
            };
            if end == 0 || end < start {
                continue;
            }
            if flags & IS_MEMORY != 0 {
                found.frames.extend(Frames::covering(start, end));
            } else if flags & IS_PORTS != 0 {
                let first = u16::try_from(start).ok();
                let count = u32::try_from(end - start + 1).ok();
                found.ports.extend(first.zip(count).and_then(|(first, count)| Ports::new(first, count)));
            }
        }
        let line = assignable::resources(&*core.kernel, device, "irq")
            .map_err(XenError::unreadable("read its interrupt"))?;
        // 0: none, as virtual functions have it.
        found.line = line.trim().parse().ok().filter(|line| *line != 0).and_then(Gsi::new);
        Ok(found)
    }
}

impl Core {
    /// Allows a guest all of a device. On an error all is as before; what could not be taken back is tried again by the
    /// next [`take_back`](Self::take_back), and until then nobody gets the device.
    pub(super) fn give(&self, device: Sbdf, guest: DomainId, options: Options) -> Result<(), XenError> {
        let resources = Resources::read(self, device)?;
        if options.permissive {
            assignable::write_pciback(&*self.kernel, device, "permissive")
                .map_err(|failure| XenError::Assignable(assignable::AssignableError::from(failure)))?;
        }
        // Held over the calls: they are bounded and wait for nobody, and what is shared is decided by this table.
        let mut granted = super::locked(&self.granted);
        granted.insert(device, Granted { guest, grants: Vec::new(), is_whole: false });
        let given = self.give_all(device, guest, &resources, options, &mut granted);
        if let Err(error) = given {
            // What is left stays in the table, and says so when the engine undoes the steps before.
            let _left = self.take_back_in(&mut granted, device);
            return Err(error.into());
        }
        if let Some(entry) = granted.get_mut(&device) {
            entry.is_whole = true;
        }
        Ok(())
    }

    /// Allows a guest again what an attempt to take it back has left, if it was one that failed half way.
    pub(super) fn give_again(&self, device: Sbdf, guest: DomainId, options: Options) -> Result<(), XenError> {
        if super::locked(&self.granted).get(&device).is_some_and(|entry| entry.is_whole) {
            return Ok(());
        }
        self.give(device, guest, options)
    }

    fn give_all(
        &self,
        device: Sbdf,
        guest: DomainId,
        resources: &Resources,
        options: Options,
        granted: &mut AllGranted,
    ) -> Result<(), HypercallError> {
        let xen = &*self.hypervisor;
        let mut note = |grant| {
            if let Some(entry) = granted.get_mut(&device) {
                entry.grants.push(grant);
            }
        };
        for ports in &resources.ports {
            xen.ioport_permission(guest, *ports, Access::Allow)?;
            note(Grant::Ports(*ports));
        }
        for frames in &resources.frames {
            xen.iomem_permission(guest, *frames, Access::Allow)?;
            note(Grant::Frames(*frames));
        }
        if let Some(line) = resources.line {
            let pirq = xen.map_pirq(guest, line)?;
            note(Grant::Line(line, pirq));
            xen.irq_permission(guest, pirq, Access::Allow)?;
            note(Grant::Interrupt(pirq));
        }
        match xen.assign_device(guest, device, options.rdm_policy) {
            // Nobody has it by the store, and somebody by the hypervisor. If it is this guest an attach was cut off: it is
            // begun anew. If not, the deassign fails, and the refusal stands.
            Err(refused) if refused.errno() == Errno::EBUSY => {
                xen.deassign_device(guest, device).map_err(|_| refused)?;
                xen.assign_device(guest, device, options.rdm_policy)?;
            }
            assigned => assigned?,
        }
        note(Grant::Dma);
        Ok(())
    }

    /// What a guest has already, as it was found: nothing is asked for.
    pub(super) fn found(&self, device: Sbdf, guest: DomainId) {
        let resources = Resources::read(self, device).unwrap_or_default();
        let mut grants: Vec<Grant> = resources.ports.iter().copied().map(Grant::Ports).collect();
        grants.extend(resources.frames.iter().copied().map(Grant::Frames));
        if let Some((line, pirq)) = resources.line.and_then(|line| Some((line, Pirq::new(line.number())?))) {
            grants.extend([Grant::Line(line, pirq), Grant::Interrupt(pirq)]);
        }
        grants.push(Grant::Dma);
        super::locked(&self.granted).insert(device, Granted { guest, grants, is_whole: true });
    }

    /// Takes back all that was allowed of a device, the last first. What fails stays in the table; the rest is still done.
    pub(super) fn take_back(&self, device: Sbdf) -> Result<(), XenError> {
        Ok(self.take_back_in(&mut super::locked(&self.granted), device)?)
    }

    fn take_back_in(&self, granted: &mut AllGranted, device: Sbdf) -> Result<(), HypercallError> {
        let Some(Granted { guest, grants, .. }) = granted.remove(&device) else { return Ok(()) };
        let (mut left, mut first) = (Vec::new(), Ok(()));
        for grant in grants.into_iter().rev() {
            match self.revoke(granted, device, guest, grant) {
                Err(error) if !is_away(&error) => {
                    left.insert(0, grant);
                    first = first.and(Err(error));
                }
                _ => {}
            }
        }
        if !left.is_empty() {
            granted.insert(device, Granted { guest, grants: left, is_whole: false });
        }
        first
    }

    fn revoke(
        &self,
        others: &AllGranted,
        device: Sbdf,
        guest: DomainId,
        grant: Grant,
    ) -> Result<(), HypercallError> {
        let xen = &*self.hypervisor;
        let others = || others.values().filter(|other| other.guest == guest).flat_map(|other| &other.grants);
        match grant {
            Grant::Dma => xen.deassign_device(guest, device),
            Grant::Ports(ports) => {
                let first = u64::from(ports.first());
                let taken = others().filter_map(|other| match other {
                    Grant::Ports(other) => Some((u64::from(other.first()), u64::from(other.count()))),
                    _ => None,
                });
                remaining((first, u64::from(ports.count())), taken).into_iter().try_for_each(
                    |(first, count)| {
                        let ports = u16::try_from(first).ok().zip(u32::try_from(count).ok());
                        match ports.and_then(|(first, count)| Ports::new(first, count)) {
                            Some(ports) => xen.ioport_permission(guest, ports, Access::Deny),
                            None => Ok(()),
                        }
                    },
                )
            }
            Grant::Frames(frames) => {
                let taken = others().filter_map(|other| match other {
                    Grant::Frames(other) => Some((other.first(), other.count())),
                    _ => None,
                });
                remaining((frames.first(), frames.count()), taken).into_iter().try_for_each(
                    |(first, count)| match Frames::new(first, count) {
                        Some(frames) => xen.iomem_permission(guest, frames, Access::Deny),
                        None => Ok(()),
                    },
                )
            }
            Grant::Interrupt(_) | Grant::Line(..) if others().any(|other| *other == grant) => Ok(()),
            Grant::Interrupt(pirq) => xen.irq_permission(guest, pirq, Access::Deny),
            Grant::Line(_, pirq) => match xen.unmap_pirq(guest, pirq) {
                // The guest has unmapped it itself.
                Err(error) if error.errno() == Errno::EINVAL => Ok(()),
                unmapped => unmapped,
            },
        }
    }
}

/// Whether there is nothing left to take back from: the guest is gone, and all it had with it.
fn is_away(error: &HypercallError) -> bool {
    error.errno() == Errno::ESRCH
}

/// What of a range (its first, its length) is in none of the others.
fn remaining(range: (u64, u64), others: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut left = vec![range];
    for (first, count) in others {
        let end = first.saturating_add(count);
        left = left
            .into_iter()
            .flat_map(|(from, length)| {
                let to = from.saturating_add(length);
                let below = (from, end_before(first, to).saturating_sub(from));
                let above_from = from.max(end);
                [below, (above_from, to.saturating_sub(above_from))]
            })
            .filter(|(_, length)| *length > 0)
            .collect();
    }
    left
}

fn end_before(first: u64, to: u64) -> u64 {
    first.min(to)
}

#[cfg(test)]
mod tests {
    use super::remaining;

    /// Every pair of ranges in a small space, against sets of numbers.
    #[test]
    fn what_remains_of_a_range_is_what_the_others_do_not_have() {
        let numbers = |ranges: &[(u64, u64)]| -> Vec<u64> {
            ranges.iter().flat_map(|(first, count)| *first..first + count).collect()
        };
        for first in 0..6 {
            for count in 1..5 {
                for other in 0..8 {
                    for length in 1..8 {
                        let left = remaining((first, count), [(other, length)].into_iter());
                        let mut expected = numbers(&[(first, count)]);
                        expected.retain(|number| !(other..other + length).contains(number));
                        assert_eq!(numbers(&left), expected, "{first}+{count} without {other}+{length}");
                    }
                }
            }
        }
    }
}
