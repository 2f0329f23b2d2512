//! add: a device is known from one instant on, set up for the host, or unknown again.

use pcidevs::lifecycle::{Added, DeviceInfo, TransitionError};
use pcidevs::platform::Switch;
use pcidevs::platform::{ConfigBytes, Entry, Fault, Hook, Refusal, Rule, VirtualFunctions};
use pcidevs::{Errno, Holder, Owner, Transition};

use crate::scaffold::{
    GUEST, Machine, OUTAGE, at, busy, check, dump, empty, entry, errno, fail, failure, listed, machine, nic,
    owner, pci_bridge, plug, plug_vf, port, set, while_it_hangs,
};

/// Plugs a function and reports it; the data that comes back with an error is the data that was given.
fn add(machine: &Machine, address: &str) -> Result<Added<u32>, TransitionError> {
    machine.platform().plug(at(address), nic());
    machine.add(at(address), DeviceInfo::default(), 7).map_err(|error| {
        assert_eq!(error.data, 7);
        error.reason
    })
}

#[test]
fn add_sets_up_what_the_host_sees_and_then_its_requests() {
    let machine = empty();
    machine.platform().record(true);
    assert_eq!(add(&machine, "00:03.0"), Ok(Added::New));
    let story = machine.platform().story();
    let expected = [
        "permit 0000:00:03.0, add to host",
        "facts 0000:00:03.0",
        "bind 0000:00:03.0, host",
        "iommu_attach 0000:00:03.0 as 0000:00:03.0, host",
        "iommu_flush 0000:00:03.0",
    ];
    assert_eq!(story, expected);
    assert_eq!(listed(&machine, Owner::Host), ["0000:00:03.0"]);
    check(&machine);
}

#[test]
fn add_keeps_the_data_and_what_the_platform_knows() {
    let machine = empty();
    machine.platform().set_node(at("00:03.0"), 1);
    add(&machine, "00:03.0").expect("added");
    let device = machine.lock(at("00:03.0")).expect("known");
    assert_eq!((**device, device.node(), device.broken()), (7, Some(1), None));
    assert!(!device.is_read_only() && !device.is_deferred() && !device.is_extended_function());
}

#[test]
fn add_attaches_every_phantom_function_of_each_stride() {
    for (bits, phantoms) in [(0, &[][..]), (1, &[4][..]), (2, &[2, 4, 6]), (3, &[1, 2, 3, 4, 5, 6, 7])] {
        let machine = empty();
        plug(&machine, "00:03.0", nic().phantom_bits(bits));
        let attached: Vec<_> = machine.platform().entries().iter().map(|(id, _)| id.function()).collect();
        let expected: Vec<_> = [0].iter().chain(phantoms).copied().collect();
        assert_eq!(attached, expected, "bits {bits}");
        check(&machine);
    }
}

#[test]
fn add_of_a_function_not_below_the_stride_has_no_phantoms() {
    let machine = empty();
    plug(&machine, "00:03.0", nic().multifunction());
    plug(&machine, "00:03.5", nic().phantom_bits(1));
    assert_eq!(machine.lock(at("00:03.5")).expect("known").requesters(), [at("00:03.5")]);
}

#[test]
fn add_bumps_a_listed_stride_while_a_real_device_answers_at_a_phantom() {
    let machine = empty();
    machine.platform().plug(at("00:03.2"), nic());
    machine.platform().set_phantom_stride(at("00:03.0"), 1);
    plug(&machine, "00:03.0", ConfigBytes::endpoint(1, 2));
    assert_eq!(machine.lock(at("00:03.0")).expect("known").requesters(), [at("00:03.0"), at("00:03.4")]);
}

#[test]
fn a_lookup_by_any_phantom_finds_the_real_function() {
    let machine = empty();
    plug(&machine, "00:03.0", nic().phantom_bits(2));
    plug(&machine, "00:03.1", nic().phantom_bits(2));
    for (phantom, real) in [(0, 0), (2, 0), (4, 0), (6, 0), (1, 1), (3, 1), (5, 1), (7, 1)] {
        let phantom = at(&format!("00:03.{phantom}"));
        assert_eq!(machine.real_function(phantom), Some(at(&format!("00:03.{real}"))), "{phantom}");
    }
    assert_eq!(machine.real_function(at("00:04.0")), None);
}

