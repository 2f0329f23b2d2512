//! Sets: all or none, in one publication.

use std::sync::atomic::{AtomicBool, Ordering};

use pcidevs::lifecycle::TransitionError;
use pcidevs::platform::{ConfigBytes, Hook};
use pcidevs::{Errno, Member, Owner, Sbdf};

use crate::scaffold::{
    GUEST, OUTAGE, TO_GUEST, assigned, at, check, dump, empty, errno, fail, failure, held_by, listed,
    machine, owner, set, while_it_hangs,
};

const THREE: [&str; 3] = ["00:03.0", "00:04.0", "00:05.0"];

#[test]
fn a_set_arrives_whole() {
    let machine = assigned(&THREE);
    assert_eq!(listed(&machine, TO_GUEST), ["0000:00:03.0", "0000:00:04.0", "0000:00:05.0"]);
    check(&machine);
    machine.deassign(&set(&THREE), TO_GUEST).expect("deassigned");
    assert_eq!(listed(&machine, Owner::Host).len(), 3);
    check(&machine);
}

#[test]
fn every_step_is_done_to_all_before_the_next_begins() {
    let machine = machine(&THREE);
    machine.platform().record(true);
    machine.assign(&set(&THREE), GUEST).expect("assigned");
    let hooks: Vec<_> = machine.platform().take_journal().iter().map(|call| call.hook).collect();
    let last_block = hooks.iter().rposition(|hook| *hook == Hook::IommuBlock).expect("blocked");
    let first_reset = hooks.iter().position(|hook| *hook == Hook::Reset).expect("reset");
    let last_reset = hooks.iter().rposition(|hook| *hook == Hook::Reset).expect("reset");
    let first_attach = hooks.iter().position(|hook| *hook == Hook::IommuAttach).expect("attached");
    assert!(last_block < first_reset && last_reset < first_attach, "{hooks:?}");
}

#[test]
fn a_failure_at_any_member_leaves_all_where_they_were() {
    for nth in 0..3 {
        for hook in [Hook::IommuBlock, Hook::Reset, Hook::IommuAttach, Hook::Bind, Hook::Permit] {
            let machine = machine(&THREE);
            let before = dump(&machine);
            machine.platform().record(true);
            machine.assign(&set(&THREE), GUEST).expect("once, to see which call it is");
            let calls = machine.platform().take_journal();
            let of_hook = calls.iter().enumerate().filter(|(_, call)| call.hook == hook);
            let number = of_hook.map(|(number, _)| number).nth(nth).expect("one a member");
            drop(machine);

            let machine = crate::scaffold::machine(&THREE);
            machine.platform().fail_call(u64::try_from(number).expect("few"), outage());
            machine.assign(&set(&THREE), GUEST).expect_err("a hook failed");
            assert_eq!(dump(&machine), before, "{hook} of member {nth}");
            check(&machine);
        }
    }
}

fn outage() -> pcidevs::platform::Fault {
    pcidevs::platform::Fault::Error(OUTAGE)
}

#[test]
fn one_refused_member_refuses_the_set() {
    let machine = machine(&THREE);
    machine.assign(&set(&["00:05.0"]), GUEST).expect("assigned");
    let before = dump(&machine);
    let refused = machine.assign(&set(&THREE), GUEST);
    assert_eq!(refused, Err(TransitionError::Taken { device: at("00:05.0"), owner: TO_GUEST }));
    assert_eq!(dump(&machine), before);
    let refused = machine.quarantine(&set(&THREE));
    assert_eq!(refused, Err(TransitionError::Taken { device: at("00:05.0"), owner: TO_GUEST }));
    assert_eq!(dump(&machine), before);
    let refused = machine.deassign(&set(&THREE), TO_GUEST);
    assert_eq!(refused, Err(TransitionError::NotOwned { device: at("00:03.0"), owner: Owner::Host }));
    assert_eq!(dump(&machine), before);
}

#[test]
fn a_refused_set_does_not_mark_the_members_that_were_fine() {
    let machine = machine(&["00:03.0", "00:04.0"]);
    machine.assign(&set(&["00:04.0"]), GUEST).expect("assigned");
    // In quarantine, but only because its removal was pending: nobody put it there by hand.
    machine.assign(&set(&["00:03.0"]), GUEST).expect("assigned");
    let ticket = machine.begin_removal(at("00:03.0")).expect("known");
    machine.deassign(&set(&["00:03.0"]), TO_GUEST).expect("deassigned");
    ticket.cancel().expect("pending");
    assert_eq!(owner(&machine, "00:03.0"), Some(Owner::Quarantine));
    machine.quarantine(&set(&["00:03.0", "00:04.0"])).expect_err("the second is taken");
    machine.assign(&set(&["00:03.0"]), GUEST).expect("assigned");
    machine.deassign(&set(&["00:03.0"]), TO_GUEST).expect("deassigned");
    assert_eq!(owner(&machine, "00:03.0"), Some(Owner::Host), "no quarantine was asked for");
}

#[test]
fn duplicates_are_einval_wherever_they_stand() {
    let machine = machine(&THREE);
    let before = dump(&machine);
    let twice = set(&["00:04.0", "00:03.0", "00:05.0", "00:03.0"]);
    let duplicate = Err(TransitionError::Duplicate(at("00:03.0")));
    assert_eq!(machine.assign(&twice, GUEST), duplicate);
    assert_eq!(machine.quarantine(&twice), duplicate);
    assert_eq!(machine.deassign(&twice, TO_GUEST), duplicate);
    assert_eq!(errno(machine.assign(&twice, GUEST)), Errno::EINVAL);
    assert_eq!(dump(&machine), before);
}

