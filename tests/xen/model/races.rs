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

/// Two tool stacks, a driver and a guest: to the end would take hours. The race of two that each remove one of the last
/// two devices needs two.
const PREEMPTIONS: usize = 2;

/// What two tool stacks do, and which devices the guest has then.
type Meeting = (&'static str, &'static [Deed], &'static [Deed], fn(&Situation) -> Result<(), String>);

#[test]
#[cfg_attr(debug_assertions, ignore = "long without optimisation: cargo test --release --test xen")]
fn two_tool_stacks_at_once_both_get_what_they_want() -> Tested {
    let meetings: [Meeting; 3] = [
        ("remove and remove", &[REMOVE_ZERO], &[REMOVE_ONE], |end| {
            all_well(end, 2).and_then(|()| settled_with(end, &[]))
        }),
        ("remove and add", &[REMOVE_ZERO], &[ADD_TWO], |end| {
            all_well(end, 2).and_then(|()| settled_with(end, &[1, 2]))
        }),
        ("add and add", &[ADD_THREE], &[ADD_TWO], |end| {
            all_well(end, 2).and_then(|()| settled_with(end, &[0, 1, 2, 3]))
        }),
    ];
    for (name, one, other, finally) in meetings {
        let start = connected(Version::LooksOnce, Manners::Linux, &[PUBLISH_TWO])
            .with(Tool::patient(one), HOST)
            .with(Tool::patient(other), HOST);
        hold_bounded(PREEMPTIONS, name, &start, &Rules { always: sound, finally })?;
    }
    Ok(())
}
