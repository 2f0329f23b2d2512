//! A fault at every write, two of them, and the end of the process between any two writes.

use super::{Seen, World, bare, card};
use crate::Tested;
use crate::fate::Blow::{Ends, Fails};
use pcidevs::Sbdf;
use pcidevs::xen::assignable::{Afterwards, AssignableError};

/// A machine before the operation, and the operation.
#[derive(Clone, Copy, Debug)]
enum Way {
    Add,
    Remove,
}

fn prepared(way: Way, device: Sbdf) -> Result<World, AssignableError> {
    let world = World::new();
    if matches!(way, Way::Remove) {
        world.add(device, Some("uplink"))?;
    }
    Ok(world)
}

fn go(
    world: &World,
    way: Way,
    device: Sbdf,
    blows: &[(usize, crate::fate::Blow)],
) -> Result<(), AssignableError> {
    match way {
        Way::Add => world.run(blows, |all| all.add(device, Some("uplink"))).map(|_| ()),
        Way::Remove => world.run(blows, |all| all.remove(device, Afterwards::Rebind)).map(|_| ()),
    }
}

/// What it is like when the operation has happened.
fn reached(way: Way, device: Sbdf) -> Result<Seen, AssignableError> {
    let world = prepared(way, device)?;
    go(&world, way, device, &[])?;
    Ok(world.look(device))
}

/// More than any operation writes.
const MOST: usize = 40;

#[test]
fn a_fault_at_any_write_leaves_it_as_it_was() -> Tested {
    for (way, device) in
        [(Way::Add, card()), (Way::Add, bare()), (Way::Remove, card()), (Way::Remove, bare())]
    {
        let mut faults = 0;
        for number in 1..MOST {
            let world = prepared(way, device)?;
            let before = world.look(device);
            let result = go(&world, way, device, &[(number, Fails)]);
            if world.fate.struck() == 0 {
                assert_eq!(result, Ok(()));
                break;
            }
            faults += 1;
            let error = result.err().ok_or_else(|| format!("{way:?}: fault {number} was not told"))?;
            assert_eq!(world.look(device), before, "{way:?}, fault {number}: {error}");
            // And the next attempt succeeds.
            go(&world, way, device, &[])?;
            assert_eq!(world.look(device), reached(way, device)?);
        }
        assert!(faults >= 4, "{way:?} of {device} has {faults} writes");
    }
    Ok(())
}

/// With two faults the undo may fail as well. Then the error says so, and what the host had is not forgotten.
#[test]
fn a_fault_in_the_undo_is_told_and_can_be_reverted() -> Tested {
    let mut in_undo = 0;
    for (way, device) in [(Way::Add, card()), (Way::Remove, card())] {
        let original = World::new().look(device);
        for first in 1..MOST {
            for second in first + 1..MOST {
                let world = prepared(way, device)?;
                let before = world.look(device);
                let result = go(&world, way, device, &[(first, Fails), (second, Fails)]);
                if world.fate.struck() < 2 {
                    break;
                }
                let Err(AssignableError::Failed(failed)) = result else {
                    assert_eq!(world.look(device), before, "{way:?} {first} {second}: {result:?}");
                    continue;
                };
                if failed.undo.is_empty() {
                    assert_eq!(world.look(device), before, "{way:?} {first} {second}: {failed}");
                    continue;
                }
                in_undo += 1;
                assert!(failed.to_string().contains("undoing what was done"), "{failed}");
                assert!(!world.look(device).records.is_empty(), "{way:?} {first} {second}: forgotten");
                world.revert(device)?;
                let now = world.look(device);
                // A device that left through quarantine is the host's again.
                assert_eq!(now, original, "{way:?} {first} {second}");
            }
        }
    }
    assert!(in_undo > 3, "undos failed {in_undo} times");
    Ok(())
}

#[test]
fn a_crash_between_any_two_writes_can_be_reverted_or_gone_on_with() -> Tested {
    for (way, device) in [(Way::Add, card()), (Way::Remove, card()), (Way::Add, bare())] {
        let original = World::new().look(device);
        let assignable = reached(Way::Add, device)?;
        let mut crashes = 0;
        for number in 1..MOST {
            for go_on in [false, true] {
                let world = prepared(way, device)?;
                let crashed = go(&world, way, device, &[(number, Ends)]);
                if world.fate.struck() == 0 {
                    break;
                }
                crashes += 1;
                assert!(crashed.is_err());
                let seen = world.look(device);
                assert!(
                    seen == original || !seen.records.is_empty() || seen.driver == original.driver,
                    "{way:?}, crash {number}: nobody knows what the host had: {seen:?}"
                );
                if go_on {
                    world.add(device, Some("uplink"))?;
                    assert_eq!(world.look(device), assignable, "{way:?}, crash {number}");
                } else {
                    match world.revert(device) {
                        Ok(_) => {}
                        Err(error) => assert_eq!(error, AssignableError::NotAssignable(device)),
                    }
                    assert_eq!(world.look(device), original, "{way:?}, crash {number}");
                }
            }
        }
        assert!(crashes >= 8, "{way:?} was cut off {crashes} times");
    }
    Ok(())
}

#[test]
fn a_crash_while_reverting_is_reverted() -> Tested {
    let device = card();
    let original = World::new().look(device);
    for first in 1..MOST {
        for second in 1..MOST {
            let world = World::new();
            let _cut_off = go(&world, Way::Add, device, &[(first, Ends)]);
            let was_cut = world.fate.struck() == 1;
            let _cut_off = world.run(&[(second, Ends)], |all| all.revert(device));
            if world.fate.struck() == 0 {
                break;
            }
            match world.revert(device) {
                Ok(_) | Err(AssignableError::NotAssignable(_)) => {}
                Err(error) => return Err(error.into()),
            }
            assert_eq!(world.look(device), original, "crashes {first} and {second}");
            if !was_cut {
                return Ok(());
            }
        }
    }
    Ok(())
}
