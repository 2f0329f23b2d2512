//! Every hook call of every operation fails, and after it every call of its undo.
//!
//! After one failure everything is exactly as before; a device whose attachment could not be undone, or whose
//! teardown failed, is broken with the reason, and all else is as before. After a second failure, in the undo, it is
//! the same, or devices are broken: each under its right DMA owner, which cannot be released until it is repaired.

use pcidevs::lifecycle::{DeviceInfo, TransitionError, Unplug, Visibility};
use pcidevs::platform::{
    Call, ConfigBytes, Detail, Entry, Fault, Hook, Platform, ResetKind, ResetSupport, Switch,
};
use pcidevs::{Errno, Owner, Sbdf};

use crate::bench::{IRQFD, SLOT};
use crate::memory::unlimited;
use crate::scaffold::{
    GUEST, Machine, OTHER, OUTAGE, TO_GUEST, TO_OTHER, at, block_by_hand, check, dump, empty, nic,
    pci_bridge, plug, plug_vf, port, set, work,
};

/// An operation, and a machine for it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    prepare: fn() -> Machine,
    run: fn(&Machine) -> Result<(), TransitionError>,
    /// Where a failing step means that the device is broken: it was on its way out.
    leaves: bool,
}

impl Case {
    pub(crate) fn prepared(&self) -> Machine {
        (self.prepare)()
    }

    pub(crate) fn run(&self, machine: &Machine) -> Result<(), TransitionError> {
        (self.run)(machine)
    }
}

/// Two endpoints with all a transition can meet: phantom functions, a quirk, a bridge's alias, ATS, MSI-X,
/// attachments, virtual functions.
const BOTH: [&str; 2] = ["01:00.0", "05:01.0"];

fn rich() -> Machine {
    let machine = empty();
    plug(&machine, "00:01.0", port(1, 1));
    plug(&machine, "00:02.0", pci_bridge(0, 5));
    machine.platform().add_alias(at("01:00.0"), at("00:1f.7"));
    plug(&machine, "01:00.0", nic().phantom_bits(1));
    plug_vf(&machine, "01:00.1", "01:00.0");
    plug(&machine, "05:01.0", nic());
    furnish(&machine);
    name(&machine, "05:02.0", &["05:02.0", "05:02.2", "05:02.4", "05:02.6", "05:00.0"]);
    name(&machine, "01:00.2", &["01:00.2"]);
    machine
}

/// Has the simulated machine make room for these requester IDs of a device: its hooks need no memory afterwards.
fn name(machine: &Machine, device: &str, requesters: &[&str]) {
    for requester in requesters {
        let entry = machine.platform().entry(at(requester));
        machine.platform().iommu_block(at(device), at(requester)).expect("memory");
        match entry {
            Entry::Attached(owner) => machine.platform().iommu_attach(at(device), at(requester), owner),
            _ => machine.platform().iommu_detach(at(device), at(requester)),
        }
        .expect("memory");
    }
    machine.platform().iommu_flush(at(device)).expect("flushed");
}

/// Both at work, with attachments.
fn furnish(machine: &Machine) {
    for address in BOTH {
        work(machine, address);
        machine.platform().set_ats(at(address), Switch::On).expect("it has ATS");
        for kind in [IRQFD, SLOT] {
            let thing = machine.platform().thing(kind, at(address));
            machine.lock(at(address)).expect("known").attach(thing).expect("registered");
        }
    }
}

pub(crate) fn with_guest() -> Machine {
    let machine = rich();
    machine.assign(&set(&BOTH), GUEST).expect("assigned");
    furnish(&machine);
    machine
}

fn in_quarantine() -> Machine {
    let machine = rich();
    machine.quarantine(&set(&BOTH)).expect("quarantined");
    machine
}

fn scanned() -> Machine {
    let machine = empty();
    for address in ["00:03.0", "00:04.0"] {
        machine.platform().plug(at(address), nic().phantom_bits(2));
    }
    machine.scan(at("00:03.0").segment(), |_| 1).expect("scanned");
    name(&machine, "00:03.0", &["00:03.0", "00:03.2", "00:03.4", "00:03.6"]);
    name(&machine, "00:04.0", &["00:04.0", "00:04.2", "00:04.4", "00:04.6"]);
    machine
}

