//! What is so in every interleaving of the shipped tool stack.

use std::collections::BTreeSet;

use pcidevs::Sbdf;
use pcidevs::xen::memory::Database;
use pcidevs::xen::pciback::{Export, PcibackError, State, Toolstack};

use super::actor::{Actor, Deed, Tool};
use super::driver::{Driver, Version};
use super::explorer::{Grain, Rules, Situation, explore, explore_bounded};
use super::frontend::{Frontend, Manners};
use super::kernel::{EXPORTED, GUEST, HOST, PLACE, SEEN, be, device, fe, store_with_guest, unlisted};
use super::replay::Replay;
use crate::Tested;

pub(super) fn toolstack<'a, 'b>(store: &'a mut Replay<'b>) -> Toolstack<'a, Replay<'b>> {
    Toolstack::new(store, GUEST)
}

fn exports(functions: &[u8]) -> Vec<Export> {
    functions.iter().map(|function| Export::of(device(*function))).collect()
}

pub(super) const PUBLISH_THREE: Deed = |store| toolstack(store).publish(&exports(&[0, 1, 2]), "guest");
pub(super) const PUBLISH_TWO: Deed = |store| toolstack(store).publish(&exports(&[0, 1]), "guest");
pub(super) const PUBLISH_ONE: Deed = |store| toolstack(store).publish(&exports(&[0]), "guest");
pub(super) const ADD_TWO: Deed = |store| toolstack(store).add(&exports(&[2])).map(|_| ());
pub(super) const ADD_THREE: Deed = |store| toolstack(store).add(&exports(&[3])).map(|_| ());
pub(super) const REMOVE_ZERO: Deed = |store| toolstack(store).remove(device(0));
pub(super) const REMOVE_ONE: Deed = |store| toolstack(store).remove(device(1));

/// A guest that has just been made, with a driver of this version and a front end with these manners.
pub(super) fn machine(version: Version, manners: Manners) -> Situation {
    Situation::new(store_with_guest())
        .with(Actor::Driver(Driver::new(version)), HOST)
        .with(Actor::Frontend(Frontend::new(manners)), GUEST)
}

pub(super) fn exported(store: &Database) -> BTreeSet<Sbdf> {
    unlisted(store.text(EXPORTED).unwrap_or_default())
}

pub(super) fn seen(store: &Database) -> BTreeSet<Sbdf> {
    unlisted(store.text(SEEN).unwrap_or_default())
}

/// No kernel gives up, and the guest never has a device that the driver has taken away.
pub(super) fn sound(situation: &Situation) -> Result<(), String> {
    for party in &situation.parties {
        let (name, fatal) = match &party.actor {
            Actor::Driver(driver) => ("the driver", driver.fatal),
            Actor::Frontend(frontend) => ("the front end", frontend.fatal),
            Actor::Tool(_) => continue,
        };
        if let Some(why) = fatal {
            return Err(format!("{name} gave up: {why}"));
        }
    }
    let (seen, exported) = (seen(&situation.store), exported(&situation.store));
    if seen.is_subset(&exported) {
        Ok(())
    } else {
        Err(format!("the guest has {seen:?}, the driver {exported:?}"))
    }
}

/// What every tool stack has done, in order.
pub(super) fn outcomes(situation: &Situation) -> Vec<Result<(), PcibackError>> {
    let tools = situation.parties.iter().filter_map(|party| match &party.actor {
        Actor::Tool(tool) => Some(tool),
        _ => None,
    });
    tools.flat_map(|tool| tool.done.clone()).collect()
}

/// All done, and without an error.
pub(super) fn all_well(situation: &Situation, deeds: usize) -> Result<(), String> {
    let outcomes = outcomes(situation);
    if outcomes.len() == deeds && outcomes.iter().all(Result::is_ok) {
        return Ok(());
    }
    Err(format!("{deeds} deeds came to {outcomes:?}"))
}

/// The guest sees exactly these devices, the driver exports them, and the store says so and nothing more.
pub(super) fn settled_with(situation: &Situation, functions: &[u8]) -> Result<(), String> {
    let expected: BTreeSet<Sbdf> = functions.iter().map(|function| device(*function)).collect();
    let store = &situation.store;
    let (seen, exported) = (seen(store), exported(store));
    if seen != expected || exported != expected {
        return Err(format!(
            "the guest has {seen:?}, the driver {exported:?}, and it should be {expected:?}"
        ));
    }
    let backend = PLACE.backend().map_err(|error| error.to_string())?;
    let count = |leaf: &str| {
        let prefix = format!("{backend}/{leaf}-");
        store.nodes().filter(|(path, _)| path.as_str().starts_with(&prefix)).count()
    };
    let records = store.nodes().filter(|(path, _)| path.as_str().ends_with("/domid")).count();
    let text = |path: &pcidevs::xen::store::NodePath| store.text(path.as_str()).map(str::to_owned);
    if functions.is_empty() {
        let left: Vec<_> =
            store.nodes().filter(|(p, _)| p.is_within(&backend)).map(|(p, _)| p.clone()).collect();
        return if left.is_empty() && records == 0 && text(&fe("state")).is_none() {
            Ok(())
        } else {
            Err(format!("left over: {left:?}, {records} records"))
        };
    }
    let number = functions.len();
    for leaf in ["key", "dev", "vdev", "state", "opts"] {
        if count(leaf) != number {
            return Err(format!("{} nodes {leaf}-N", count(leaf)));
        }
    }
    for index in 0..number {
        if text(&be(&format!("state-{index}"))) != Some(State::Initialised.number()) {
            return Err(format!("state-{index} is {:?}", text(&be(&format!("state-{index}")))));
        }
        let (key, dev) = (text(&be(&format!("key-{index}"))), text(&be(&format!("dev-{index}"))));
        if key != dev || dev.is_none() {
            return Err(format!("index {index} has {key:?} and {dev:?}"));
        }
    }
    let rest = Some(State::Connected.number());
    let told = [text(&be("num_devs")), text(&be("state")), text(&fe("state"))];
    if told != [Some(number.to_string()), rest.clone(), rest] || records != number {
        return Err(format!("num_devs and states {told:?}, {records} records"));
    }
    Ok(())
}

