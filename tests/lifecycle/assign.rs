//! Devices go to guests and come back.

use pcidevs::lifecycle::TransitionError;
use pcidevs::platform::{ConfigBytes, Dma, Entry, Hook, Platform, ResetSupport, Switch, Width};
use pcidevs::{Errno, Member, Owner};

use crate::bench::{IRQFD, SLOT};
use crate::scaffold::{
    COMMAND, GUEST, OTHER, OUTAGE, TO_GUEST, TO_OTHER, assigned, at, check, dump, empty, entry, errno, fail,
    failure, listed, machine, nic, owner, pci_bridge, plug, set, work,
};

const NIC: &str = "00:03.0";

#[test]
fn assign_gives_a_guest_the_device_and_its_requests() {
    let machine = machine(&[NIC]);
    assert_eq!(entry(&machine, NIC), Entry::Attached(Owner::Host));
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    assert_eq!(owner(&machine, NIC), Some(TO_GUEST));
    assert_eq!(entry(&machine, NIC), Entry::Attached(TO_GUEST));
    assert_eq!(listed(&machine, TO_GUEST), ["0000:00:03.0"]);
    check(&machine);
    machine.deassign(&set(&[NIC]), TO_GUEST).expect("deassigned");
    assert_eq!(owner(&machine, NIC), Some(Owner::Host));
    assert_eq!(entry(&machine, NIC), Entry::Attached(Owner::Host));
    check(&machine);
    machine.remove_device(at(NIC)).expect("unused");
    assert_eq!(entry(&machine, NIC), Entry::Absent);
}

#[test]
fn assign_goes_through_its_steps_in_the_order_of_the_contract() {
    let machine = machine(&[NIC]);
    machine.platform().record(true);
    machine.platform().watch_config(true);
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    let expected = [
        "permit 0000:00:03.0, assign to domain 1",
        "reset_scope 0000:00:03.0, assign",
        "undo vPCI of 0000:00:03.0",
        "config_write 0000:00:03.0, 0x8e = 0x3",
        "config_write 0000:00:03.0, 0x4 = 0x2",
        "await_idle 0000:00:03.0",
        "set_ats 0000:00:03.0, off",
        "iommu_block 0000:00:03.0 as 0000:00:03.0",
        "iommu_flush 0000:00:03.0",
        "reset 0000:00:03.0, Function",
        "iommu_attach 0000:00:03.0 as 0000:00:03.0, domain 1",
        "iommu_flush 0000:00:03.0",
        "bind 0000:00:03.0, domain 1",
    ];
    assert_eq!(machine.platform().story(), expected);
}

#[test]
fn deassign_quiesces_blocks_flushes_and_resets_as_well() {
    let machine = assigned(&[NIC]);
    work(&machine, NIC);
    machine.platform().record(true);
    machine.platform().watch_config(true);
    machine.deassign(&set(&[NIC]), TO_GUEST).expect("deassigned");
    let expected = [
        "permit 0000:00:03.0, deassign to host",
        "reset_scope 0000:00:03.0, deassign",
        "undo vPCI of 0000:00:03.0",
        "config_write 0000:00:03.0, 0x8e = 0x3",
        "config_write 0000:00:03.0, 0x4 = 0x2",
        "await_idle 0000:00:03.0",
        "set_ats 0000:00:03.0, off",
        "iommu_block 0000:00:03.0 as 0000:00:03.0",
        "iommu_flush 0000:00:03.0",
        "reset 0000:00:03.0, Function",
        "iommu_attach 0000:00:03.0 as 0000:00:03.0, host",
        "iommu_flush 0000:00:03.0",
        "bind 0000:00:03.0, host",
    ];
    assert_eq!(machine.platform().story(), expected);
}

#[test]
fn the_device_is_quiet_and_reset_when_the_guest_gets_it() {
    let machine = assigned(&[NIC]);
    let platform = machine.platform();
    assert_eq!(platform.config_read(at(NIC), COMMAND, Width::Word) & 4, 0);
    assert_eq!((platform.resets(at(NIC)), platform.ats(at(NIC))), (1, Switch::Off));
    assert_eq!((platform.dma(at(NIC)), platform.dma_raw(at(NIC))), (Dma::Silent, Dma::Reaches(TO_GUEST)));
}

#[test]
fn a_device_without_msi_ats_or_reset_skips_what_it_has_not() {
    let machine = empty();
    plug(&machine, NIC, ConfigBytes::endpoint(1, 2));
    machine.platform().set_reset(at(NIC), ResetSupport::NotNeeded);
    machine.platform().record(true);
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    let hooks: Vec<_> = machine.platform().take_journal().iter().map(|call| call.hook).collect();
    assert!(!hooks.contains(&Hook::SetAts) && !hooks.contains(&Hook::Reset), "{hooks:?}");
    check(&machine);
}

#[test]
fn assign_moves_every_requester_id_phantoms_of_each_stride_aliases_and_quirks() {
    for bits in 0..4 {
        let machine = empty();
        plug(&machine, "00:02.0", pci_bridge(0, 5));
        machine.platform().add_alias(at("05:01.0"), at("00:1f.7"));
        plug(&machine, "05:01.0", nic().phantom_bits(bits));
        let requesters = machine.lock(at("05:01.0")).expect("known").requesters().to_vec();
        assert_eq!(requesters.len(), [3, 4, 6, 10][usize::from(bits)], "{requesters:?}");
        for (guest, owner) in [(GUEST, TO_GUEST), (OTHER, TO_OTHER)] {
            machine.assign(&set(&["05:01.0"]), guest).expect("assigned");
            for requester in &requesters {
                assert_eq!(machine.platform().dma_raw(*requester), Dma::Reaches(owner), "{requester}");
            }
            check(&machine);
            machine.deassign(&set(&["05:01.0"]), owner).expect("deassigned");
            check(&machine);
        }
    }
}

