//! A panic in a hook counts as that step's failure, whatever the hook; nothing stays locked or claimed.

use pcidevs::platform::{Fault, Hook, Platform, ResetKind, Width};
use pcidevs::{Errno, Owner};

use crate::scaffold::{
    COMMAND, GUEST, MASTER, TO_GUEST, assigned, at, check, dump, empty, failure, machine, nic, plug, set,
};

const NIC: &str = "00:03.0";

#[test]
fn each_hook_of_assign_may_panic() {
    let hooks = [
        Hook::Permit,
        Hook::ResetScope,
        Hook::AwaitIdle,
        Hook::SetAts,
        Hook::IommuBlock,
        Hook::IommuFlush,
        Hook::Reset,
        Hook::IommuAttach,
        Hook::Bind,
    ];
    for hook in hooks {
        let machine = machine(&[NIC]);
        let before = dump(&machine);
        machine.platform().fail_next(hook, Fault::Panic);
        let failed = failure(machine.assign(&set(&[NIC]), GUEST));
        assert_eq!((failed.device, failed.error.errno()), (at(NIC), Errno::EIO), "{hook}");
        assert!(failed.error.to_string().contains("panicked"), "{hook}: {failed}");
        assert_eq!(dump(&machine), before, "{hook}");
        machine.assign(&set(&[NIC]), GUEST).expect("nothing is in the way");
        check(&machine);
    }
}

#[test]
fn a_hook_of_the_iommu_that_panics_after_its_work_is_undone_as_if_it_were_done() {
    for hook in [Hook::IommuBlock, Hook::IommuAttach] {
        let machine = machine(&[NIC]);
        let before = dump(&machine);
        machine.platform().panic_late(hook);
        assert_eq!(failure(machine.assign(&set(&[NIC]), GUEST)).error.errno(), Errno::EIO, "{hook}");
        assert_eq!(dump(&machine), before, "{hook}");
        machine.platform().panic_late(hook);
        machine.assign(&set(&[NIC]), GUEST).expect_err("again");
        check(&machine);
    }
    let machine = machine(&[NIC]);
    machine.platform().panic_late(Hook::IommuDetach);
    failure(machine.remove_device(at(NIC)));
    assert_eq!(crate::scaffold::entry(&machine, NIC), pcidevs::platform::Entry::Attached(Owner::Host));
    machine.remove_device(at(NIC)).expect("asked for again");
    machine.platform().plug(at(NIC), nic());
    machine.platform().panic_late(Hook::IommuAttach);
    machine.add(at(NIC), pcidevs::lifecycle::DeviceInfo::default(), 7).expect_err("it panicked");
    assert_eq!(crate::scaffold::entry(&machine, NIC), pcidevs::platform::Entry::Absent);
    plug(&machine, NIC, nic());
    check(&machine);
}

#[test]
fn a_bind_that_panics_with_the_device_in_hand_leaves_it_unlocked() {
    let machine = machine(&[NIC]);
    machine.platform().on_bind(|device, _| {
        // Not `panic!`, which would print.
        device.with(&mut |_| std::panic::resume_unwind(Box::new("inside the device")));
        Ok(None)
    });
    failure(machine.assign(&set(&[NIC]), GUEST));
    machine.platform().on_bind(|_, _| Ok(None));
    let device = machine.lock(at(NIC)).expect("unlocked");
    assert_eq!((device.owner(), device.is_claimed()), (Owner::Host, false));
    drop(device);
    machine.assign(&set(&[NIC]), GUEST).expect("nothing is in the way");
}

#[test]
fn each_configuration_access_of_assign_may_panic() {
    let accesses = {
        let machine = machine(&[NIC]);
        machine.platform().watch_config(true);
        machine.platform().record(true);
        machine.assign(&set(&[NIC]), GUEST).expect("assigned");
        machine.platform().take_journal()
    };
    for (number, _) in accesses.iter().enumerate().filter(|(_, call)| call.hook.is_config()) {
        let machine = machine(&[NIC]);
        let before = dump(&machine);
        machine.platform().watch_config(true);
        machine.platform().fail_call(u64::try_from(number).expect("few"), Fault::Panic);
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| machine.assign(&set(&[NIC]), GUEST)));
        machine.platform().watch_config(false);
        let failed = failure(result.expect("it is caught"));
        assert_eq!(failed.error.errno(), Errno::EIO, "access {number}");
        assert_eq!(dump(&machine), before, "access {number}");
        machine.assign(&set(&[NIC]), GUEST).expect("nothing is in the way");
        check(&machine);
    }
}

