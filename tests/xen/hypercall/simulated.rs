//! The hypervisor in memory says no where the real one does, and where it is told to.

use pcidevs::xen::hypercall::{
    Access, DomainInfo, Frames, Gsi, Hypercall, HypercallError, Hypervisor, Libxenctrl, Passthrough, Pirq,
    Ports, QUARANTINE, Simulated,
};
use pcidevs::xen::spec::RdmPolicy::{Relaxed, Strict};
use pcidevs::{DomainId, Errno, Owner, Sbdf};

use super::number;
use crate::Tested;

const GUEST: DomainId = DomainId::new(3);
const OTHER: DomainId = DomainId::new(4);

fn machine() -> Result<(Simulated, Sbdf), Box<dyn std::error::Error>> {
    let (xen, device) = (Simulated::new(), "0000:03:00.0".parse()?);
    xen.create(DomainInfo::guest(GUEST));
    xen.create(DomainInfo::guest(OTHER));
    xen.plug(device);
    Ok((xen, device))
}

#[test]
fn a_device_goes_from_the_host_through_quarantine_to_one_guest_and_back() -> Tested {
    let (xen, device) = machine()?;
    xen.assign_device(QUARANTINE, device, Relaxed)?;
    assert_eq!(xen.owner(device), Some(Owner::Quarantine));
    xen.test_assign_device(GUEST, device)?;
    assert_eq!(xen.owner(device), Some(Owner::Quarantine));
    xen.assign_device(GUEST, device, Strict)?;
    assert_eq!(xen.owner(device), Some(Owner::Guest(GUEST)));

    assert_eq!(number(xen.assign_device(OTHER, device, Strict)), Err(Errno::EBUSY));
    assert_eq!(number(xen.test_assign_device(OTHER, device)), Err(Errno::EINVAL));
    assert_eq!(number(xen.deassign_device(OTHER, device)), Err(Errno::ENODEV));
    assert_eq!(number(xen.deassign_device(QUARANTINE, device)), Err(Errno::ENODEV));

    xen.deassign_device(GUEST, device)?;
    assert_eq!(xen.owner(device), Some(Owner::Quarantine));
    xen.deassign_device(QUARANTINE, device)?;
    assert_eq!(xen.owner(device), Some(Owner::Host));
    Ok(())
}

#[test]
fn a_guest_without_passthrough_and_one_that_is_gone_get_nothing() -> Tested {
    let (xen, device) = machine()?;
    let mut without = xen.domain(GUEST)?;
    without.passthrough = Passthrough::Disabled;
    xen.create(without);
    assert_eq!(number(xen.test_assign_device(GUEST, device)), Err(Errno::EOPNOTSUPP));
    assert_eq!(number(xen.assign_device(GUEST, device, Strict)), Err(Errno::EOPNOTSUPP));
    xen.assign_device(OTHER, device, Strict)?;
    xen.destroy(OTHER);
    assert_eq!(xen.owner(device), Some(Owner::Quarantine));
    assert_eq!(xen.domain(OTHER), Err(HypercallError::NoDomain(OTHER)));
    assert_eq!(number(xen.assign_device(OTHER, device, Strict)), Err(Errno::ESRCH));
    xen.unplug(device);
    assert_eq!(number(xen.assign_device(QUARANTINE, device, Strict)), Err(Errno::ENODEV));
    Ok(())
}

#[test]
fn what_is_given_is_not_counted() -> Tested {
    let (xen, _) = machine()?;
    let frames = Frames::covering(0xfe00_0000, 0xfe00_1fff).ok_or("frames")?;
    let ports = Ports::new(0xc000, 32).ok_or("ports")?;
    let (line, pirq) = (Gsi::new(22).ok_or("line")?, Pirq::new(22).ok_or("interrupt")?);
    for _ in 0..2 {
        xen.iomem_permission(GUEST, frames, Access::Allow)?;
        xen.ioport_permission(GUEST, ports, Access::Allow)?;
        assert_eq!(xen.map_pirq(GUEST, line)?, pirq);
        xen.irq_permission(GUEST, pirq, Access::Allow)?;
    }
    let holdings = xen.holdings(GUEST);
    assert_eq!(holdings.frames.iter().collect::<Vec<_>>(), [(0xfe000, 0xfe001)]);
    assert_eq!(holdings.ports.iter().collect::<Vec<_>>(), [(0xc000, 0xc01f)]);
    assert_eq!(holdings.pirqs.get(&pirq), Some(&line));
    assert!(holdings.irqs.contains(&pirq));

    xen.iomem_permission(GUEST, frames, Access::Deny)?;
    xen.ioport_permission(GUEST, ports, Access::Deny)?;
    xen.irq_permission(GUEST, pirq, Access::Deny)?;
    xen.unmap_pirq(GUEST, pirq)?;
    assert!(xen.holdings(GUEST).is_empty());
    assert!(xen.holdings(OTHER).is_empty());
    assert_eq!(number(xen.unmap_pirq(GUEST, pirq)), Err(Errno::EINVAL));
    Ok(())
}