fn broken() -> Machine {
    let machine = with_guest();
    machine.report_flush_timeout(at("05:01.0")).expect("known");
    block_by_hand(&machine, "05:01.0");
    machine
}

fn prepared() -> Machine {
    let machine = rich();
    machine.msi_prepare(at("05:01.0")).expect("prepared");
    machine
}

fn slot_reset() -> Machine {
    let machine = with_guest();
    plug(&machine, "00:03.0", nic());
    plug(&machine, "00:03.1", nic());
    machine.assign(&set(&["00:03.0", "00:03.1"]), OTHER).expect("assigned");
    machine.platform().set_reset(at("00:03.0"), ResetSupport::Slot);
    machine
}

fn add_sibling(machine: &Machine) -> Result<(), TransitionError> {
    unlimited(|| machine.platform().plug(at("05:02.0"), nic().phantom_bits(2)));
    machine.add(at("05:02.0"), DeviceInfo::default(), 1).map(drop).map_err(|error| error.reason)
}

fn add_vf(machine: &Machine) -> Result<(), TransitionError> {
    unlimited(|| machine.platform().plug(at("01:00.2"), ConfigBytes::virtual_function()));
    let info = DeviceInfo { physical_function: Some(at("01:00.0")), ..DeviceInfo::default() };
    machine.add(at("01:00.2"), info, 1).map(drop).map_err(|error| error.reason)
}

fn ticket(machine: &Machine) -> Result<(), TransitionError> {
    machine.begin_removal(at("05:01.0"))?.try_complete().map(drop)
}

const fn stays(
    name: &'static str,
    prepare: fn() -> Machine,
    run: fn(&Machine) -> Result<(), TransitionError>,
) -> Case {
    Case { name, prepare, run, leaves: false }
}

const fn leaves(
    name: &'static str,
    prepare: fn() -> Machine,
    run: fn(&Machine) -> Result<(), TransitionError>,
) -> Case {
    Case { name, prepare, run, leaves: true }
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        stays("add", rich, add_sibling),
        stays("add of a VF", rich, add_vf),
        stays("add again", rich, |machine| {
            machine.add(at("05:01.0"), DeviceInfo::default(), 1).map(drop).map_err(|error| error.reason)
        }),
        stays("adoption", scanned, |machine| {
            machine.add(at("00:03.0"), DeviceInfo::default(), 1).map(drop).map_err(|error| error.reason)
        }),
        stays("set_host", scanned, Machine::set_host),
        stays("can_assign", rich, |machine| machine.can_assign(at("05:01.0"), GUEST)),
        stays("assign", rich, |machine| machine.assign(&set(&BOTH), GUEST)),
        stays("assign from quarantine", in_quarantine, |machine| machine.assign(&set(&BOTH), GUEST)),
        stays("deassign", with_guest, |machine| machine.deassign(&set(&BOTH), TO_GUEST)),
        stays("deassign from quarantine", in_quarantine, |machine| {
            machine.deassign(&set(&BOTH), Owner::Quarantine)
        }),
        stays("quarantine", rich, |machine| machine.quarantine(&set(&BOTH))),
        stays("quarantine unowned", scanned, |machine| machine.quarantine(&set(&["00:03.0", "00:04.0"]))),
        stays("hide", rich, |machine| machine.hide(at("05:01.0"), Visibility::ReadOnly)),
        stays("reset", with_guest, |machine| machine.reset(at("05:01.0"), ResetKind::Flr)),
        stays("reset of a slot", slot_reset, |machine| machine.reset(at("00:03.0"), ResetKind::Hot)),
        stays("report_reset", with_guest, |machine| machine.report_reset(at("05:01.0"), ResetKind::Hot)),
        stays("msi_prepare", rich, |machine| machine.msi_prepare(at("05:01.0"))),
        stays("msi_release", prepared, |machine| machine.msi_release(at("05:01.0"))),
        stays("repair", broken, |machine| machine.repair(at("05:01.0"))),
        stays("request_unplug", with_guest, |machine| machine.request_unplug(at("05:01.0"))),
        stays(
            "ack",
            || {
                let machine = with_guest();
                machine.request_unplug(at("05:01.0")).expect("asked");
                machine
            },
            |machine| machine.unplug_answered(at("05:01.0"), GUEST, Unplug::Acked),
        ),
        leaves("remove", prepared, |machine| machine.remove_device(at("05:01.0"))),
        leaves("remove from quarantine", in_quarantine, |machine| machine.remove_device(at("05:01.0"))),
        leaves("ticket", prepared, ticket),
        leaves("remove_slot", rich, |machine| machine.remove_slot(at("01:00.0"))),
        leaves("remove_subtree", rich, |machine| machine.remove_subtree(at("00:01.0"))),
    ]
}

