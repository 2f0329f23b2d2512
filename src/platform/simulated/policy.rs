//! What the machine's policy refuses, and what it can reset.

use crate::address::Sbdf;
use crate::owner::Owner;
use crate::platform::{Refusal, Request, ResetScope};
use crate::transition::Transition;

/// A rule of the policy: which requests it refuses, and how. What a rule does not name matches all.
///
/// ```
/// use pcidevs::platform::{Refusal, Rule};
/// use pcidevs::{Owner, Transition};
/// let hidden_stays = Rule::new(Refusal::Denied).transition(Transition::Assign).to(Owner::Host);
/// # let _ = hidden_stays;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    refusal: Refusal,
    device: Option<Sbdf>,
    transition: Option<Transition>,
    to: Option<Owner>,
}

impl Rule {
    /// Refuses everything.
    pub const fn new(refusal: Refusal) -> Self {
        Self { refusal, device: None, transition: None, to: None }
    }

    /// Only for this device.
    #[must_use]
    pub const fn device(self, device: Sbdf) -> Self {
        Self { device: Some(device), ..self }
    }

    /// Only this transition.
    #[must_use]
    pub const fn transition(self, transition: Transition) -> Self {
        Self { transition: Some(transition), ..self }
    }

    /// Only if this would be the new owner.
    #[must_use]
    pub const fn to(self, owner: Owner) -> Self {
        Self { to: Some(owner), ..self }
    }

    /// What the rule says of a request.
    pub(super) fn judge(&self, request: &Request) -> Result<(), Refusal> {
        let matches = self.device.is_none_or(|device| device == request.device)
            && self.transition.is_none_or(|transition| transition == request.transition)
            && self.to.is_none_or(|owner| owner == request.to);
        if matches { Err(self.refusal) } else { Ok(()) }
    }
}

/// How a device of the simulated machine can be reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetSupport {
    /// By itself: FLR.
    #[default]
    Function,
    /// With all functions of its device number.
    Slot,
    /// With everything on its bus.
    Bus,
    /// It needs none.
    NotNeeded,
    /// It needs one and has none: EOPNOTSUPP.
    Missing,
}

impl ResetSupport {
    const ALL: [Self; 5] = [Self::Function, Self::Slot, Self::Bus, Self::NotNeeded, Self::Missing];

    pub(super) const fn bits(self) -> u8 {
        self as u8
    }

    pub(super) fn from_bits(bits: u8) -> Self {
        Self::ALL.get(usize::from(bits)).copied().unwrap_or_default()
    }

    /// What a reset reaches, if there is one.
    pub(super) const fn scope(self) -> Option<ResetScope> {
        match self {
            Self::Function => Some(ResetScope::Function),
            Self::Slot => Some(ResetScope::Slot),
            Self::Bus => Some(ResetScope::Bus),
            Self::NotNeeded | Self::Missing => None,
        }
    }
}
