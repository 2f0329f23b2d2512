//! What the model says of an operation, and why not.

use std::collections::BTreeSet;

use crate::stage::{Outcome, Reason};

/// What the model says of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Is(Outcome),
    Refused(BTreeSet<Reason>),
    /// The contract does not say.
    Any,
}

pub(super) type Reasons = BTreeSet<Reason>;

/// A verdict that lets an operation happen.
pub(super) const DONE: Verdict = Verdict::Is(Outcome::Done);

pub(super) fn no(reason: Reason) -> Verdict {
    Verdict::Refused([reason].into())
}

impl Verdict {
    pub(crate) fn admits(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Any, Outcome::Refused(reason)) => *reason != Reason::Impossible,
            (Self::Any, _) => true,
            (Self::Is(expected), outcome) => expected == outcome,
            (Self::Refused(reasons), Outcome::Refused(reason)) => reasons.contains(reason),
            (Self::Refused(_), _) => false,
        }
    }
}
