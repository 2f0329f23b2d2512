//! What a reset reaches beside the device that is reset.

use super::Lifecycle;
use super::claims::Claims;
use super::error::TransitionError;

use crate::Sbdf;
use crate::address::DevFn;
use crate::owner::Owner;
use crate::platform::{Platform, ResetScope};
use crate::transition::Transition;

/// Whether a reset of `device` in this scope hits `other` as well.
pub(super) fn reaches<P: Platform>(
    lifecycle: &Lifecycle<P>,
    device: Sbdf,
    scope: ResetScope,
    other: Sbdf,
) -> bool {
    let same_bus = (device.segment(), device.bus()) == (other.segment(), other.bus());
    match scope {
        ResetScope::Function => device == other,
        ResetScope::Slot => same_bus && device.device() == other.device(),
        ResetScope::Bus => same_bus || is_behind(lifecycle, device, other),
    }
}

/// Whether `other` is behind a bridge on `device`'s bus.
fn is_behind<P: Platform>(lifecycle: &Lifecycle<P>, device: Sbdf, other: Sbdf) -> bool {
    let topology = lifecycle.topology();
    let mut below = other;
    // Each bridge has buses of its own, so a chain is no longer than there are buses.
    for _ in 0..256 {
        match topology.parent(below) {
            Some(bridge) if (bridge.segment(), bridge.bus()) == (device.segment(), device.bus()) => {
                return true;
            }
            Some(bridge) => below = bridge,
            None => return false,
        }
    }
    false
}

/// The other devices that a reset of `device` hits, in address order. A walk.
pub(super) fn others<P: Platform>(
    lifecycle: &Lifecycle<P>,
    device: Sbdf,
    scope: ResetScope,
) -> impl Iterator<Item = Sbdf> + '_ {
    let first = match scope {
        ResetScope::Function => None,
        ResetScope::Slot => DevFn::new(device.device(), 0).map(|devfn| device.with_devfn(devfn)),
        ResetScope::Bus => Some(device.with_devfn(DevFn::from_bits(0))),
    };
    // Behind the bridges of a bus are higher buses of the same segment.
    let is_within = move |found: &Sbdf| match scope {
        ResetScope::Function => false,
        ResetScope::Slot => reaches(lifecycle, device, scope, *found),
        ResetScope::Bus => found.segment() == device.segment(),
    };
    let found = first.into_iter().flat_map(|first| lifecycle.registry().addresses_from(first));
    found
        .take_while(is_within)
        .filter(move |other| *other != device && reaches(lifecycle, device, scope, *other))
}

/// Claims a device that a reset of another one hits. It must be in quarantine; bridges forward resets and are no
/// obstacle.
pub(super) fn claim_bystander<P: Platform>(
    lifecycle: &Lifecycle<P>,
    device: Sbdf,
    other: Sbdf,
    kind: Transition,
    bystanders: &mut Claims<'_, P>,
) -> Result<(), TransitionError> {
    bystanders.reserve(1)?;
    let claimed = lifecycle.registry().claim(other, kind, |candidate| {
        if candidate.data().known.behind.is_some() {
            return Ok(None);
        }
        match candidate.owner() {
            Owner::Quarantine => Ok(Some(())),
            owner => Err(TransitionError::OthersInReset { device, other, owner }),
        }
    });
    match claimed {
        Ok(Some((claim, ()))) => bystanders.push(claim, Owner::Quarantine, None),
        // A bridge, or gone since it was listed.
        Ok(None) | Err(TransitionError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
