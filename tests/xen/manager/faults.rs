//! A fault at every write of an export, two of them, and the end of the process at every one.

use pcidevs::Owner;
use pcidevs::xen::assignable::Afterwards;
use pcidevs::xen::manager::XenError;
use pcidevs::xen::memory::Server;
use pcidevs::xen::pciback::PcibackError;

use super::{BACKEND, GUEST, Machine, attach, device, long};
use crate::Tested;
use crate::fate::Blow::{Ends, Fails};
use crate::kernels::{Faults, Kernels};
use crate::stores::World;

/// More than any operation writes.
const MOST: usize = 60;

#[test]
fn a_fault_at_any_write_of_an_attach_leaves_everything_as_it_was() -> Tested {
    let mut faults = 0;
    for number in 1..MOST {
        let machine = Machine::new().with_assignable(3)?;
        let before = machine.look();
        let manager = machine.open()?;
        machine.expect(&[(number, Fails)]);
        let result = attach(&manager, &[0, 1, 2]);
        if machine.fate.struck() == 0 {
            result?;
            break;
        }
        faults += 1;
        let error = result.err().ok_or_else(|| format!("fault {number} was not told"))?;
        assert!(!matches!(error, XenError::Undo { .. }), "fault {number}: {error}");
        assert_eq!(machine.look(), before, "fault {number}: {error}");
        attach(&manager, &[0, 1, 2])?;
        assert_eq!(machine.xen.owner(device(2)), Some(Owner::Guest(GUEST)));
    }
    assert!(faults > 12, "{faults} writes");
    Ok(())
}

/// What cannot be taken back is tried again before the engine gives up, so it takes three faults to leave something behind.
/// Nobody is told a lie: either all is as it was, or the error says what is left, and the device goes to nobody else.
#[test]
fn faults_in_the_undo_of_an_attach_are_told_and_the_device_goes_to_nobody_else() -> Tested {
    let (mut broken, mut whole) = (0, 0);
    for first in 1..14 {
        for second in first + 1..16 {
            for third in second + 1..24 {
                let machine = Machine::new().with_assignable(2)?;
                let before = machine.look();
                let manager = machine.open()?;
                machine.expect(&[(first, Fails), (second, Fails), (third, Fails)]);
                let result = attach(&manager, &[0, 1]);
                let struck = machine.fate.struck();
                machine.expect(&[]);
                if struck == 0 {
                    result?;
                    break;
                }
                let error = match result {
                    // The store failed, and then when it was asked what became of it: nobody knows, and that is said.
                    Ok(attached) => {
                        assert!(attached.pending.is_some(), "{first}, {second}, {third}");
                        continue;
                    }
                    Err(error) => error,
                };
                if machine.look() == before {
                    whole += 1;
                } else {
                    assert!(matches!(error, XenError::Undo { .. }), "{first}, {second}, {third}: {error}");
                    broken += 1;
                    let wanted = super::set([0, 1]);
                    let other = manager.attach(super::OTHER, &wanted, pcidevs::xen::manager::Waiting::No);
                    assert!(other.is_err(), "{first}, {second}, {third}");
                }
                if struck < 3 {
                    break;
                }
            }
        }
    }
    println!("of three faults {broken} broke a device, {whole} did not");
    assert!(broken > 0 && whole > 0, "{broken}, {whole}");
    Ok(())
}

#[test]
fn a_process_that_ends_in_an_attach_leaves_a_guest_that_sees_all_or_nothing() -> Tested {
    let mut crashes = 0;
    for number in 1..MOST {
        let machine = Machine::new().with_assignable(3)?;
        let manager = machine.open()?;
        machine.expect(&[(number, Ends)]);
        let result = attach(&manager, &[0, 1, 2]);
        if machine.fate.struck() == 0 {
            result?;
            break;
        }
        crashes += 1;
        drop(manager);
        machine.expect(&[]);
        let manager = machine.open()?;
        let seen: usize = manager.exports()?.iter().map(|(_, devices)| devices.len()).sum();
        assert!(seen == 0 || seen == 3, "crash {number}: the guest sees {seen}");
        if seen == 0 {
            // The host's driver does not get what a guest may still reach.
            if machine.xen.owner(device(0)) == Some(Owner::Guest(GUEST)) {
                assert!(manager.assignable_remove(device(0), Afterwards::Rebind).is_err());
                assert_eq!(machine.kernel.driver(device(0)).as_deref(), Some("pciback"));
            }
            attach(&manager, &[0, 1, 2])?;
        }
        machine.write(&format!("{BACKEND}/state"), "6")?;
        manager.release(GUEST)?;
        assert!(machine.xen.holdings(GUEST).is_empty(), "crash {number}");
        assert_eq!(machine.left(), [""; 0]);
    }
    assert!(crashes > 12, "{crashes} writes");
    Ok(())
}