#[test]
fn add_attaches_the_aliases_of_bridges_and_the_quirks_of_the_platform() {
    let machine = empty();
    plug(&machine, "00:02.0", pci_bridge(0, 5));
    machine.platform().add_alias(at("05:01.0"), at("00:1f.7"));
    plug(&machine, "05:01.0", nic());
    let device = machine.lock(at("05:01.0")).expect("known");
    assert_eq!(device.requesters(), [at("05:01.0"), at("05:00.0"), at("00:1f.7")]);
    drop(device);
    for requester in ["05:01.0", "05:00.0", "00:1f.7"] {
        assert_eq!(entry(&machine, requester), Entry::Attached(Owner::Host));
    }
}

#[test]
fn add_denied_by_policy_is_eperm_and_asks_for_nothing_more() {
    let machine = empty();
    machine.platform().refuse(Rule::new(Refusal::Denied).transition(Transition::Add));
    let before = dump(&machine);
    machine.platform().record(true);
    let refused = add(&machine, "00:03.0");
    assert_eq!(refused, Err(TransitionError::Refused(at("00:03.0"), Refusal::Denied)));
    assert_eq!(errno(refused), Errno::EPERM);
    assert_eq!(machine.platform().story(), ["permit 0000:00:03.0, add to host"]);
    assert_eq!(dump(&machine), before);
}

#[test]
fn add_of_a_vf_without_its_pf_is_enodev() {
    let machine = machine(&["00:04.0"]);
    let before = dump(&machine);
    let info = DeviceInfo { physical_function: Some(at("00:03.0")), ..DeviceInfo::default() };
    machine.platform().plug(at("00:03.1"), ConfigBytes::virtual_function());
    let refused = machine.add(at("00:03.1"), info, 7).map_err(|error| error.reason);
    assert_eq!(refused, Err(TransitionError::NoPf { vf: at("00:03.1"), pf: at("00:03.0") }));
    assert_eq!(errno(refused), Errno::ENODEV);
    assert_eq!(dump(&machine), before);
}

#[test]
fn add_of_a_vf_holds_its_pf_by_name() {
    let machine = machine(&["00:03.0"]);
    let functions =
        VirtualFunctions { count: 1, first_offset: 1, stride: 1, device: 0x10ed, enabled: Switch::On };
    machine.platform().plug(at("00:03.0"), nic().sriov(functions));
    plug_vf(&machine, "00:03.1", "00:03.0");
    assert_eq!(machine.status(at("00:03.0")).expect("known").status.holders, [Holder::Vf(at("00:03.1"))]);
    machine.remove_device(at("00:03.1")).expect("unused");
    assert_eq!(machine.status(at("00:03.0")).expect("known").status.uses, 0);
}

#[test]
fn a_vf_inherits_extended_function_from_its_pf() {
    let machine = empty();
    machine.platform().plug(at("00:03.0"), nic());
    let info = DeviceInfo { is_extended_function: true, ..DeviceInfo::default() };
    machine.add(at("00:03.0"), info, 7).expect("added");
    plug_vf(&machine, "00:03.1", "00:03.0");
    plug(&machine, "00:04.0", nic());
    let extended = |address| machine.lock(at(address)).expect("known").is_extended_function();
    assert_eq!(["00:03.0", "00:03.1", "00:04.0"].map(extended), [true, true, false]);
}

#[test]
fn add_behind_a_bridge_holds_the_bridge_by_name() {
    let machine = empty();
    plug(&machine, "00:01.0", port(1, 1));
    plug(&machine, "01:00.0", nic());
    assert_eq!(machine.status(at("00:01.0")).expect("known").status.holders, [Holder::Child(at("01:00.0"))]);
}

