//! Scripts that once went wrong, as short as they became. Each is named after the rule that was broken.

use pcidevs::lifecycle::Visibility;
use pcidevs::platform::ResetKind;
use pcidevs::{DomainId, Owner};

use super::machine::at;
use super::operations::{At, Attached, Callee, How, Operation, Set, Start, Step, Trouble};
use super::play::play;
use Operation::{
    Add, Assign, AssignGroup, Attach, BeginRemoval, Deassign, Detach, Enable, Hide, Isolate, MsiPrepare,
    Quarantine, ReleaseDomain, Remove, Repair, ReportFlushTimeout, ReportGone, RequestUnplug, Reset,
    RunDeferred, Scan, SetGroupInUse, SetHost,
};

const GUEST: DomainId = DomainId::new(1);
const THEIRS: Owner = Owner::Guest(GUEST);

/// The n-th call of a hook fails.
const fn hook(call: u8) -> Trouble {
    Trouble { call, of: Callee::Hook, how: How::Error }
}

/// The n-th undo or redo of an attachment fails.
const fn attachment(call: u8) -> Trouble {
    Trouble { call, of: Callee::Attachment, how: How::Error }
}

fn place(address: &str) -> At {
    At(at(&format!("0000:{address}")))
}

fn set(addresses: &[&str]) -> Set {
    Set(addresses.iter().map(|address| (place(address).0, None)).collect())
}

fn assign(addresses: &[&str]) -> Operation {
    Assign { set: set(addresses), guest: GUEST }
}

fn with(troubles: &[Trouble], operation: Operation) -> Step {
    Step { operation, troubles: troubles.to_vec() }
}

fn well(operation: Operation) -> Step {
    with(&[], operation)
}

fn plays(start: Start, script: &[Step]) {
    if let Err(why) = play(start, script) {
        panic!("{script:#?}\n{why}");
    }
}

#[test]
fn an_alias_outlives_the_first_device_that_leaves() {
    plays(Start::Booted, &[well(Remove(place("05:00.0")))]);
    let gone = |address| well(ReportGone { at: place(address), pulled: false });
    plays(Start::Booted, &[well(assign(&["05:00.0", "05:01.0"])), gone("05:01.0"), gone("05:00.0")]);
}

#[test]
fn an_alias_is_not_the_hosts_while_one_that_has_it_is_kept_from_memory() {
    let broken = with(&[hook(11), hook(12), hook(19)], ReleaseDomain(GUEST));
    let both = || well(assign(&["05:00.0", "05:01.0"]));
    plays(Start::Booted, &[both(), broken, well(ReleaseDomain(GUEST))]);
    plays(Start::Booted, &[both(), well(BeginRemoval(place("05:00.0"))), well(ReleaseDomain(GUEST))]);
    plays(
        Start::Booted,
        &[
            both(),
            well(BeginRemoval(place("05:01.0"))),
            well(Deassign { set: set(&["05:00.0", "05:01.0"]), from: THEIRS }),
        ],
    );
}

#[test]
fn ats_that_was_off_stays_off_when_a_transition_fails() {
    plays(Start::Booted, &[with(&[hook(12)], assign(&["00:03.0", "00:08.0", "00:05.1"]))]);
    plays(Start::Booted, &[well(Reset(place("00:04.0"), ResetKind::Flr))]);
}

#[test]
fn ats_that_was_on_is_on_again_when_a_transition_fails() {
    let enabled = || well(Enable(place("00:04.0")));
    for call in 0..12 {
        plays(Start::Booted, &[enabled(), with(&[hook(call)], assign(&["00:04.0"]))]);
    }
}

#[test]
fn a_scan_goes_past_a_device_whose_removal_is_pending() {
    plays(Start::Booted, &[well(BeginRemoval(place("00:04.0"))), well(Scan)]);
}

#[test]
fn adoption_ends_what_was_attached_before() {
    plays(Start::Scanned, &[well(Attach(place("00:04.0"), Attached::Irqfd)), well(SetHost)]);
}

#[test]
fn what_is_to_be_removed_is_not_adopted() {
    plays(Start::Scanned, &[well(BeginRemoval(place("01:02.0"))), well(SetHost)]);
}

#[test]
fn a_failed_adoption_leaves_nothing_in_the_iommu_once_the_device_has_left() {
    let failed = with(&[hook(4), attachment(0)], Add { at: place("00:05.0"), extended: false });
    let gone = well(ReportGone { at: place("00:05.0"), pulled: false });
    plays(Start::Booted, &[gone, well(Scan), failed, well(Isolate(place("00:05.0")))]);
}

