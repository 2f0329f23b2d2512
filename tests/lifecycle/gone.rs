//! `report_gone`: the hardware is gone already, and everything lets go of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pcidevs::lifecycle::{Added, DeviceInfo, TransitionError};
use pcidevs::platform::{Entry, Fault, Hook};
use pcidevs::{Errno, Holder, Owner};

use crate::bench::{IRQFD, SLOT};
use crate::scaffold::{
    GUEST, Machine, OUTAGE, TO_GUEST, assigned, at, busy, check, empty, entry, errno, listed, machine, nic,
    owner, plug, plug_vf, port, set, while_it_hangs,
};

const NIC: &str = "00:03.0";

fn add_again(machine: &Machine) -> Result<Added<u32>, TransitionError> {
    machine.platform().plug(at(NIC), nic());
    machine.add(at(NIC), DeviceInfo::default(), 1).map_err(|error| error.reason)
}

#[test]
fn gone_leaves_every_list_at_once_and_is_freed_at_its_last_put() {
    let machine = assigned(&[NIC]);
    let handle = machine.get(at(NIC)).expect("known");
    machine.platform().unplug(at(NIC));
    machine.report_gone(at(NIC)).expect("known");
    assert!(machine.get(at(NIC)).is_none() && machine.lock(at(NIC)).is_err() && handle.lock().is_err());
    assert!(listed(&machine, TO_GUEST).is_empty() && machine.status(at(NIC)).is_none());
    assert_eq!(entry(&machine, NIC), Entry::Absent);
    drop(handle);
    let again = machine.report_gone(at(NIC));
    assert_eq!(again, Err(TransitionError::NotFound(at(NIC))));
    assert_eq!(errno(again), Errno::ENODEV);
    check(&machine);
}

#[test]
fn holders_are_told() {
    let machine = machine(&[NIC]);
    let told = Arc::new(AtomicUsize::new(0));
    let hold = machine.hold(at(NIC), Holder::Named("driver")).expect("memory").expect("known");
    let count = Arc::clone(&told);
    hold.on_gone(Arc::new(move |address, holder| {
        assert_eq!((address, holder), (at(NIC), Holder::Named("driver")));
        count.fetch_add(1, Ordering::Relaxed);
    }));
    machine.report_gone(at(NIC)).expect("known");
    assert_eq!(told.load(Ordering::Relaxed), 1);
}

#[test]
fn attachments_are_undone_in_reverse_without_hardware_and_then_the_iommu() {
    let machine = machine(&[NIC]);
    for kind in [IRQFD, SLOT] {
        let thing = machine.platform().thing(kind, at(NIC));
        machine.lock(at(NIC)).expect("known").attach(thing).expect("registered");
    }
    machine.platform().record(true);
    machine.platform().watch_config(true);
    machine.report_gone(at(NIC)).expect("known");
    let expected = [
        "undo without hardware memory slot of 0000:00:03.0",
        "undo without hardware irqfd of 0000:00:03.0",
        "undo without hardware vPCI of 0000:00:03.0",
        "iommu_detach 0000:00:03.0 as 0000:00:03.0",
        "iommu_flush 0000:00:03.0",
    ];
    assert_eq!(machine.platform().story(), expected);
    assert_eq!((machine.platform().things(), machine.platform().lost()), (vec![], 0));
}

#[test]
fn the_guests_slot_stays_taken_until_it_acknowledges() {
    let machine = assigned(&[NIC]);
    let guest = machine.domain(GUEST).expect("known");
    machine.report_gone(at(NIC)).expect("known");
    assert!(guest.lock(at("00:00.0")).is_err(), "reads ones");
    plug(&machine, NIC, nic());
    let taken = machine.assign(&[pcidevs::Member::at(at(NIC), at("00:00.0"))], GUEST);
    assert_eq!(taken, Err(TransitionError::SlotTaken(at("00:00.0"))));
    assert_eq!(guest.acknowledge_gone(at("00:00.0")), Ok(true));
    machine.assign(&[pcidevs::Member::at(at(NIC), at("00:00.0"))], GUEST).expect("free");
    check(&machine);
}