#[test]
fn after_any_failing_hook_the_old_owner_has_everything_back() {
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
        let machine = empty();
        machine.platform().add_alias(at(NIC), at("00:1f.7"));
        plug(&machine, NIC, nic().phantom_bits(2));
        work(&machine, NIC);
        machine.platform().set_ats(at(NIC), Switch::On).expect("it has ATS");
        for kind in [IRQFD, SLOT] {
            let thing = machine.platform().thing(kind, at(NIC));
            machine.lock(at(NIC)).expect("known").attach(thing).expect("registered");
        }
        let before = dump(&machine);
        fail(&machine, hook);
        let refused = machine.assign(&set(&[NIC]), GUEST).expect_err("the hook failed");
        if hook == Hook::Permit {
            assert_eq!(refused.errno(), Errno::EPERM);
        } else {
            let failed = failure::<()>(Err(refused));
            assert_eq!((failed.error, failed.undo), (OUTAGE, vec![]), "{hook}");
        }
        assert_eq!(dump(&machine), before, "{hook}");
        check(&machine);
        machine.assign(&set(&[NIC]), GUEST).expect("nothing is in the way");
        check(&machine);
    }
}

#[test]
fn a_device_that_needs_a_reset_and_has_none_is_eopnotsupp() {
    let machine = machine(&[NIC]);
    machine.platform().set_reset(at(NIC), ResetSupport::Missing);
    let before = dump(&machine);
    assert_eq!(errno(machine.assign(&set(&[NIC]), GUEST)), Errno::EOPNOTSUPP);
    assert_eq!(dump(&machine), before);
}

#[test]
fn a_guest_sees_its_device_where_it_was_put() {
    let machine = machine(&[NIC, "00:04.0", "00:05.0"]);
    let guest = machine.domain(GUEST).expect("known");
    machine.assign(&[Member::at(at(NIC), at("00:07.0"))], GUEST).expect("assigned");
    assert_eq!(guest.lock(at("00:07.0")).expect("there").address(), at(NIC));
    let taken = machine.assign(&[Member::at(at("00:04.0"), at("00:07.0"))], GUEST);
    assert_eq!(taken, Err(TransitionError::SlotTaken(at("00:07.0"))));
    assert_eq!(errno(taken), Errno::EEXIST);
    machine.assign(&set(&["00:04.0"]), GUEST).expect("the lowest free slot");
    assert_eq!(guest.lock(at("00:00.0")).expect("there").address(), at("00:04.0"));
    machine.deassign(&set(&[NIC]), TO_GUEST).expect("deassigned");
    assert!(guest.lock(at("00:07.0")).is_err());
    machine.assign(&[Member::at(at("00:05.0"), at("00:07.0"))], GUEST).expect("free again");
    check(&machine);
}

#[test]
fn deassign_from_one_who_does_not_have_it_is_enodev() {
    let machine = machine(&[NIC, "00:04.0"]);
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    let before = dump(&machine);
    for (address, from, owner) in [
        (NIC, TO_OTHER, TO_GUEST),
        (NIC, Owner::Quarantine, TO_GUEST),
        ("00:04.0", TO_GUEST, Owner::Host),
        ("00:04.0", Owner::Host, Owner::Host),
    ] {
        let refused = machine.deassign(&set(&[address]), from);
        assert_eq!(refused, Err(TransitionError::NotOwned { device: at(address), owner }));
        assert_eq!(errno(refused), Errno::ENODEV);
    }
    assert_eq!(dump(&machine), before);
}

#[test]
fn deassign_that_fails_leaves_the_guest_with_everything() {
    let hooks = [
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
        let machine = assigned(&[NIC]);
        work(&machine, NIC);
        let before = dump(&machine);
        fail(&machine, hook);
        assert_eq!(failure(machine.deassign(&set(&[NIC]), TO_GUEST)).error, OUTAGE);
        // ATS is on or off again by the platform; its owner has it switched off here.
        machine.platform().set_ats(at(NIC), Switch::Off).expect("it has ATS");
        assert_eq!(dump(&machine), before, "{hook}");
        check(&machine);
    }
}

#[test]
fn assign_resets_the_count_of_faults() {
    let machine = machine(&[NIC]);
    for count in 1..=5 {
        assert_eq!(machine.report_fault(at(NIC)), Some(count));
    }
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    assert_eq!(machine.report_fault(at(NIC)), Some(1));
}

#[test]
fn ats_that_was_on_is_switched_off_and_flushed_before_the_iommu_blocks() {
    let machine = machine(&[NIC]);
    machine.platform().set_ats(at(NIC), Switch::On).expect("it has ATS");
    let before = dump(&machine);
    machine.platform().record(true);
    machine.assign(&set(&[NIC]), GUEST).expect("assigned");
    let story = machine.platform().story();
    let off = story.iter().position(|call| call.starts_with("set_ats")).expect("switched off");
    let after = story[off + 1..off + 3].iter().map(|call| call.split(' ').next().unwrap_or_default());
    assert_eq!(after.collect::<Vec<_>>(), ["iommu_flush", "iommu_block"]);

    let machine = crate::scaffold::machine(&[NIC]);
    machine.platform().set_ats(at(NIC), Switch::On).expect("it has ATS");
    fail(&machine, Hook::IommuFlush);
    let failed = failure(machine.assign(&set(&[NIC]), GUEST));
    assert_eq!((failed.step, failed.undo.len()), ("flush ATS", 0));
    assert_eq!(dump(&machine), before, "ATS is on again");
}
