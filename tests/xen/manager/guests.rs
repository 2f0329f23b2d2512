//! Guests that cannot have devices, do not answer, give up, or die.

use pcidevs::xen::hypercall::{DomainInfo, DomainKind, HypercallError, Passthrough, Unsuitable};
use pcidevs::xen::manager::{Waiting, XenError};
use pcidevs::xen::pciback::{Outcome, PcibackError, State, Unsettled};
use pcidevs::{DomainId, Errno, Owner};

use super::{BACKEND, FRONTEND, GUEST, Machine, attach, device, set};
use crate::Tested;

#[test]
fn who_cannot_have_devices_is_told_why_and_nothing_is_touched() -> Tested {
    let (stub, driver, hvm, without) =
        (DomainId::new(20), DomainId::new(21), DomainId::new(22), DomainId::new(23));
    let machine = Machine::new().with_assignable(1)?;
    for guest in [stub, driver] {
        machine.xen.create(DomainInfo::guest(guest));
    }
    let mut info = DomainInfo::guest(hvm);
    info.kind = DomainKind::Hvm;
    machine.xen.create(info);
    let mut info = DomainInfo::guest(without);
    info.passthrough = Passthrough::Disabled;
    machine.xen.create(info);
    machine.write("/local/domain/20/target", "22")?;
    machine.write("/local/domain/21/libxl", "")?;
    let before = machine.look();
    let manager = machine.open()?;
    let nobody = DomainId::new(99);
    let refused = [
        (stub, XenError::StubDomain(stub), Errno::EXDEV),
        (driver, XenError::DriverDomain(driver), Errno::EXDEV),
        (hvm, Unsuitable::Kind { domain: hvm, kind: DomainKind::Hvm }.into(), Errno::EXDEV),
        (without, Unsuitable::NoPassthrough(without).into(), Errno::EXDEV),
        (nobody, HypercallError::NoDomain(nobody).into(), Errno::ESRCH),
    ];
    for (guest, error, errno) in refused {
        assert_eq!(manager.attach(guest, &set([0]), Waiting::No), Err(error.clone()));
        assert_eq!(error.errno(), errno);
        assert_eq!(machine.look(), before);
    }
    let text = XenError::from(Unsuitable::NoPassthrough(without)).to_string();
    assert!(text.contains("passthrough = \"enabled\"") && text.contains("e820_host = 1"), "{text}");
    Ok(())
}

/// A guest that runs and has function 0, at rest.
fn at_rest() -> Result<Machine, Box<dyn std::error::Error>> {
    let machine = Machine::new().with_assignable(3)?;
    machine.store.connect().introduce(GUEST, 1, 2)?;
    attach(&machine.open()?, &[0])?;
    machine.come_to_rest(1)?;
    Ok(machine)
}

#[test]
fn a_front_end_that_is_silent_gets_nothing_and_our_side_is_as_before() -> Tested {
    let machine = at_rest()?;
    let mut before = machine.look();
    let manager = machine.open()?;
    let refused = attach(&manager, &[1, 2]);
    let stuck = Unsettled::Stuck { backend: Some(State::Reconfiguring), frontend: Some(State::Connected) };
    let error = PcibackError::Unsettled { unsettled: stuck, outcome: Outcome::Withdrawn };
    assert_eq!(refused, Err(error.into()));
    // "Reconfiguring" stays, so that a front end that answers late is answered.
    for line in before.store.iter_mut().filter(|line| **line == format!("{BACKEND}/state = 4")) {
        *line = format!("{BACKEND}/state = 7");
    }
    assert_eq!(machine.look(), before);
    assert_eq!(
        [0, 1].map(|function| manager.owner(device(function))),
        [Some(Owner::Guest(GUEST)), Some(Owner::Quarantine),]
    );
    Ok(())
}

#[test]
fn a_guest_that_does_not_let_go_keeps_what_it_has_and_is_not_broken() -> Tested {
    let machine = at_rest()?;
    let manager = machine.open()?;
    let refused = manager.detach(GUEST, &[device(0)]).err().ok_or("stuck")?;
    assert_eq!(refused.errno(), Errno::ETIMEDOUT);
    assert_eq!(manager.owner(device(0)), Some(Owner::Guest(GUEST)));
    assert_eq!(machine.xen.owner(device(0)), Some(Owner::Guest(GUEST)));
    // It comes to rest, and the next attempt goes on.
    machine.come_to_rest(1)?;
    let again = manager.detach(GUEST, &[device(0)]).err().ok_or("stuck again")?;
    assert_eq!(again.errno(), Errno::ETIMEDOUT);
    Ok(())
}

