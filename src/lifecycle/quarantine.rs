//! Out of everyone's reach: quarantine, and hiding.

use super::Lifecycle;
use super::claims::Way;
use super::error::TransitionError;
use super::steps;
use super::transfer::Change;
use crate::Sbdf;
use crate::owner::Owner;
use crate::platform::Platform;
use crate::registry::Member;
use crate::transition::Transition;

/// What of a hidden device stays visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Nothing.
    None,
    /// Its configuration space, for reading: writes are dropped.
    ReadOnly,
}

impl<P: Platform> Lifecycle<P> {
    /// Puts devices of the host into quarantine: nobody's, with their DMA blocked. A guest that gets one later gives it
    /// back to here, until it is [deassigned](Self::deassign) from `Quarantine`.
    pub fn quarantine(&self, set: &[Member]) -> Result<(), TransitionError> {
        self.transfer(
            set,
            &Change {
                kind: Transition::Quarantine,
                steps: steps::MOVE,
                to: Owner::Quarantine,
                admit: &|device, at| {
                    let owner = device.owner();
                    let data = device.data();
                    if let Some(because) = data.condition.broken {
                        return Err(TransitionError::Broken { device: at, because });
                    }
                    if !data.known.is_endpoint {
                        return Err(TransitionError::NotEndpoint(at));
                    }
                    match owner {
                        Owner::Host | Owner::Unowned | Owner::Quarantine => Ok(Some(Owner::Quarantine)),
                        Owner::Hidden => Err(TransitionError::Hidden(at)),
                        owner @ Owner::Guest(_) => Err(TransitionError::Taken { device: at, owner }),
                    }
                },
                redirect: &|claim, to| match claim.owner() {
                    Owner::Quarantine => Ok(Way::Stays),
                    _ => Ok(Way::To(to)),
                },
                settle: &|condition, _| (condition.sticky, condition.to_give_back) = (true, false),
            },
        )
    }

    /// Takes an unused device away from everyone, for good: what the hypervisor itself uses.
    ///
    /// Its hardware is not touched, but for the IOMMU, which blocks it.
    pub fn hide(&self, address: Sbdf, visibility: Visibility) -> Result<(), TransitionError> {
        self.transfer(
            &[Member::new(address)],
            &Change {
                kind: Transition::Hide,
                steps: steps::HIDE,
                to: Owner::Hidden,
                admit: &|device, at| match device.owner() {
                    Owner::Hidden => {
                        device.data().condition.read_only = visibility == Visibility::ReadOnly;
                        Ok(None)
                    }
                    owner @ Owner::Guest(_) => Err(TransitionError::Taken { device: at, owner }),
                    _ if device.is_removing() || device.is_used() => Err(device.in_the_way().into()),
                    _ => match device.data().condition.broken {
                        Some(because) => Err(TransitionError::Broken { device: at, because }),
                        None => Ok(Some(Owner::Hidden)),
                    },
                },
                redirect: &|_, to| Ok(Way::To(to)),
                settle: &|condition, _| {
                    condition.read_only = visibility == Visibility::ReadOnly;
                    condition.sticky = false;
                },
            },
        )
    }
}
