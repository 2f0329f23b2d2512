//! `can_assign`: every answer of its own number, and nothing changes.

use pcidevs::lifecycle::{TransitionError, Visibility};
use pcidevs::platform::{ConfigBytes, Hook, Platform, Refusal, Rule, Width};
use pcidevs::{DomainId, Errno, Owner};

use crate::scaffold::{
    GUEST, MSIX_CONTROL, MSIX_ENABLE, MSIX_MASK, Machine, OTHER, OUTAGE, TO_GUEST, TO_OTHER, assigned, at,
    dump, empty, fail, failure, machine, nic, pci_bridge, plug, port, set, while_it_hangs,
};

const NIC: &str = "00:03.0";

/// What `can_assign` answers, `assign` answers too; neither changes anything.
fn refused(machine: &Machine, address: &str, guest: DomainId) -> (TransitionError, Errno) {
    let before = dump(machine);
    let error = machine.can_assign(at(address), guest).expect_err("refused");
    assert_eq!(dump(machine), before);
    assert_eq!(machine.assign(&set(&[address]), guest), Err(error.clone()));
    assert_eq!(dump(machine), before);
    let errno = error.errno();
    (error, errno)
}

#[test]
fn can_assign_says_yes_and_does_nothing() {
    let machine = machine(&[NIC]);
    let before = dump(&machine);
    machine.can_assign(at(NIC), GUEST).expect("free");
    machine.quarantine(&set(&[NIC])).expect("quarantined");
    machine.can_assign(at(NIC), GUEST).expect("from quarantine as well");
    machine.deassign(&set(&[NIC]), Owner::Quarantine).expect("deassigned");
    assert_eq!(dump(&machine).len(), before.len());
}

#[test]
fn unknown_is_enodev() {
    let machine = machine(&[NIC]);
    for address in ["00:04.0", "0007:00:00.0"] {
        let expected = (TransitionError::NotFound(at(address)), Errno::ENODEV);
        assert_eq!(refused(&machine, address, GUEST), expected);
    }
}

#[test]
fn taken_is_ebusy() {
    let machine = assigned(&[NIC]);
    for guest in [GUEST, OTHER] {
        let expected = TransitionError::Taken { device: at(NIC), owner: TO_GUEST };
        assert_eq!(refused(&machine, NIC, guest), (expected, Errno::EBUSY));
    }
}

#[test]
fn unowned_is_ebusy_and_hidden_is_eperm() {
    let machine = machine(&[NIC]);
    machine.platform().plug(at("00:04.0"), nic());
    machine.scan(at(NIC).segment(), |_| 1).expect("scanned");
    let expected = TransitionError::Taken { device: at("00:04.0"), owner: Owner::Unowned };
    assert_eq!(refused(&machine, "00:04.0", GUEST), (expected, Errno::EBUSY));
    machine.hide(at(NIC), Visibility::None).expect("unused");
    assert_eq!(refused(&machine, NIC, GUEST), (TransitionError::Hidden(at(NIC)), Errno::EPERM));
}

#[test]
fn broken_is_ebadf() {
    let machine = machine(&[NIC]);
    fail(&machine, Hook::IommuDetach);
    failure(machine.remove_device(at(NIC)));
    let expected = TransitionError::Broken { device: at(NIC), because: OUTAGE };
    assert_eq!(refused(&machine, NIC, GUEST), (expected, Errno::EBADF));
}

#[test]
fn a_dying_domain_is_einval_and_an_unknown_one_esrch() {
    let machine = machine(&[NIC, "00:04.0"]);
    machine.assign(&set(&["00:04.0"]), GUEST).expect("assigned");
    fail(&machine, Hook::IommuBlock);
    failure(machine.release_domain(GUEST));
    assert_eq!(refused(&machine, NIC, GUEST), (TransitionError::Dying(GUEST), Errno::EINVAL));
    let nobody = DomainId::new(99);
    assert_eq!(refused(&machine, NIC, nobody), (TransitionError::NoDomain(nobody), Errno::ESRCH));
}

#[test]
fn what_is_no_endpoint_is_einval() {
    let machine = empty();
    plug(&machine, "00:01.0", port(1, 1));
    plug(&machine, "00:02.0", pci_bridge(0, 2));
    plug(&machine, "00:00.0", ConfigBytes::endpoint(1, 2).class(0x06_00_00));
    plug(&machine, "00:05.0", ConfigBytes::endpoint(1, 2).class(0x06_07_00).header_type(2));
    plug(&machine, "00:06.0", ConfigBytes::endpoint(1, 2).header_type(0x7f));
    for address in ["00:00.0", "00:01.0", "00:02.0", "00:05.0", "00:06.0"] {
        let expected = (TransitionError::NotEndpoint(at(address)), Errno::EINVAL);
        assert_eq!(refused(&machine, address, GUEST), expected);
    }
}

#[test]
fn msix_masked_by_the_host_is_ebusy_but_not_in_quarantine() {
    let machine = machine(&[NIC]);
    let control = |value| machine.platform().config_write(at(NIC), MSIX_CONTROL, Width::Word, value);
    control(MSIX_ENABLE | MSIX_MASK);
    assert_eq!(refused(&machine, NIC, GUEST), (TransitionError::MsixMasked(at(NIC)), Errno::EBUSY));
    control(MSIX_MASK);
    machine.can_assign(at(NIC), GUEST).expect("not enabled, so nobody is in the middle of something");
    control(MSIX_ENABLE);
    machine.can_assign(at(NIC), GUEST).expect("not masked");
}

#[test]
fn every_refusal_of_the_policy_has_its_number() {
    let refusals = [
        (Refusal::Denied, Errno::EPERM),
        (Refusal::ReservedMemory, Errno::EPERM),
        (Refusal::NoInterruptRemapping, Errno::EPERM),
        (Refusal::NoPassthrough, Errno::EXDEV),
        (Refusal::ToItself, Errno::EINVAL),
        (Refusal::Dying, Errno::EINVAL),
        (Refusal::NoIommu, Errno::EOPNOTSUPP),
    ];
    for (refusal, errno) in refusals {
        let machine = machine(&[NIC]);
        machine.platform().refuse(Rule::new(refusal).to(TO_GUEST));
        assert_eq!(refusal.errno(), errno);
        assert_eq!(refused(&machine, NIC, GUEST), (TransitionError::Refused(at(NIC), refusal), errno));
        machine.assign(&set(&[NIC]), OTHER).expect("the rule is about the other guest");
        assert_eq!(crate::scaffold::owner(&machine, NIC), Some(TO_OTHER));
    }
}

#[test]
fn a_pending_removal_and_a_transition_are_ebusy() {
    let machine = machine(&[NIC]);
    let ticket = machine.begin_removal(at(NIC)).expect("known");
    let refusal = machine.can_assign(at(NIC), GUEST);
    assert!(matches!(refusal, Err(TransitionError::Busy(..))), "{refusal:?}");
    ticket.cancel().expect("pending");
    let quarantined = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.quarantine(&set(&[NIC])),
        || assert_eq!(machine.can_assign(at(NIC), GUEST).map_err(|error| error.errno()), Err(Errno::EBUSY)),
    );
    quarantined.expect("quarantined");
}

#[test]
fn a_panicking_policy_is_a_failure() {
    let machine = machine(&[NIC]);
    machine.platform().fail_next(Hook::Permit, pcidevs::platform::Fault::Panic);
    let failed = failure(machine.can_assign(at(NIC), GUEST));
    assert_eq!((failed.device, failed.error.errno()), (at(NIC), Errno::EIO));
}