#[test]
fn a_hidden_device_waits_for_no_group() {
    plays(
        Start::Booted,
        &[
            well(SetGroupInUse(1, true)),
            well(assign(&["00:05.2"])),
            well(ReleaseDomain(GUEST)),
            well(Hide(place("00:05.2"), Visibility::None)),
        ],
    );
}

#[test]
fn a_view_that_could_not_be_undone_is_undone_by_the_repair() {
    let device = || place("00:04.0");
    for call in 4..12 {
        plays(
            Start::Booted,
            &[
                with(&[hook(call), attachment(1)], assign(&["00:04.0"])),
                well(Isolate(device())),
                well(Repair(device())),
            ],
        );
    }
    plays(Start::Scanned, &[with(&[hook(20), attachment(0)], SetHost)]);
}

#[test]
fn what_is_undone_already_is_not_detached() {
    plays(
        Start::Booted,
        &[
            well(Attach(place("02:01.0"), Attached::Vector)),
            with(&[hook(1), attachment(1)], Reset(place("02:00.0"), ResetKind::Cold)),
            well(Detach(place("02:01.0"), Attached::Vector)),
        ],
    );
}

#[test]
fn the_msix_table_of_a_device_that_is_gone_is_given_back() {
    let gone = well(ReportGone { at: place("00:03.0"), pulled: false });
    plays(Start::Booted, &[well(MsiPrepare(place("00:03.0"))), gone]);
}

#[test]
fn a_guest_is_asked_for_a_device_whose_removal_is_pending() {
    let device = || place("00:04.0");
    plays(
        Start::Booted,
        &[well(assign(&["00:04.0"])), well(BeginRemoval(device())), well(RequestUnplug(device()))],
    );
    plays(Start::Booted, &[well(BeginRemoval(device())), well(RequestUnplug(device()))]);
}

#[test]
fn a_guest_is_released_whose_devices_share_a_reset() {
    plays(Start::Booted, &[well(assign(&["02:00.0", "02:01.0", "00:04.0"])), well(ReleaseDomain(GUEST))]);
}

#[test]
fn who_stays_in_quarantine_does_not_stand_in_the_way_of_its_own_set() {
    plays(
        Start::Booted,
        &[
            well(Quarantine(set(&["01:00.0"]))),
            well(Quarantine(set(&["01:02.0", "01:10.2", "01:10.0", "01:00.0"]))),
        ],
    );
}

#[test]
fn what_a_flush_would_let_through_is_not_confirmed_as_blocked() {
    let failed = with(&[hook(23), hook(28), hook(35)], assign(&["00:04.0", "00:02.0", "00:02.1"]));
    plays(Start::Booted, &[failed, well(Repair(place("00:02.0")))]);
}

#[test]
fn a_device_whose_undone_flush_panicked_is_listed_where_it_reaches() {
    let panics = |call| Trouble { how: How::Panic, ..hook(call) };
    for first in 20..28 {
        for second in 26..40 {
            let failed = [hook(first), panics(second), panics(second + 6)];
            plays(Start::Booted, &[with(&failed, assign(&["00:04.0", "00:02.0", "00:02.1"]))]);
        }
    }
}

#[test]
fn what_of_an_add_could_not_be_undone_is_cleared_up_later() {
    let device = || place("00:04.0");
    for second in 4..8 {
        let added = with(&[hook(3), hook(4), hook(second)], Add { at: device(), extended: false });
        plays(Start::Empty, &[added, well(Scan), well(RunDeferred), well(SetHost)]);
    }
    let added = with(&[hook(3), attachment(0)], Add { at: device(), extended: false });
    plays(Start::Empty, &[added, well(RunDeferred), well(Add { at: device(), extended: false })]);
}

#[test]
fn a_broken_device_is_not_given_back_with_its_group() {
    plays(
        Start::Booted,
        &[
            well(assign(&["00:05.0", "00:05.2"])),
            with(&[hook(21)], ReleaseDomain(GUEST)),
            with(&[hook(14), hook(15)], RunDeferred),
            with(&[hook(2)], Repair(place("00:05.2"))),
        ],
    );
}

#[test]
fn a_device_whose_flush_timed_out_is_out_of_its_guests_sight() {
    plays(
        Start::Booted,
        &[
            well(AssignGroup { at: place("00:03.0"), guest: GUEST }),
            well(ReportFlushTimeout(place("00:03.0"))),
        ],
    );
}
