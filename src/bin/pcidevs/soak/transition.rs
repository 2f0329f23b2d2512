//! One transition of the storm's: noted in the books, counted, and judged by what it answered.

use pcidevs::Holder;
use pcidevs::lifecycle::TransitionError;

use super::statistics::Statistics;
use super::world::World;

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Refused,
    Failed,
}

impl World {
    /// Runs a transition that may be met at these places under these names.
    pub(crate) fn transition(
        &self,
        statistics: &mut Statistics,
        what: &'static str,
        (places, holders): (&[usize], &[Holder]),
        run: impl FnOnce() -> Result<(), TransitionError>,
    ) -> Outcome {
        let notes = self.note(places.iter().copied(), holders);
        let result = run();
        drop(notes);
        let outcomes = statistics.transition(what);
        let outcome = match result {
            Ok(()) => Outcome::Ok,
            Err(error) => self.judge_error(what, &error),
        };
        match outcome {
            Outcome::Ok => outcomes.ok += 1,
            Outcome::Refused => outcomes.refused += 1,
            Outcome::Failed => outcomes.failed += 1,
        }
        outcome
    }

    /// Whether an error is one that the storm can have caused.
    pub(crate) fn judge_error(&self, what: &str, error: &TransitionError) -> Outcome {
        use TransitionError as Error;
        match error {
            Error::Failed(_) | Error::Refused(..) => {
                if !self.mishaps().are_possible() {
                    self.violation(format_args!("{what}: no hook was asked to fail, and: {error}"));
                }
                Outcome::Failed
            }
            Error::Broken { .. } | Error::DmaNotBlocked(_) | Error::NotBroken(_)
                if self.mishaps().are_possible() =>
            {
                Outcome::Refused
            }
            Error::NotFound(_)
            | Error::Busy(..)
            | Error::Taken { .. }
            | Error::NotOwned { .. }
            | Error::NotEndpoint(_)
            | Error::NoDomain(_)
            | Error::Dying(_)
            | Error::NotReleased { .. }
            | Error::MsixMasked(_)
            | Error::NoMsix(_)
            | Error::VectorsInUse(_)
            | Error::GroupNotViable { .. }
            | Error::GroupBusy(_)
            | Error::Inseparable { .. }
            | Error::OthersInReset { .. }
            | Error::NoFreeSlot
            | Error::NotAsked(_)
            | Error::Gone(_) => Outcome::Refused,
            error => {
                self.violation(format_args!("{what}: {error}"));
                Outcome::Failed
            }
        }
    }
}
