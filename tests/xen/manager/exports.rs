//! What an export is, and what it leaves.

use pcidevs::xen::assignable::{Added, Afterwards, AssignableError};
use pcidevs::xen::hypercall::{Access, Frames, Gsi, Hypercall, Pirq, QUARANTINE};
use pcidevs::xen::manager::{Waiting, XenError};
use pcidevs::xen::pciback::PcibackError;
use pcidevs::{Errno, Owner};

use super::{GUEST, Machine, OTHER, attach, device, long, set};
use crate::Tested;
use crate::kernels::{Faults, Kernels};
use crate::stores::on_every_store;

#[test]
fn an_export_grants_first_and_publishes_last() -> Tested {
    let machine = Machine::new().with_assignable(2)?;
    let manager = machine.open()?;
    let before = machine.xen.calls().len();
    attach(&manager, &[0])?;
    let calls: Vec<_> = machine.xen.calls().split_off(before);
    let frames = Frames::new(0xfe000, 2).ok_or("frames")?;
    let ports = pcidevs::xen::hypercall::Ports::new(0xc000, 32).ok_or("ports")?;
    let (line, pirq) = (Gsi::new(16).ok_or("a line")?, Pirq::new(16).ok_or("an interrupt")?);
    let expected = [
        Hypercall::Ioport(ports, Access::Allow),
        Hypercall::Iomem(frames, Access::Allow),
        Hypercall::MapPirq(line),
        Hypercall::Irq(pirq, Access::Allow),
        Hypercall::Assign(device(0)),
    ];
    let asked: Vec<_> = calls.into_iter().filter(|(_, call)| *call != Hypercall::Domain).collect();
    assert_eq!(asked, expected.map(|call| (GUEST, call)));
    assert_eq!(machine.xen.owner(device(0)), Some(Owner::Guest(GUEST)));
    assert_eq!(manager.owner(device(0)), Some(Owner::Guest(GUEST)));
    Ok(())
}

#[test]
fn what_a_guest_has_is_busy_by_the_name_of_its_export() -> Tested {
    let machine = Machine::new().with_assignable(1)?;
    for manager in [machine.open()?, {
        attach(&machine.open()?, &[0])?;
        machine.open()?
    }] {
        if manager.owner(device(0)) == Some(Owner::Quarantine) {
            continue;
        }
        let refused = manager.remove_device(device(0)).err().ok_or("busy")?;
        assert_eq!(refused.errno(), Errno::EBUSY);
        assert!(refused.to_string().contains("pciback export of domain 7"), "{refused}");
        let refused = manager.assignable_remove(device(0), Afterwards::Rebind).err().ok_or("busy")?;
        assert!(refused.to_string().contains("pciback export of domain 7"), "{refused}");
        assert_eq!(machine.kernel.pciback_warnings(), 0);
    }
    Ok(())
}

#[test]
fn what_nobody_has_can_be_removed_from_the_machine() -> Tested {
    let machine = Machine::new().with_assignable(1)?;
    let manager = machine.open()?;
    manager.remove_device(device(0))?;
    manager.remove_device(device(1))?;
    assert_eq!(manager.owner(device(0)), None);
    Ok(())
}

#[test]
fn a_guest_gets_what_is_on_pciback_and_nobody_elses() -> Tested {
    let machine = Machine::new().with_assignable(2)?;
    let manager = machine.open()?;
    attach(&manager, &[0])?;
    let before = machine.look();
    let nobody = "0000:09:00.0".parse()?;
    let refused = [
        (GUEST, set([1, 2]), XenError::from(AssignableError::NotAssignable(device(2)))),
        (GUEST, set([0]), PcibackError::Already(device(0)).into()),
        (OTHER, set([1, 0]), PcibackError::Held { device: device(0), guest: GUEST }.into()),
        (GUEST, vec![pcidevs::xen::pciback::Export::of(nobody)], AssignableError::NotFound(nobody).into()),
        (GUEST, set([1, 1]), PcibackError::Set.into()),
        (GUEST, Vec::new(), PcibackError::Set.into()),
    ];
    for (guest, wanted, error) in refused {
        assert_eq!(manager.attach(guest, &wanted, Waiting::No), Err(error));
        assert_eq!(machine.look(), before);
    }
    assert_eq!(manager.detach(OTHER, &[device(0)]), Err(PcibackError::NotExported(device(0)).into()));
    assert_eq!(machine.look(), before);
    Ok(())
}