#[test]
fn a_pf_takes_its_vfs_with_it_and_a_bridge_its_subtree() {
    let machine = empty();
    plug(&machine, "00:01.0", port(1, 4));
    plug(&machine, "01:00.0", nic());
    plug_vf(&machine, "02:00.0", "01:00.0");
    plug_vf(&machine, "02:00.1", "01:00.0");
    plug(&machine, "01:01.0", port(3, 4));
    plug(&machine, "03:00.0", nic());
    plug(&machine, "00:1f.0", nic());
    machine.assign(&set(&["03:00.0"]), GUEST).expect("assigned");
    machine.report_gone(at("01:00.0")).expect("known");
    let left = || machine.devices().map(|device| device.status.address.to_string()).collect::<Vec<_>>();
    assert_eq!(left(), ["0000:00:01.0", "0000:00:1f.0", "0000:01:01.0", "0000:03:00.0"]);
    machine.report_gone(at("00:01.0")).expect("known");
    assert_eq!(left(), ["0000:00:1f.0"]);
    assert_eq!(machine.platform().entries().len(), 1);
    check(&machine);
}

#[test]
fn the_address_is_busy_with_the_dma_teardown_until_it_is_cleared() {
    for hook in [Hook::IommuDetach, Hook::IommuFlush] {
        let machine = machine(&[NIC]);
        machine.platform().fail_every(hook, Fault::Error(OUTAGE));
        machine.report_gone(at(NIC)).expect("gone all the same");
        for _ in 0..2 {
            let refused = add_again(&machine);
            assert_eq!(refused.as_ref().map_err(TransitionError::errno), Err(Errno::EBUSY));
            assert_eq!(busy(refused).holders, [Holder::DmaTeardown], "{hook}");
            assert_eq!(machine.run_deferred(), 1, "still failing");
        }
        machine.platform().clear_faults();
        assert_eq!(machine.run_deferred(), 0);
        assert_eq!(add_again(&machine), Ok(Added::New));
        check(&machine);
    }
}

#[test]
fn an_attachment_that_cannot_be_undone_keeps_the_address_too() {
    let machine = machine(&[NIC]);
    machine.platform().fail_every(Hook::Facts, Fault::Error(OUTAGE));
    machine.report_gone(at(NIC)).expect("gone all the same");
    machine.platform().clear_faults();
    assert_eq!(busy(add_again(&machine)).holders, [Holder::DmaTeardown]);
    assert_eq!(entry(&machine, NIC), Entry::Attached(Owner::Host), "in order: not yet");
    assert_eq!(machine.run_deferred(), 0);
    assert_eq!(add_again(&machine), Ok(Added::New));
    check(&machine);
}

#[test]
fn a_phantom_or_alias_of_a_teardown_keeps_others_out_too() {
    let machine = empty();
    plug(&machine, NIC, nic().phantom_bits(1));
    machine.platform().fail_every(Hook::IommuDetach, Fault::Error(OUTAGE));
    machine.report_gone(at(NIC)).expect("gone all the same");
    machine.platform().clear_faults();
    machine.platform().plug(at("00:03.4"), nic());
    let refused = machine.add(at("00:03.4"), DeviceInfo::default(), 1).map_err(|error| error.reason);
    assert_eq!(busy(refused).holders, [Holder::DmaTeardown]);
    assert_eq!(machine.run_deferred(), 0);
    plug(&machine, "00:03.4", nic());
    check(&machine);
}