/// The hook calls of the operation when nothing fails.
fn calls(case: &Case) -> Vec<Call> {
    let machine = (case.prepare)();
    machine.platform().record(true);
    let result = (case.run)(&machine);
    assert_eq!(result, Ok(()), "{}", case.name);
    check(&machine);
    machine.platform().take_journal()
}

/// A device of whose attachment it is the undo, if the call is one.
fn is_attachment(call: &Call) -> bool {
    call.hook == Hook::Facts && call.device.is_some_and(|device| device.segment().number() >= 0xa000_0000)
}

/// The steps of leaving begin with the first thing that is undone.
fn is_step_of_leaving(call: &Call) -> bool {
    is_attachment(call) || matches!(call.hook, Hook::IommuDetach | Hook::IommuFlush | Hook::MsixRelease)
}

fn broken_devices(machine: &Machine) -> Vec<Sbdf> {
    machine.devices().filter(|device| device.broken.is_some()).map(|device| device.status.address).collect()
}

/// The dump, but for what says that a device is broken.
fn but_broken(machine: &Machine) -> Vec<String> {
    let strip = |line: String| match (line.find("broken: Some("), line.find(", deferred: ")) {
        (Some(begin), Some(end)) => format!("{}broken: None{}", &line[..begin], &line[end..]),
        _ => line,
    };
    let machine = dump(machine).into_iter().map(strip);
    machine.map(|line| line.replace("DmaOf(", "Domain(")).collect()
}

/// What is known of each device, whatever became of the others.
fn of_each(machine: &Machine) -> Vec<(Sbdf, String)> {
    machine.devices().map(|device| (device.status.address, format!("{device:?}"))).collect()
}

#[test]
fn each_call_fails_and_everything_is_as_before() {
    for case in cases() {
        let calls = calls(&case);
        for (number, call) in calls.iter().enumerate() {
            for fault in [Fault::Error(OUTAGE), Fault::Panic] {
                one_fails(&case, number, call, fault);
            }
        }
    }
}

fn one_fails(case: &Case, number: usize, call: &Call, fault: Fault) {
    let what = format!("{}: call {number}, {call}: {fault}", case.name);
    let machine = (case.prepare)();
    let (before, already_broken) = (dump(&machine), broken_devices(&machine));
    machine.platform().record(true);
    machine.platform().fail_call(u64::try_from(number).expect("few"), fault);
    let result = (case.run)(&machine);
    assert_eq!(machine.platform().pending_faults(), 0, "{what}: it was not called");
    let error = result.expect_err(&what);
    let errno = if call.hook == Hook::Permit && fault != Fault::Panic { Errno::EPERM } else { Errno::EIO };
    assert_eq!(error.errno(), errno, "{what}");
    if let TransitionError::Failed(failure) = &error {
        assert!(failure.undo.is_empty(), "{what}: {failure}");
    }
    let newly: Vec<_> =
        broken_devices(&machine).into_iter().filter(|device| !already_broken.contains(device)).collect();
    let breaks = case.leaves && is_step_of_leaving(call) || is_attachment(call) && already_broken.is_empty();
    if breaks {
        let TransitionError::Failed(failure) = &error else { panic!("{what}: {error}") };
        assert_eq!(newly, [failure.device], "{what}");
        assert_eq!(machine.status(failure.device).expect("known").broken, Some(failure.error), "{what}");
    } else {
        assert_eq!(newly, [], "{what}");
        assert_eq!(dump(&machine), before, "{what}");
    }
    check(&machine);
    if newly.is_empty() || case.leaves {
        if !case.leaves || newly.iter().all(|device| !matches!(owner(&machine, *device), Owner::Guest(_))) {
            if breaks {
                assert_eq!(but_broken(&machine), before, "{what}");
            }
            assert_eq!((case.run)(&machine), Ok(()), "{what}: asked for again");
            check(&machine);
        }
    } else {
        repair_all(&machine, &newly, &what);
    }
}

