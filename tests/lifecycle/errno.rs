//! `errno()`: every error has the number that a C caller expects.

use pcidevs::lifecycle::{AttachRefused, TransitionError};
use pcidevs::platform::{GroupId, Hook, HookError, Refusal};
use pcidevs::{AccessError, CreateDomainError, DomainId, Errno, NoMemory, Owner, TicketError, WouldDeadlock};

use crate::scaffold::{GUEST, OUTAGE, at, fail, machine, set};

#[test]
fn of_transitions() {
    let device = at("00:03.0");
    let other = at("00:04.0");
    let owner = Owner::Host;
    let errors = [
        (TransitionError::NotFound(device), Errno::ENODEV),
        (TransitionError::NoPf { vf: device, pf: other }, Errno::ENODEV),
        (TransitionError::Duplicate(device), Errno::EINVAL),
        (TransitionError::Taken { device, owner }, Errno::EBUSY),
        (TransitionError::NotOwned { device, owner }, Errno::ENODEV),
        (TransitionError::Hidden(device), Errno::EPERM),
        (TransitionError::Broken { device, because: OUTAGE }, Errno::EBADF),
        (TransitionError::NotBroken(device), Errno::EINVAL),
        (TransitionError::DmaNotBlocked(device), Errno::EBUSY),
        (TransitionError::NotEndpoint(device), Errno::EINVAL),
        (TransitionError::NotBridge(device), Errno::EINVAL),
        (TransitionError::NoDomain(GUEST), Errno::ESRCH),
        (TransitionError::Dying(GUEST), Errno::EINVAL),
        (TransitionError::NotReleased { domain: GUEST, devices: 1 }, Errno::EBUSY),
        (TransitionError::Refused(device, Refusal::Denied), Errno::EPERM),
        (TransitionError::Refused(device, Refusal::NoPassthrough), Errno::EXDEV),
        (TransitionError::Refused(device, Refusal::ToItself), Errno::EINVAL),
        (TransitionError::Refused(device, Refusal::Dying), Errno::EINVAL),
        (TransitionError::Refused(device, Refusal::ReservedMemory), Errno::EPERM),
        (TransitionError::Refused(device, Refusal::NoInterruptRemapping), Errno::EPERM),
        (TransitionError::Refused(device, Refusal::NoIommu), Errno::EOPNOTSUPP),
        (TransitionError::MsixMasked(device), Errno::EBUSY),
        (TransitionError::NoMsix(device), Errno::ENODEV),
        (TransitionError::VectorsInUse(device), Errno::EBUSY),
        (
            TransitionError::GroupNotViable { group: GroupId(1), in_the_way: vec![(other, owner)] },
            Errno::EBUSY,
        ),
        (TransitionError::GroupBusy(device), Errno::EBUSY),
        (TransitionError::Inseparable { device, other }, Errno::EBUSY),
        (TransitionError::OthersInReset { device, other, owner }, Errno::EBUSY),
        (TransitionError::SlotTaken(device), Errno::EEXIST),
        (TransitionError::NoFreeSlot, Errno::ENOSPC),
        (TransitionError::NotAsked(device), Errno::EINVAL),
        (TransitionError::Topology(device), Errno::EINVAL),
        (TransitionError::Gone(device), Errno::ENODEV),
        (TransitionError::Ticket(TicketError::Gone), Errno::ENODEV),
        (TransitionError::Ticket(TicketError::Over), Errno::EINVAL),
        (TransitionError::Ticket(TicketError::TimedOut), Errno::ETIMEDOUT),
        (TransitionError::WouldDeadlock(WouldDeadlock), Errno::EDEADLK),
        (TransitionError::NoMemory(NoMemory), Errno::ENOMEM),
    ];
    for (error, errno) in errors {
        assert_eq!(error.errno(), errno, "{error:?}");
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn of_a_failing_hook_is_the_hooks_own() {
    for number in [1, 5, 110, 4095] {
        let machine = machine(&["00:03.0"]);
        let error = HookError::new(Errno::new(number), "strange");
        machine.platform().fail_next(Hook::IommuBlock, pcidevs::platform::Fault::Error(error));
        let refused = machine.assign(&set(&["00:03.0"]), GUEST).expect_err("a hook failed");
        assert_eq!(refused.errno().number(), number);
    }
}

#[test]
fn of_the_rest() {
    assert_eq!(AttachRefused::Transition.errno(), Errno::EBUSY);
    assert_eq!(AttachRefused::Broken.errno(), Errno::EBADF);
    assert_eq!(AttachRefused::NoMemory(NoMemory).errno(), Errno::ENOMEM);
    assert_eq!(AccessError::NotFound.errno(), Errno::ENODEV);
    assert_eq!(AccessError::WouldDeadlock(WouldDeadlock).errno(), Errno::EDEADLK);
    assert_eq!(CreateDomainError::Exists(DomainId::new(1)).errno(), Errno::EEXIST);
    assert_eq!(CreateDomainError::NoMemory(NoMemory).errno(), Errno::ENOMEM);
    assert_eq!(TicketError::WouldDeadlock(WouldDeadlock).errno(), Errno::EDEADLK);
}

#[test]
fn the_text_of_a_failure_names_device_step_reason_and_what_could_not_be_undone() {
    let machine = machine(&["00:03.0"]);
    fail(&machine, Hook::Reset);
    let error = machine.assign(&set(&["00:03.0"]), GUEST).expect_err("a hook failed");
    assert_eq!(error.to_string(), "0000:00:03.0: reset: outage (EIO)");
}