#[test]
fn a_transition_gets_gone_at_its_next_step_and_touches_the_hardware_no_more() {
    for hook in
        [Hook::AwaitIdle, Hook::IommuBlock, Hook::IommuFlush, Hook::Reset, Hook::IommuAttach, Hook::Bind]
    {
        let machine = machine(&[NIC, "00:04.0"]);
        machine.platform().record(true);
        let before_other = machine.status(at("00:04.0"));
        let ended = while_it_hangs(
            &machine,
            hook,
            || machine.assign(&set(&[NIC, "00:04.0"]), GUEST),
            || {
                machine.report_gone(at(NIC)).expect("it ignores claims");
                machine.platform().take_journal();
            },
        );
        assert_eq!(ended, Err(TransitionError::Gone(at(NIC))), "{hook}");
        assert_eq!(errno(ended), Errno::ENODEV);
        let calls = machine.platform().take_journal();
        let of_gone = calls.iter().filter(|call| call.device == Some(at(NIC)));
        let hooks: Vec<_> = of_gone.map(|call| call.hook).collect();
        assert_eq!(hooks, [Hook::IommuDetach, Hook::IommuFlush], "{hook}: only the teardown");
        assert_eq!(machine.status(at("00:04.0")), before_other, "{hook}");
        assert_eq!(machine.platform().lost(), 0, "{hook}");
        check(&machine);
        plug(&machine, NIC, nic());
        machine.assign(&set(&[NIC, "00:04.0"]), GUEST).expect("nothing is in the way");
        check(&machine);
    }
}

#[test]
fn gone_during_deassign_reset_remove_and_msi() {
    type Operation = fn(&Machine) -> Result<(), TransitionError>;
    let operations: [(Hook, Operation); 4] = [
        (Hook::Reset, |machine| machine.deassign(&set(&[NIC]), TO_GUEST)),
        (Hook::Reset, |machine| machine.reset(at(NIC), pcidevs::platform::ResetKind::Flr)),
        (Hook::Bind, |machine| machine.report_reset(at(NIC), pcidevs::platform::ResetKind::Flr)),
        (Hook::MsixPrepare, |machine| machine.msi_prepare(at(NIC))),
    ];
    for (hook, operation) in operations {
        let machine = assigned(&[NIC]);
        let ended = while_it_hangs(
            &machine,
            hook,
            || operation(&machine),
            || machine.report_gone(at(NIC)).expect("it ignores claims"),
        );
        assert_eq!(ended, Err(TransitionError::Gone(at(NIC))), "{hook}");
        assert_eq!(machine.platform().lost(), 0);
        assert_eq!(entry(&machine, NIC), Entry::Absent);
        assert_eq!(add_again(&machine), Ok(Added::New));
        check(&machine);
    }
}

#[test]
fn gone_while_it_is_being_removed() {
    let machine = machine(&[NIC]);
    let removed = while_it_hangs(
        &machine,
        Hook::IommuDetach,
        || machine.remove_device(at(NIC)),
        || {
            // Closed already, and noted: the removal calls no further hook for it.
            machine.report_gone(at(NIC)).expect("still on its way out");
        },
    );
    assert!(matches!(removed, Err(TransitionError::Gone(_))), "{removed:?}");
    assert_eq!(owner(&machine, NIC), None, "it has left all the same");
    machine.run_deferred();
    check(&machine);
}

#[test]
fn gone_from_inside_the_device_would_deadlock() {
    let machine = machine(&[NIC]);
    let inside = machine.lock(at(NIC)).expect("known");
    let refused = machine.report_gone(at(NIC));
    assert_eq!(errno(refused), Errno::EDEADLK);
    drop(inside);
    assert_eq!(owner(&machine, NIC), Some(Owner::Host));
    check(&machine);
}

#[test]
fn a_broken_device_under_a_guest_can_go() {
    let machine = assigned(&[NIC]);
    machine.report_flush_timeout(at(NIC)).expect("known");
    machine.report_gone(at(NIC)).expect("known");
    assert_eq!(entry(&machine, NIC), Entry::Absent);
    machine.release_domain(GUEST).expect("nothing is left");
    assert_eq!(machine.platform().lost(), 0);
}

#[test]
fn shut_down_removes_what_is_unused_and_reports_the_rest_gone() {
    let machine = empty();
    plug(&machine, "00:01.0", port(1, 1));
    plug(&machine, "01:00.0", nic());
    plug(&machine, NIC, nic());
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    machine.shut_down();
    assert_eq!(machine.devices().count(), 0);
    assert!(machine.platform().entries().is_empty() && machine.platform().things().is_empty());
    assert_eq!(machine.platform().lost(), 0);
}