/// The guest lets go, and then the hypervisor does not take all of it back: the guest has it again, whole.
#[test]
fn a_fault_at_any_write_of_a_detach_leaves_the_guest_with_all_or_nothing_of_the_device() -> Tested {
    let store = World::Memory(Server::new());
    let machine = Machine::on(store.clone()).with_assignable(2)?;
    let kernels = Kernels::start(&store, Faults::Expected)?;
    let mut manager = machine.open_with(long())?;
    attach(&manager, &[0, 1])?;
    let mut faults = 0;
    for number in 1..MOST {
        let attached = machine.look().holdings;
        machine.expect(&[(number, Fails)]);
        let result = manager.detach(GUEST, &[device(1)]);
        let struck = machine.fate.struck();
        machine.expect(&[]);
        if let Err(error) = &result {
            assert!(!matches!(error, XenError::Undo { .. }), "fault {number}: {error}");
            assert_eq!(manager.owner(device(1)), Some(Owner::Guest(GUEST)), "fault {number}: {error}");
            assert_eq!(machine.xen.owner(device(1)), Some(Owner::Guest(GUEST)), "fault {number}: {error}");
            assert_eq!(machine.look().holdings, attached, "fault {number}: {error}");
            manager = machine.open_with(long())?;
            if manager.owner(device(1)) == Some(Owner::Guest(GUEST)) {
                manager.detach(GUEST, &[device(1)])?;
            }
        }
        faults += struck;
        if struck == 0 {
            result?;
            break;
        }
        attach(&manager, &[1])?;
    }
    kernels.end()?;
    // The mark, its end, the DMA, the pages, the ports; the line is shared with the other.
    assert!(faults >= 5, "{faults} writes");
    assert_eq!(machine.xen.owner(device(1)), Some(Owner::Quarantine));
    Ok(())
}

#[test]
fn a_fault_at_any_write_of_a_release_is_told_and_the_next_one_ends_it() -> Tested {
    for number in 1..MOST {
        let machine = Machine::new().with_assignable(2)?;
        attach(&machine.open()?, &[0, 1])?;
        machine.write(&format!("{BACKEND}/state"), "6")?;
        let mut manager = machine.open()?;
        machine.expect(&[(number, Fails)]);
        let result = manager.release(GUEST);
        let struck = machine.fate.struck();
        machine.expect(&[]);
        if struck == 0 {
            result?;
            break;
        }
        if result.is_err() {
            // A device that could not be taken back is broken in this process, and known anew in the next.
            manager = machine.open()?;
            let again = manager.release(GUEST);
            assert!(again.is_ok(), "fault {number}: {result:?}, then {again:?}");
        }
        assert_eq!(machine.left(), [""; 0], "fault {number}");
        let left = machine.xen.holdings(GUEST);
        if !left.is_empty() {
            // What the first process could not take back goes when the guest gets the device again, or ends.
            assert!(result.is_err(), "fault {number} was not told: {left:?}");
            attach(&manager, &[0, 1])?;
            machine.write(&format!("{BACKEND}/state"), "6")?;
            manager.release(GUEST)?;
        }
        assert!(machine.xen.holdings(GUEST).is_empty(), "fault {number}");
    }
    Ok(())
}

#[test]
fn a_fault_at_any_write_of_making_assignable_and_back_leaves_it_as_it_was() -> Tested {
    for number in 1..MOST {
        let machine = Machine::new();
        let manager = machine.open()?;
        let before = machine.look();
        machine.expect(&[(number, Fails)]);
        let result = manager.assignable_add(device(0), None);
        let struck = machine.fate.struck();
        machine.expect(&[]);
        if struck == 0 {
            result?;
            break;
        }
        assert!(result.is_err(), "fault {number}");
        assert_eq!(machine.look(), before, "fault {number}");
        assert_eq!(manager.owner(device(0)), Some(Owner::Host));
        manager.assignable_add(device(0), None)?;
        let assignable = machine.look();
        machine.expect(&[(number, Fails)]);
        let result = manager.assignable_remove(device(0), Afterwards::Rebind);
        let struck = machine.fate.struck();
        machine.expect(&[]);
        if struck == 0 {
            result?;
            continue;
        }
        assert!(result.is_err(), "fault {number}");
        assert_eq!(machine.look(), assignable, "fault {number}");
        assert_eq!(manager.owner(device(0)), Some(Owner::Quarantine));
        manager.assignable_remove(device(0), Afterwards::Rebind)?;
        assert_eq!(machine.look(), before);
    }
    Ok(())
}

#[test]
fn what_is_already_the_guests_is_said_so_after_a_crash_behind_the_publication() -> Tested {
    let machine = Machine::new().with_assignable(1)?;
    attach(&machine.open()?, &[0])?;
    let again = attach(&machine.open()?, &[0]);
    assert_eq!(again, Err(PcibackError::Already(device(0)).into()));
    Ok(())
}