#[test]
fn a_running_guest_gets_more_and_loses_some_and_nothing_is_left() -> Tested {
    on_every_store(|world| {
        let machine = Machine::on(world.clone()).with_assignable(4)?;
        let assignable = machine.look();
        let kernels = Kernels::start(world, Faults::Told)?;
        let manager = machine.open_with(long())?;
        manager.attach(GUEST, &set([0, 1]), Waiting::UntilConnected)?;
        assert_eq!(attach(&manager, &[2, 3])?.pending, None);
        let (_, all) = manager.exports()?.pop().ok_or("a guest with devices")?;
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|one| one.guest_address.is_some()), "{all:?}");
        manager.detach(GUEST, &[device(1), device(3)])?;
        assert_eq!(manager.owner(device(1)), Some(Owner::Quarantine));
        assert_eq!(manager.exports()?[0].1.len(), 2);
        // Another process goes on.
        drop(manager);
        let manager = machine.open_with(long())?;
        manager.detach(GUEST, &[device(0), device(2)])?;
        kernels.end()?;
        let after = machine.look();
        assert_eq!((after.holdings, after.owners), (assignable.holdings, assignable.owners));
        assert_eq!(machine.left(), [""; 0]);
        Ok(())
    })
}

#[test]
fn what_two_devices_of_a_guest_share_goes_with_the_last() -> Tested {
    let machine = Machine::new().with_assignable(2)?;
    let manager = machine.open()?;
    // Both on line 16.
    attach(&manager, &[0, 1])?;
    machine.store.connect().introduce(GUEST, 1, 2)?;
    machine.write(&format!("{}/state", super::BACKEND), "5")?;
    let line = Pirq::new(16).ok_or("an interrupt")?;
    assert!(machine.xen.holdings(GUEST).irqs.contains(&line));
    manager.release(GUEST)?;
    assert!(machine.xen.holdings(GUEST).is_empty());
    let unmapped = machine.xen.calls().iter().filter(|(_, call)| *call == Hypercall::UnmapPirq(line)).count();
    assert_eq!(unmapped, 1);
    Ok(())
}

#[test]
fn permissive_is_pcibacks_before_the_guest_sees_the_device() -> Tested {
    let machine = Machine::new().with_assignable(2)?;
    let mut wanted = set([0, 1]);
    wanted[0].options.permissive = true;
    machine.open()?.attach(GUEST, &wanted, Waiting::No)?;
    assert_eq!([0, 1].map(|function| machine.kernel.is_permissive(device(function))), [true, false]);
    Ok(())
}

#[test]
fn devices_become_assignable_and_go_back_through_the_engine() -> Tested {
    let machine = Machine::new();
    let before = machine.look();
    let manager = machine.open()?;
    assert_eq!(manager.assignable_add(device(0), Some("uplink"))?, Added::Now);
    assert_eq!(manager.assignable_add(device(0), None)?, Added::Before);
    assert_eq!(manager.owner(device(0)), Some(Owner::Quarantine));
    assert_eq!(manager.named("uplink")?, Some(device(0)));
    assert_eq!(machine.open()?.owner(device(0)), Some(Owner::Quarantine));
    let driver = manager.assignable_remove(device(0), Afterwards::Rebind)?;
    assert_eq!(driver.map(String::from).as_deref(), Some("igb"));
    assert_eq!(manager.owner(device(0)), Some(Owner::Host));
    assert_eq!(machine.look(), before);
    assert!(machine.xen.calls().contains(&(QUARANTINE, Hypercall::Deassign(device(0)))));
    Ok(())
}