#[test]
fn an_empty_set_is_ok_and_calls_no_hook() {
    let machine = machine(&["00:03.0"]);
    machine.platform().record(true);
    let before = dump(&machine);
    machine.platform().take_journal();
    machine.assign(&[], GUEST).expect("nothing");
    machine.deassign(&[], TO_GUEST).expect("nothing");
    machine.quarantine(&[]).expect("nothing");
    assert_eq!(machine.platform().story(), [""; 0]);
    assert_eq!(dump(&machine), before);
}

#[test]
fn unknown_members_create_nothing() {
    let machine = machine(&["00:03.0"]);
    let before = dump(&machine);
    let members: Vec<_> = (0..100_000_u64).map(|place| Member::new(nth(place))).collect();
    let refused = machine.assign(&members, GUEST);
    assert_eq!(errno(refused), Errno::ENODEV);
    assert_eq!(dump(&machine), before);
}

/// The n-th address from segment 1 on.
fn nth(place: u64) -> Sbdf {
    let segment = u32::try_from(1 + (place >> 16)).expect("few");
    Sbdf::from_bdf(pcidevs::address::Segment::new(segment), u16::try_from(place & 0xffff).expect("masked"))
}

#[test]
fn a_set_of_100_000_members_moves_as_one() {
    const MANY: u64 = 100_000;
    let machine = empty();
    let config = ConfigBytes::endpoint(1, 2);
    for place in 0..MANY {
        machine.platform().plug(nth(place), &config);
        machine.add(nth(place), pcidevs::lifecycle::DeviceInfo::default(), 1).expect("added");
    }
    let members: Vec<_> = (0..MANY).rev().map(|place| Member::new(nth(place))).collect();
    machine.quarantine(&members).expect("quarantined");
    let quarantine = machine.devices_of(Owner::Quarantine).expect("memory").expect("always there");
    assert_eq!(quarantine.len(), 100_000);
    // A guest is given 8192 slots by itself; beyond that the embedder says where.
    let too_many = machine.assign(&members, GUEST);
    assert_eq!(too_many, Err(TransitionError::NoFreeSlot));
    assert_eq!(errno(too_many), Errno::ENOSPC);
    let placed: Vec<_> = (0..MANY).map(|place| Member::at(nth(place), nth(place))).collect();
    machine.assign(&placed, GUEST).expect("assigned");
    assert_eq!(machine.devices_of(TO_GUEST).expect("memory").expect("known").len(), 100_000);
    machine.deassign(&members, TO_GUEST).expect("deassigned");
    let back = machine.devices_of(Owner::Quarantine).expect("memory").expect("always there");
    assert_eq!(back.len(), 100_000, "they were in quarantine before");
}

#[test]
fn a_set_is_seen_whole_or_not_at_all() {
    let machine = machine(&THREE);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let seen = listed(&machine, TO_GUEST).len();
                assert!(seen == 0 || seen == 3, "{seen} of 3");
            }
        });
        for _ in 0..50 {
            machine.assign(&set(&THREE), GUEST).expect("assigned");
            machine.deassign(&set(&THREE), TO_GUEST).expect("deassigned");
        }
        stop.store(true, Ordering::Relaxed);
        watcher.join().expect("saw sets only");
    });
}

#[test]
fn nothing_is_published_while_a_member_hangs() {
    let machine = machine(&THREE);
    let done = while_it_hangs(
        &machine,
        Hook::Bind,
        || machine.assign(&set(&THREE), GUEST),
        || {
            assert!(listed(&machine, TO_GUEST).is_empty());
            for address in THREE {
                assert_eq!(owner(&machine, address), Some(Owner::Host));
                let assign = pcidevs::Holder::Transition(pcidevs::Transition::Assign);
                let refused = machine.quarantine(&set(&[address]));
                let busy = crate::scaffold::busy(refused);
                assert!(busy.holders.contains(&assign), "{busy}");
            }
        },
    );
    done.expect("assigned");
    assert_eq!(listed(&machine, TO_GUEST).len(), 3);
}

#[test]
fn a_set_whose_member_is_claimed_is_busy_and_changes_nothing() {
    let machine = machine(&THREE);
    let done = while_it_hangs(
        &machine,
        Hook::Reset,
        || machine.quarantine(&set(&["00:05.0"])),
        || {
            let refused = machine.assign(&set(&THREE), GUEST);
            assert_eq!(errno(refused), Errno::EBUSY);
            assert_eq!(owner(&machine, "00:03.0"), Some(Owner::Host));
            machine.assign(&set(&["00:03.0", "00:04.0"]), GUEST).expect("their claims were released");
        },
    );
    done.expect("quarantined");
    check(&machine);
    held_by(machine.remove_device(at("00:03.0")), &[pcidevs::Holder::Domain(GUEST)]);
}

#[test]
fn the_first_error_is_returned() {
    let machine = machine(&THREE);
    fail(&machine, Hook::Reset);
    let failed = failure(machine.assign(&set(&["00:05.0", "00:04.0"]), GUEST));
    assert_eq!((failed.device, failed.step), (at("00:04.0"), "reset"));
}