#[test]
fn a_guest_that_has_begun_has_the_devices_and_the_caller_is_told() -> Tested {
    let machine = at_rest()?;
    let manager = machine.open()?;
    machine.store.connect().introduce(GUEST, 1, 2)?;
    // A front end that goes to 7 as soon as it is asked, and stays there: the driver may be at it.
    let World::Memory(server) = &machine.store else { return Err("in memory".into()) };
    let server = server.clone();
    let done = std::thread::spawn(move || {
        loop {
            let begun = server.with_database(|database| {
                database.text("/local/domain/0/backend/pci/7/0/state") == Some("7")
            });
            if begun {
                let mut store = server.connect();
                return crate::pciback::set(&mut store, FRONTEND, "state", "7").is_ok();
            }
            std::thread::yield_now();
        }
    });
    let attached = attach(&manager, &[1]);
    assert!(done.join().map_err(|_| "the front end failed")?);
    // Time is simulated: the tool stack may have been faster than the front end, and has then taken it back.
    match attached {
        Ok(attached) => {
            let pending = attached.pending.ok_or("pending")?;
            assert!(
                matches!(pending, PcibackError::Unsettled { outcome: Outcome::Pending, .. }),
                "{pending}"
            );
            assert_eq!(machine.xen.owner(device(1)), Some(Owner::Guest(GUEST)));
            assert_eq!(manager.owner(device(1)), Some(Owner::Guest(GUEST)));
        }
        Err(error) => {
            assert_eq!(error.errno(), Errno::ETIMEDOUT);
            assert_eq!(machine.xen.owner(device(1)), Some(Owner::Quarantine));
        }
    }
    Ok(())
}

#[test]
fn a_backend_that_has_given_up_is_told_and_released() -> Tested {
    for over in [State::Closing, State::Closed] {
        let machine = at_rest()?;
        machine.write(&format!("{BACKEND}/state"), &over.number())?;
        let before = machine.look();
        let manager = machine.open()?;
        let error = PcibackError::Unsettled { unsettled: Unsettled::Over(over), outcome: Outcome::NotBegun };
        assert_eq!(attach(&manager, &[1]), Err(error.clone().into()));
        assert_eq!(manager.detach(GUEST, &[device(0)]), Err(error.into()));
        assert_eq!(machine.look(), before);
        let released = manager.release(GUEST)?;
        assert_eq!((released.devices, released.by_driver), (vec![device(0)], over == State::Closed));
        assert!(machine.xen.holdings(GUEST).is_empty());
        assert_eq!(machine.xen.owner(device(0)), Some(Owner::Quarantine));
        assert_eq!(machine.left(), [""; 0]);
        // The guest can have devices again.
        attach(&manager, &[1])?;
    }
    Ok(())
}

#[test]
fn a_dead_guest_is_told_and_leaves_nothing_when_it_is_released() -> Tested {
    // Known to the hypervisor or not any more.
    for destroyed in [false, true] {
        let machine = at_rest()?;
        let manager = machine.open()?;
        assert_eq!(manager.release(GUEST), Err(XenError::Alive(GUEST)));
        machine.store.kill(GUEST);
        if destroyed {
            machine.xen.destroy(GUEST);
        }
        let refused = attach(&manager, &[1]).err().ok_or("dead")?;
        assert_eq!(refused.errno(), Errno::ESRCH, "{refused}");
        assert_eq!(manager.owner(device(1)), Some(Owner::Quarantine));
        let refused = manager.detach(GUEST, &[device(0)]).err().ok_or("dead")?;
        assert_eq!(refused.errno(), Errno::ESRCH);
        let released = manager.release(GUEST)?;
        assert_eq!(released.devices, [device(0)]);
        assert_eq!(machine.left(), [""; 0]);
        assert_eq!(machine.xen.owner(device(0)), Some(Owner::Quarantine));
        assert!(machine.xen.holdings(GUEST).is_empty());
        manager.assignable_remove(device(0), pcidevs::xen::assignable::Afterwards::Rebind)?;
        assert_eq!(machine.kernel.driver(device(0)).as_deref(), Some("igb"));
    }
    Ok(())
}

#[test]
fn a_first_attach_that_is_waited_for_and_gets_nowhere_is_taken_back() -> Tested {
    let machine = Machine::new().with_assignable(2)?;
    machine.store.connect().introduce(GUEST, 1, 2)?;
    let before = machine.look();
    let manager = machine.open()?;
    let refused =
        manager.attach(GUEST, &set([0, 1]), Waiting::UntilConnected).err().ok_or("nobody answers")?;
    assert_eq!(refused.errno(), Errno::ETIMEDOUT);
    assert_eq!(machine.look(), before);
    attach(&manager, &[0, 1])?;
    Ok(())
}

use crate::stores::World;