#[test]
fn each_hook_of_add_and_remove_may_panic() {
    for hook in [Hook::Permit, Hook::Facts, Hook::Bind, Hook::IommuAttach, Hook::IommuFlush] {
        let machine = empty();
        machine.platform().plug(at(NIC), nic());
        let before = dump(&machine);
        machine.platform().fail_next(hook, Fault::Panic);
        let added = machine.add(at(NIC), pcidevs::lifecycle::DeviceInfo::default(), 7);
        assert_eq!(failure(added.map_err(|error| error.reason)).error.errno(), Errno::EIO, "{hook}");
        assert_eq!(dump(&machine), before, "{hook}");
        plug(&machine, NIC, nic());
        machine.platform().fail_next(Hook::IommuDetach, Fault::Panic);
        failure(machine.remove_device(at(NIC)));
        assert!(machine.status(at(NIC)).expect("known").broken.is_some());
        machine.remove_device(at(NIC)).expect("asked for again");
        check(&machine);
    }
}

#[test]
fn configuration_reads_of_add_and_scan_may_panic() {
    let machine = empty();
    machine.platform().plug(at(NIC), nic());
    machine.platform().watch_config(true);
    machine.platform().fail_next(Hook::ConfigRead, Fault::Panic);
    let added = machine.add(at(NIC), pcidevs::lifecycle::DeviceInfo::default(), 7);
    failure(added.map_err(|error| error.reason));
    machine.platform().fail_next(Hook::ConfigRead, Fault::Panic);
    failure(machine.scan(at(NIC).segment(), |_| 1));
    machine.platform().watch_config(false);
    assert_eq!(machine.scan(at(NIC).segment(), |_| 1), Ok(1));
    check(&machine);
}

#[test]
fn a_configuration_write_that_panics_when_a_noisy_device_is_silenced() {
    let machine = machine(&[NIC]);
    (0..10).for_each(|_| assert!(machine.report_fault(at(NIC)).is_some()));
    machine.platform().watch_config(true);
    machine.platform().fail_next(Hook::ConfigWrite, Fault::Panic);
    machine.run_deferred();
    machine.platform().watch_config(false);
    assert_eq!(machine.platform().config_read(at(NIC), COMMAND, Width::Word), MASTER);
    assert!(machine.lock(at(NIC)).is_ok(), "unlocked");
    machine.report_fault(at(NIC));
    machine.run_deferred();
    assert_eq!(machine.platform().config_read(at(NIC), COMMAND, Width::Word), MASTER & !4);
}

#[test]
fn questions_that_panic() {
    let machine = assigned(&[NIC]);
    let before = dump(&machine);
    machine.platform().fail_next(Hook::ResetScope, Fault::Panic);
    failure(machine.reset(at(NIC), ResetKind::Flr));
    machine.platform().fail_next(Hook::AskUnplug, Fault::Panic);
    failure(machine.request_unplug(at(NIC)));
    machine.platform().fail_next(Hook::MsixPrepare, Fault::Panic);
    failure(machine.msi_prepare(at(NIC)));
    assert_eq!(dump(&machine), before);
    machine.platform().fail_next(Hook::StopGuest, Fault::Panic);
    machine.report_flush_timeout(at(NIC)).expect("there is nobody else to tell");
    machine.platform().fail_next(Hook::DmaBlocked, Fault::Panic);
    failure(machine.repair(at(NIC)));
    assert_eq!(machine.status(at(NIC)).expect("known").status.owner, Some(TO_GUEST));
}

#[test]
fn a_group_whose_platform_panics_waits() {
    let machine = empty();
    machine.platform().set_group(at(NIC), pcidevs::platform::GroupId(1));
    machine.platform().set_group(at("00:04.0"), pcidevs::platform::GroupId(1));
    plug(&machine, NIC, nic());
    plug(&machine, "00:04.0", nic());
    machine.platform().fail_next(Hook::HasDriver, Fault::Panic);
    failure(machine.assign(&set(&[NIC]), GUEST));
    machine.assign(&set(&[NIC]), GUEST).expect("no driver");
    machine.platform().fail_next(Hook::GroupInUse, Fault::Panic);
    machine.deassign(&set(&[NIC]), TO_GUEST).expect("it left its guest");
    assert!(machine.lock(at(NIC)).expect("known").is_deferred());
    assert_eq!(machine.run_deferred(), 0);
    check(&machine);
}

#[test]
fn a_panicking_subscriber_disturbs_no_transition() {
    let machine = machine(&[NIC]);
    let subscriber: pcidevs::lifecycle::Subscriber =
        std::sync::Arc::new(|_| std::panic::resume_unwind(Box::new("the subscriber")));
    let subscription = machine.subscribe(subscriber).expect("memory");
    machine.assign(&set(&[NIC]), GUEST).expect("nothing depends on who watches");
    machine.unsubscribe(subscription);
    let device = machine.lock(at(NIC)).expect("unlocked");
    assert!(!device.is_claimed());
    drop(device);
    check(&machine);
}