fn owner(machine: &Machine, device: Sbdf) -> Owner {
    machine.status(device).and_then(|device| device.status.owner).expect("present")
}

/// Broken devices keep their guests from being released, until they are repaired.
fn repair_all(machine: &Machine, broken: &[Sbdf], what: &str) {
    machine.platform().clear_faults();
    for device in broken {
        let guest = owner(machine, *device).guest();
        if let Some(guest) = guest {
            // Asked for, that is: the call may be the one that fails.
            let calls = machine.platform().journal();
            let is_stop = |call: &Call| call.hook == Hook::StopGuest && call.detail == Detail::Guest(guest);
            assert!(calls.iter().any(is_stop), "{what}: {guest} was not stopped");
            machine.release_domain(guest).expect_err(what);
            assert!(machine.domain(guest).is_some(), "{what}");
        }
        let refused = machine.assign(&[(*device).into()], OTHER);
        assert!(refused.is_err(), "{what}: a broken device was assigned");
        block_by_hand(machine, &device.to_string());
        machine.repair(*device).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(owner(machine, *device), Owner::Quarantine, "{what}");
        check(machine);
    }
    for guest in [GUEST, OTHER] {
        if machine.domain(guest).is_some() {
            machine.release_domain(guest).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
    check(machine);
}

#[test]
fn each_call_of_each_undo_fails_and_everything_is_as_before_or_broken() {
    for case in cases() {
        let calls = calls(&case);
        for (number, call) in calls.iter().enumerate() {
            for fault in [Fault::Error(OUTAGE), Fault::Panic] {
                let mut later = 1;
                while two_fail(&case, number, call, later, fault) {
                    later += 1;
                }
            }
        }
    }
}

/// `false` if the undo had no such call.
fn two_fail(case: &Case, number: usize, call: &Call, later: u64, fault: Fault) -> bool {
    let what = format!("{}: call {number}, {call}, and {later} later: {fault}", case.name);
    let machine = (case.prepare)();
    let (before, each) = (dump(&machine), of_each(&machine));
    let already_broken = broken_devices(&machine);
    let number = u64::try_from(number).expect("few");
    machine.platform().record(true);
    machine.platform().fail_call(number, Fault::Error(OUTAGE));
    machine.platform().fail_call(number + later, fault);
    let error = (case.run)(&machine).expect_err(&what);
    if machine.platform().pending_faults() > 0 {
        return false;
    }
    let newly: Vec<_> =
        broken_devices(&machine).into_iter().filter(|device| !already_broken.contains(device)).collect();
    let undone: Vec<_> = match &error {
        TransitionError::Failed(failure) => failure.undo.iter().map(|undo| undo.device).collect(),
        _ => Vec::new(),
    };
    for device in &undone {
        let Some(status) = machine.status(*device) else {
            // It was on its way in, and is unknown: there is no device to be broken, and nothing to hold what is left.
            assert_eq!(of_each(&machine), each, "{what}");
            return true;
        };
        assert!(status.broken.is_some(), "{what}: {device} is not broken");
    }
    if newly.is_empty() && undone.is_empty() {
        assert_eq!(dump(&machine), before, "{what}");
        return true;
    }
    for (device, then) in of_each(&machine) {
        if !broken_devices(&machine).contains(&device) {
            assert!(each.contains(&(device, then)), "{what}: {device} is whole and not as before");
        }
    }
    // Of whole devices this looks at everything; of all, at whom their DMA reaches.
    check(&machine);
    repair_all(&machine, &broken_devices(&machine), &what);
    true
}

#[test]
fn release_of_a_domain_with_each_call_failing_loses_nobody() {
    let case = stays("release_domain", with_guest, |machine| machine.release_domain(GUEST));
    for (number, call) in calls(&case).iter().enumerate() {
        for fault in [Fault::Error(OUTAGE), Fault::Panic] {
            let what = format!("call {number}, {call}: {fault}");
            let machine = with_guest();
            machine.platform().record(true);
            machine.platform().fail_call(u64::try_from(number).expect("few"), fault);
            machine.release_domain(GUEST).expect_err(&what);
            assert!(machine.domain(GUEST).is_some(), "{what}");
            check(&machine);
            assert_eq!(machine.devices_of(TO_GUEST).expect("memory").expect("known").len(), 1, "{what}");
            let broken = broken_devices(&machine);
            assert_eq!(broken.is_empty(), !is_attachment(call), "{what}");
            if broken.is_empty() {
                assert_eq!(machine.release_domain(GUEST), Ok(()), "{what}: asked for again");
                check(&machine);
            } else {
                repair_all(&machine, &broken, &what);
            }
        }
    }
}

#[test]
fn report_gone_with_each_call_failing_is_done_in_the_end() {
    let run = |machine: &Machine| machine.report_gone(at("00:01.0"));
    let case = Case { name: "report_gone", prepare: with_guest, run, leaves: true };
    for (number, call) in calls(&case).iter().enumerate() {
        for fault in [Fault::Error(OUTAGE), Fault::Panic] {
            let what = format!("call {number}, {call}: {fault}");
            let machine = with_guest();
            machine.platform().fail_call(u64::try_from(number).expect("few"), fault);
            machine.report_gone(at("00:01.0")).expect(&what);
            assert_eq!(machine.platform().pending_faults(), 0, "{what}");
            assert!(machine.status(at("01:00.0")).is_none() && machine.status(at("01:00.1")).is_none());
            check(&machine);
            assert_eq!(machine.run_deferred(), 0, "{what}");
            assert_eq!(machine.platform().entry(at("01:00.4")), Entry::Absent, "{what}");
            plug(&machine, "00:01.0", port(1, 1));
            plug(&machine, "01:00.0", nic());
            check(&machine);
        }
    }
}

#[test]
fn the_return_of_a_group_with_each_call_failing_happens_in_the_end() {
    let prepare = || {
        let machine = empty();
        for address in ["03:00.0", "03:00.1"] {
            machine.platform().set_group(at(address), pcidevs::platform::GroupId(3));
            plug(&machine, address, nic());
        }
        machine.assign(&set(&["03:00.0", "03:00.1"]), OTHER).expect("assigned");
        machine
    };
    let run = |machine: &Machine| machine.deassign(&set(&["03:00.0", "03:00.1"]), TO_OTHER);
    let case = Case { name: "deassign of a group", prepare, run, leaves: false };
    for (number, call) in calls(&case).iter().enumerate() {
        for fault in [Fault::Error(OUTAGE), Fault::Panic] {
            let what = format!("call {number}, {call}: {fault}");
            let machine = prepare();
            let before = dump(&machine);
            machine.platform().fail_call(u64::try_from(number).expect("few"), fault);
            match run(&machine) {
                // They have left their guest; if the way to the host failed they wait.
                Ok(()) => assert!(machine.devices_of(TO_OTHER).expect("memory").expect("known").is_empty()),
                Err(_) if is_attachment(call) => {
                    check(&machine);
                    continue;
                }
                Err(_) => {
                    assert_eq!(dump(&machine), before, "{what}");
                    assert_eq!(run(&machine), Ok(()), "{what}: asked for again");
                }
            }
            check(&machine);
            assert_eq!(machine.run_deferred(), 0, "{what}");
            assert_eq!(machine.devices_of(Owner::Host).expect("memory").expect("known").len(), 2, "{what}");
            check(&machine);
        }
    }
}
