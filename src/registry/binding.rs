//! Whose a device is: the truth about ownership, in the device's slot, under the device's lock.

use crate::address::{Bus, DevFn, Sbdf, Segment};
use crate::memory::{Few, Shared};
use crate::owner::{DomainId, Owner};
use crate::refcount::{Audience, Holder, Locked};
use crate::sync::{AtomicBool, Ordering, RawLock, Site, ordering, weakened};

/// A guest in one life of its number. Numbers are given again when a guest is gone; a handle of the old guest
/// must not reach the new one's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guest {
    pub(super) id: DomainId,
    pub(super) life: u32,
}

impl Guest {
    /// This guest, reading at this address.
    #[inline]
    pub(super) fn audience(self, at: Sbdf) -> Audience {
        let place = u64::from(at.segment().number()) << 16 | u64::from(at.bdf());
        Audience { party: self.life, place }
    }
}

/// An owner, and where the owner sees the device if it is a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Unowned,
    Host,
    Quarantine,
    Hidden,
    Guest(Guest, Sbdf),
    /// Broken, on the list of the guest whose memory its DMA may still reach, and out of the guest's sight.
    DmaOf(Guest),
}

impl Place {
    pub(super) fn guest_address(self) -> Option<Sbdf> {
        match self {
            Self::Guest(_, at) => Some(at),
            _ => None,
        }
    }

    /// Who reads what a device that is here has published, besides the host.
    pub(super) fn audience(self) -> Audience {
        match self {
            Self::Guest(guest, at) => guest.audience(at),
            _ => Audience::NONE,
        }
    }

    /// The name of the reference that being here is.
    pub(super) fn assignment(self) -> Option<Holder> {
        match self {
            Self::Guest(guest, _) => Some(Holder::Domain(guest.id)),
            Self::DmaOf(guest) => Some(Holder::DmaOf(guest.id)),
            _ => None,
        }
    }

    /// The guest that is here, whether it sees the device or not.
    pub(super) fn guest(self) -> Option<Guest> {
        match self {
            Self::Guest(guest, _) | Self::DmaOf(guest) => Some(guest),
            _ => None,
        }
    }

    pub(super) fn owner(self) -> Owner {
        match self {
            Self::Unowned => Owner::Unowned,
            Self::Host => Owner::Host,
            Self::Quarantine => Owner::Quarantine,
            Self::Hidden => Owner::Hidden,
            Self::Guest(guest, _) | Self::DmaOf(guest) => Owner::Guest(guest.id),
        }
    }
}

/// A set of devices on its way from some owners to another, all at once.
///
/// Every member's binding points here while the move runs. Until `committed` is set each is still where it was;
/// from then on all are where they go. One Release store moves them all.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) committed: AtomicBool,
    /// There are steps between the marks and the commit, and what they do to the device the guest that is losing it
    /// must not see: until the commit it reads ones.
    pub(super) veiled: bool,
    pub(super) members: Few<Step, 1>,
}

/// One member's way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) from: Place,
    pub(super) to: Place,
}

impl Move {
    fn place(&self, member: u32) -> Option<Place> {
        let step = self.members.get(member as usize)?;
        Some(if self.has_arrived() { step.to } else { step.from })
    }

    fn has_arrived(&self) -> bool {
        // Acquire: pairs with the Release of the commit, so that who sees one member arrived sees all arrived.
        self.committed.load(ordering(Site::CommitAcquire, Ordering::Acquire))
    }

    /// Whether who is at this place sees the device.
    fn is_seen_at(&self, member: u32, place: Place) -> bool {
        let Some(step) = self.members.get(member as usize) else { return false };
        if self.has_arrived() {
            step.to == place
        } else {
            step.from == place && (!self.veiled || weakened(Site::MovingIsVeiled))
        }
    }
}

/// Where a device is, packed beside the device (16 bytes).
#[derive(Debug)]
pub(super) enum Binding {
    Unowned,
    Host,
    Quarantine,
    Hidden,
    Guest { bus: Bus, devfn: DevFn, segment: Segment, guest: Guest },
    DmaOf { guest: Guest },
    Moving { member: u32, moves: Shared<Move> },
}

impl Binding {
    pub(super) fn settled(place: Place) -> Self {
        match place {
            Place::Unowned => Self::Unowned,
            Place::Host => Self::Host,
            Place::Quarantine => Self::Quarantine,
            Place::Hidden => Self::Hidden,
            Place::DmaOf(guest) => Self::DmaOf { guest },
            Place::Guest(guest, at) => {
                Self::Guest { bus: at.bus(), devfn: at.devfn(), segment: at.segment(), guest }
            }
        }
    }

    /// Where the device is at this moment; a move is resolved through its commit.
    pub(super) fn place(&self) -> Place {
        match self {
            Self::Unowned => Place::Unowned,
            Self::Host => Place::Host,
            Self::Quarantine => Place::Quarantine,
            Self::Hidden => Place::Hidden,
            Self::DmaOf { guest } => Place::DmaOf(*guest),
            Self::Guest { bus, devfn, segment, guest } => {
                Place::Guest(*guest, Sbdf::new(*segment, *bus, *devfn))
            }
            // A binding is made with its move and the place in it; should that ever be wrong, the device is
            // nobody's rather than somebody else's.
            Self::Moving { member, moves } => moves.place(*member).unwrap_or(Place::Hidden),
        }
    }

    /// Whether this guest sees the device at this address.
    #[inline]
    pub(super) fn is_guest(&self, domain: Guest, at: Sbdf) -> bool {
        match self {
            Self::Guest { bus, devfn, segment, guest } => {
                let is_same = *guest == domain || weakened(Site::AccessChecksLife) && guest.id == domain.id;
                is_same && Sbdf::new(*segment, *bus, *devfn) == at
            }
            Self::Moving { member, moves } => {
                Self::is_seen_on_its_way(moves, *member, Place::Guest(domain, at))
            }
            _ => false,
        }
    }

    /// Out of the way of accesses to devices that do not move.
    #[cold]
    fn is_seen_on_its_way(moves: &Move, member: u32, place: Place) -> bool {
        moves.is_seen_at(member, place)
    }

    /// Whether this guest sees the device at this address, or did before, or will after the move under way.
    pub(super) fn concerns(&self, domain: Guest, at: Sbdf) -> bool {
        let there = Place::Guest(domain, at);
        match self {
            Self::Moving { member, moves } => {
                moves.members.get(*member as usize).is_some_and(|step| step.from == there || step.to == there)
            }
            _ => self.place() == there,
        }
    }

    pub(super) fn is_moving(&self) -> bool {
        matches!(self, Self::Moving { .. })
    }
}

/// What the registry keeps of a device, beside the embedder's own data; before it, next to the lock.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Record<D> {
    pub(super) binding: Binding,
    pub(super) data: D,
}

impl<D> Record<D> {
    /// The device is on its way; what it has published nobody reads until it is somewhere.
    pub(super) fn mark<L: RawLock>(device: &mut Locked<'_, Self, L>, member: u32, moves: Shared<Move>) {
        device.veil();
        device.binding = Binding::Moving { member, moves };
    }

    /// The device is here, and what it has published is shown to who sees it here.
    pub(super) fn settle<L: RawLock>(device: &mut Locked<'_, Self, L>, place: Place) {
        device.binding = Binding::settled(place);
        device.show(place.audience());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_sixteen_bytes() {
        assert_eq!(size_of::<Binding>(), 16);
    }
}