#[test]
fn add_after_any_failing_hook_is_unknown_again() {
    let hooks = [Hook::Facts, Hook::Bind, Hook::IommuAttach, Hook::IommuFlush];
    for hook in hooks {
        let machine = machine(&["00:04.0"]);
        let before = dump(&machine);
        fail(&machine, hook);
        let failed = failure(add(&machine, "00:03.0"));
        assert_eq!((failed.device, failed.error, failed.undo.len()), (at("00:03.0"), OUTAGE, 0), "{hook}");
        assert!(machine.get(at("00:03.0")).is_none());
        assert_eq!(dump(&machine), before, "{hook}");
        assert_eq!(add(&machine, "00:03.0"), Ok(Added::New), "{hook}");
        check(&machine);
    }
}

#[test]
fn add_returns_the_errno_of_the_hook() {
    let machine = empty();
    let error = pcidevs::platform::HookError::new(Errno::new(71), "strange");
    machine.platform().fail_next(Hook::Facts, Fault::Error(error));
    assert_eq!(errno(add(&machine, "00:03.0")), Errno::new(71));
}

#[test]
fn add_is_busy_while_another_adds_there_and_nobody_finds_it_before() {
    let machine = empty();
    machine.platform().plug(at("00:03.0"), nic());
    let added = while_it_hangs(
        &machine,
        Hook::Bind,
        || add(&machine, "00:03.0"),
        || {
            let busy = busy(add(&machine, "00:03.0"));
            assert_eq!(busy.holders, [Holder::Transition(Transition::Add)]);
            assert!(machine.get(at("00:03.0")).is_none() && machine.devices().next().is_none());
            assert!(listed(&machine, Owner::Host).is_empty());
        },
    );
    assert_eq!(added, Ok(Added::New));
    check(&machine);
}

#[test]
fn add_of_bridges_whose_ranges_clash_is_einval_and_leaves_nothing() {
    let machine = empty();
    plug(&machine, "00:02.0", pci_bridge(0, 5));
    let before = dump(&machine);
    machine.platform().plug(at("00:06.0"), pci_bridge(0, 5));
    let refused = machine.add(at("00:06.0"), DeviceInfo::default(), 7).map_err(|error| error.reason);
    assert_eq!(refused, Err(TransitionError::Topology(at("00:06.0"))));
    assert_eq!(errno(refused), Errno::EINVAL);
    assert_eq!(dump(&machine), before);
}

#[test]
fn add_beside_a_sibling_with_the_same_requester_id_leaves_the_siblings_guest_alone() {
    let machine = empty();
    plug(&machine, "00:02.0", pci_bridge(0, 5));
    plug(&machine, "05:01.0", nic());
    machine.assign(&set(&["05:01.0"]), GUEST).expect("alone behind its bridge");
    let before = dump(&machine);
    let refused = add(&machine, "05:02.0");
    let expected = TransitionError::Inseparable { device: at("05:02.0"), other: at("05:01.0") };
    assert_eq!(refused, Err(expected));
    assert_eq!(dump(&machine), before);
    machine.deassign(&set(&["05:01.0"]), Owner::Guest(GUEST)).expect("deassigned");
    assert_eq!(add(&machine, "05:02.0"), Ok(Added::New));
    check(&machine);
}

#[test]
fn remove_leaves_a_requester_id_that_a_sibling_has_too() {
    let machine = empty();
    plug(&machine, "00:02.0", pci_bridge(0, 5));
    plug(&machine, "05:01.0", nic());
    plug(&machine, "05:02.0", nic());
    machine.remove_device(at("05:01.0")).expect("unused");
    assert_eq!(entry(&machine, "05:01.0"), Entry::Absent);
    check(&machine);
    machine.remove_device(at("05:02.0")).expect("unused");
    assert_eq!(entry(&machine, "05:00.0"), Entry::Absent, "with the last one it goes");
}

#[test]
fn other_header_types_are_known_and_on_the_hosts_list() {
    let machine = empty();
    let cardbus = ConfigBytes::endpoint(1, 2).class(0x06_07_00).header_type(2);
    plug(&machine, "00:05.0", cardbus);
    plug(&machine, "00:06.0", ConfigBytes::endpoint(1, 2).header_type(0x7f));
    assert_eq!(listed(&machine, Owner::Host), ["0000:00:05.0", "0000:00:06.0"]);
    assert_eq!(owner(&machine, "00:06.0"), Some(Owner::Host));
}
