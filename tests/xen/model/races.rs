//! Time that is up, guests that die, and other tool stacks.

use pcidevs::xen::pciback::{Outcome, PcibackError, Unsettled};

use super::actor::{Deed, Tool};
use super::driver::Version;
use super::explorer::{Rules, Situation};
use super::frontend::Manners;
use super::kernel::{GUEST, HOST, be};
use super::scenarios::{
    ADD_THREE, ADD_TWO, PUBLISH_ONE, PUBLISH_TWO, REMOVE_ONE, REMOVE_ZERO, all_well, connected, hold,
    hold_bounded, outcomes, settled_with, sound, toolstack,
};
use crate::Tested;

const RELEASE: Deed = |store| toolstack(store).release().map(|_| ());
const KILL: Deed = |store| Ok(store.kill(GUEST)?);

fn outcome(result: &Result<(), PcibackError>) -> Result<Option<Outcome>, String> {
    match result {
        Ok(()) => Ok(None),
        Err(PcibackError::Unsettled { unsettled: Unsettled::Stuck { .. }, outcome }) => Ok(Some(*outcome)),
        Err(other) => Err(format!("it ended in {other:?}")),
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "long without optimisation: cargo test --release --test xen")]
fn an_add_whose_time_is_up_says_truly_whose_the_device_is() -> Tested {
    let start =
        connected(Version::LooksOnce, Manners::Linux, &[PUBLISH_ONE]).with(Tool::impatient(&[ADD_TWO]), HOST);
    let finally = |end: &Situation| match outcome(&outcomes(end)[0])? {
        None | Some(Outcome::Pending) => settled_with(end, &[0, 2]),
        Some(Outcome::Withdrawn | Outcome::NotBegun) => settled_with(end, &[0]),
    };
    hold("impatient add", &start, &Rules { always: sound, finally })
}

#[test]
#[cfg_attr(debug_assertions, ignore = "long without optimisation: cargo test --release --test xen")]
fn a_removal_whose_time_is_up_is_finished_by_whoever_comes_next() -> Tested {
    let start = connected(Version::LooksOnce, Manners::Linux, &[PUBLISH_TWO])
        .with(Tool::impatient(&[REMOVE_ZERO, ADD_TWO]), HOST);
    let finally = |end: &Situation| {
        let outcomes = outcomes(end);
        if outcomes.len() != 2 || outcomes[1].is_err() {
            return Err(format!("the next came to {outcomes:?}"));
        }
        match outcome(&outcomes[0])? {
            None | Some(Outcome::Pending) => settled_with(end, &[1, 2]),
            Some(Outcome::Withdrawn | Outcome::NotBegun) => settled_with(end, &[0, 1, 2]),
        }
    };
    hold("impatient remove, then add", &start, &Rules { always: sound, finally })
}

#[test]
fn a_guest_that_never_answers_gets_nothing_and_loses_nothing() -> Tested {
    for deeds in [&[ADD_TWO], &[REMOVE_ZERO]] {
        let start =
            connected(Version::LooksOnce, Manners::Deaf, &[PUBLISH_ONE]).with(Tool::impatient(deeds), HOST);
        let finally = |end: &Situation| {
            if outcome(&outcomes(end)[0])? == Some(Outcome::Pending) {
                return Err("nobody can be at it".into());
            }
            let text = |leaf| end.store.text(be(leaf).as_str());
            match [text("num_devs"), text("state-0"), text("state-1"), text("dev-1")] {
                [Some("1"), Some("3"), None, None] => Ok(()),
                other => Err(format!("there is {other:?}")),
            }
        };
        hold("deaf guest", &start, &Rules { always: sound, finally })?;
    }
    Ok(())
}

#[test]
#[cfg_attr(debug_assertions, ignore = "long without optimisation: cargo test --release --test xen")]
fn a_guest_that_dies_at_any_moment_is_told_and_leaves_nothing() -> Tested {
    for deeds in [&[ADD_TWO, RELEASE], &[REMOVE_ZERO, RELEASE]] {
        let start = connected(Version::LooksOnce, Manners::Linux, &[PUBLISH_ONE])
            .with(Tool::patient(deeds), HOST)
            .with(Tool::deadly(&[KILL]), HOST);
        let finally = |end: &Situation| {
            let outcomes = outcomes(end);
            let told = match &outcomes[0] {
                Ok(()) | Err(PcibackError::NoBackend) => true,
                Err(PcibackError::Unsettled { unsettled, .. }) => {
                    matches!(unsettled, Unsettled::GuestGone | Unsettled::BackendGone | Unsettled::Over(_))
                }
                Err(_) => false,
            };
            if !told || outcomes.len() != 3 || outcomes[1].is_err() {
                return Err(format!("it came to {outcomes:?}"));
            }
            settled_with(end, &[])
        };
        hold("a death", &start, &Rules { always: |_| Ok(()), finally })?;
    }
    Ok(())
}

/// Two tool stacks, a driver and a guest: to the end would take hours. So many preemptions, or `PCIDEVS_PREEMPTIONS`. With
/// two all three meetings hold as well: 740,000 situations, in some four minutes.
fn preemptions(usual: usize) -> Result<usize, std::num::ParseIntError> {
    std::env::var("PCIDEVS_PREEMPTIONS").map_or(Ok(usual), |number| number.parse())
}

/// Two tool stacks at a guest that has two devices; which it has then.
fn meet(
    name: &str,
    usual: usize,
    [one, other]: [&'static [Deed]; 2],
    finally: fn(&Situation) -> Result<(), String>,
) -> Tested {
    let start = connected(Version::LooksOnce, Manners::Linux, &[PUBLISH_TWO])
        .with(Tool::patient(one), HOST)
        .with(Tool::patient(other), HOST);
    hold_bounded(preemptions(usual)?, name, &start, &Rules { always: sound, finally })
}

/// Whoever is slower finds that what it wanted has come true: the other has cleared up for it, or has taken the last device
/// and both folders with it.
#[test]
#[cfg_attr(debug_assertions, ignore = "long without optimisation: cargo test --release --test xen")]
fn two_tool_stacks_that_each_remove_one_of_two_both_succeed() -> Tested {
    let finally = |end: &Situation| all_well(end, 2).and_then(|()| settled_with(end, &[]));
    meet("remove and remove", 2, [&[REMOVE_ZERO], &[REMOVE_ONE]], finally)
}

#[test]
#[cfg_attr(debug_assertions, ignore = "long without optimisation: cargo test --release --test xen")]
fn a_tool_stack_that_removes_and_one_that_adds_both_succeed() -> Tested {
    let finally = |end: &Situation| all_well(end, 2).and_then(|()| settled_with(end, &[1, 2]));
    meet("remove and add", 1, [&[REMOVE_ZERO], &[ADD_TWO]], finally)
}

#[test]
#[cfg_attr(debug_assertions, ignore = "long without optimisation: cargo test --release --test xen")]
fn two_tool_stacks_that_add_both_succeed() -> Tested {
    let finally = |end: &Situation| all_well(end, 2).and_then(|()| settled_with(end, &[0, 1, 2, 3]));
    meet("add and add", 1, [&[ADD_THREE], &[ADD_TWO]], finally)
}