/// That the explorer finds what is wrong: how it says so, and the way there.
pub(super) fn fails(start: &Situation, rules: &Rules) -> Result<String, Box<dyn std::error::Error>> {
    match explore(start, Grain::Transaction, rules) {
        Ok(explored) => Err(format!("nothing was found in {explored}").into()),
        Err(told) => Ok(told),
    }
}

pub(super) fn hold(name: &str, start: &Situation, rules: &Rules) -> Tested {
    hold_at(Grain::Transaction, name, start, rules)
}

pub(super) fn hold_at(grain: Grain, name: &str, start: &Situation, rules: &Rules) -> Tested {
    let explored = explore(start, grain, rules)?;
    println!("{name}: {explored}");
    Ok(())
}

/// For what is too large to be explored to the end.
pub(super) fn hold_bounded(preemptions: usize, name: &str, start: &Situation, rules: &Rules) -> Tested {
    let explored = explore_bounded(start, Grain::Look, preemptions, rules)?;
    println!("{name}: {explored}");
    Ok(())
}

#[test]
fn initial_attach_gives_the_guest_the_whole_set_whenever_anybody_looks() -> Tested {
    for version in [Version::LooksOnce, Version::LooksAgain] {
        let start = machine(version, Manners::Linux).with(Tool::patient(&[PUBLISH_THREE]), HOST);
        let finally = |end: &Situation| all_well(end, 1).and_then(|()| settled_with(end, &[0, 1, 2]));
        let always = |now: &Situation| {
            sound(now)?;
            let seen = seen(&now.store);
            if seen.is_empty() || seen.len() == 3 { Ok(()) } else { Err(format!("the guest sees {seen:?}")) }
        };
        hold("publish three", &start, &Rules { always, finally })?;
    }
    Ok(())
}

/// A guest that has what these deeds give it, with everybody at rest.
pub(super) fn connected(version: Version, manners: Manners, deeds: &'static [Deed]) -> Situation {
    machine(version, manners).with(Tool::patient(deeds), HOST).settled().without_tools()
}

/// What the coarser steps of the other tests rest on.
#[test]
fn transactions_are_as_if_they_were_one_step() -> Tested {
    let start = machine(Version::LooksOnce, Manners::Linux).with(Tool::patient(&[PUBLISH_ONE]), HOST);
    let finally = |end: &Situation| all_well(end, 1).and_then(|()| settled_with(end, &[0]));
    let explored = explore(&start, Grain::Request, &Rules { always: sound, finally })?;
    println!("publish one, request by request: {explored}");
    Ok(())
}

#[test]
#[cfg_attr(debug_assertions, ignore = "long without optimisation: cargo test --release --test xen")]
fn hot_add_begins_wherever_the_first_attach_is() -> Tested {
    let start =
        machine(Version::LooksOnce, Manners::Linux).with(Tool::patient(&[PUBLISH_ONE, ADD_TWO]), HOST);
    let finally = |end: &Situation| all_well(end, 2).and_then(|()| settled_with(end, &[0, 2]));
    hold_at(Grain::Look, "publish one, add one", &start, &Rules { always: sound, finally })
}

#[test]
fn hot_remove_closes_the_gap_and_leaves_nothing() -> Tested {
    let start = connected(Version::LooksOnce, Manners::Linux, &[PUBLISH_TWO])
        .with(Tool::patient(&[REMOVE_ZERO]), HOST);
    let finally = |end: &Situation| all_well(end, 1).and_then(|()| settled_with(end, &[1]));
    hold("remove the first of two", &start, &Rules { always: sound, finally })
}

#[test]
#[cfg_attr(debug_assertions, ignore = "long without optimisation: cargo test --release --test xen")]
fn an_index_is_used_again_after_rest() -> Tested {
    let start = connected(Version::LooksAgain, Manners::Linux, &[PUBLISH_TWO])
        .with(Tool::patient(&[REMOVE_ZERO, ADD_TWO]), HOST);
    let finally = |end: &Situation| all_well(end, 2).and_then(|()| settled_with(end, &[1, 2]));
    hold("remove the first, add another", &start, &Rules { always: sound, finally })
}

#[test]
fn removing_the_last_removes_both_folders() -> Tested {
    let start = connected(Version::LooksOnce, Manners::Linux, &[PUBLISH_ONE])
        .with(Tool::patient(&[REMOVE_ZERO]), HOST);
    let finally = |end: &Situation| all_well(end, 1).and_then(|()| settled_with(end, &[]));
    hold("remove the only one", &start, &Rules { always: sound, finally })
}