type Question = fn(&Simulated, Sbdf) -> Result<(), HypercallError>;

/// Every call there is, on a machine where all of them work in this order.
const ALL: [Question; 9] = [
    |xen, _| xen.domain(GUEST).map(|_| ()),
    |xen, device| xen.test_assign_device(GUEST, device),
    |xen, device| xen.assign_device(GUEST, device, Strict),
    |xen, _| Frames::new(1, 1).map_or(Ok(()), |frames| xen.iomem_permission(GUEST, frames, Access::Allow)),
    |xen, _| Ports::new(1, 1).map_or(Ok(()), |ports| xen.ioport_permission(GUEST, ports, Access::Allow)),
    |xen, _| Gsi::new(1).map_or(Ok(()), |line| xen.map_pirq(GUEST, line).map(|_| ())),
    |xen, _| Pirq::new(1).map_or(Ok(()), |pirq| xen.irq_permission(GUEST, pirq, Access::Allow)),
    |xen, _| Pirq::new(1).map_or(Ok(()), |pirq| xen.unmap_pirq(GUEST, pirq)),
    |xen, device| xen.deassign_device(GUEST, device),
];

#[test]
fn each_call_can_fail_and_then_does_nothing() -> Tested {
    for (k, failing) in ALL.iter().enumerate() {
        let (xen, device) = machine()?;
        for before in &ALL[..k] {
            before(&xen, device)?;
        }
        let (holdings, owner) = (xen.holdings(GUEST), xen.owner(device));
        xen.fail_after(0, Errno::ENOMEM);
        assert_eq!(number(failing(&xen, device)), Err(Errno::ENOMEM), "call {k}");
        assert_eq!((xen.holdings(GUEST), xen.owner(device)), (holdings, owner), "call {k}");
        // Only that one.
        for after in &ALL[k..] {
            after(&xen, device)?;
        }
        assert_eq!(xen.calls().len(), ALL.len() + 1);
    }
    Ok(())
}

#[test]
fn a_call_can_fail_whenever_it_is_made() -> Tested {
    let (xen, device) = machine()?;
    xen.fail_always(GUEST, Hypercall::Assign(device), Errno::EIO);
    for _ in 0..2 {
        let refused = xen.assign_device(GUEST, device, Strict);
        let call = Hypercall::Assign(device);
        assert_eq!(refused, Err(HypercallError::Refused { call, domain: GUEST, errno: Errno::EIO }));
    }
    xen.assign_device(OTHER, device, Strict)?;
    xen.deassign_device(OTHER, device)?;
    xen.heal();
    xen.assign_device(GUEST, device, Strict)?;
    Ok(())
}

#[test]
fn where_there_is_no_xen_the_real_one_says_what_is_missing() {
    // On a machine with the library but without Xen it is the second; in domain 0 it opens.
    match Libxenctrl::open() {
        Ok(xen) => assert!(xen.domain(DomainId::new(0)).is_ok()),
        Err(HypercallError::NoLibrary { looked_for }) => assert!(!looked_for.is_empty()),
        Err(error) => {
            assert!(error.to_string().contains("Xen") || error.to_string().contains("hypervisor"), "{error}");
        }
    }
}

#[test]
fn ranges_that_do_not_exist_cannot_be_asked_for() {
    assert_eq!(Frames::new(0, 0), None);
    assert_eq!(Frames::new(1 << 52, 1), None);
    assert_eq!(Frames::covering(0, u64::MAX), Frames::new(0, 1 << 52));
    assert_eq!(Frames::covering(0xfff, 0x1000), Frames::new(0, 2));
    assert_eq!(Ports::new(0xffff, 2), None);
    assert_eq!(Ports::new(5, 0), None);
    assert_eq!(Gsi::new(1 << 31), None);
    assert_eq!(Pirq::new(u32::MAX), None);
}
