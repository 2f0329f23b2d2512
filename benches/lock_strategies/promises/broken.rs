//! Every promise that a strategy says it breaks, broken.
//!
//! Each test goes the shortest way to the violation. A lookup that takes no lock is stopped between finding the
//! device and counting the use, which is what preemption does to it.

use std::sync::atomic::Ordering;

use pcidevs::Sbdf;

use crate::device::{Device, REGISTER, Witness, addresses, expected};
use crate::strategies::{
    ArcSwapMap, ArcSwapVec, EpochRadix, Papaya, SkipList, VmmBus, XenToday, XenVpci, key, known,
};
use crate::strategy::{Promise, Refused, Strategy};

fn at() -> Sbdf {
    addresses(8)[5]
}

fn with_one<S: Strategy>() -> (S, Witness) {
    let (registry, destroyed) = (S::new(), Witness::default());
    assert!(registry.add(at(), Device::witnessed(at(), &destroyed)).is_ok());
    (registry, destroyed)
}

fn destroyed(witness: &Witness) -> usize {
    witness.load(Ordering::Acquire)
}

/// The strategies that this file accuses, with the number of promises it shows each to break.
const ACCUSED: [(&str, usize); 6] = [
    (<XenToday as Strategy>::NAME, 2),
    (<XenVpci as Strategy>::NAME, 2),
    (<VmmBus as Strategy>::NAME, 3),
    (<Papaya as Strategy>::NAME, 3),
    (<SkipList as Strategy>::NAME, 3),
    (<ArcSwapMap as Strategy>::NAME, 3),
];

#[test]
fn every_broken_promise_is_shown_here() {
    let broken = known().into_iter().filter_map(|strategy| {
        let broken =
            strategy.promises.named().iter().filter(|(_, promise)| *promise != Promise::Kept).count();
        (broken > 0).then_some((strategy.name, broken))
    });
    assert_eq!(broken.collect::<Vec<_>>(), ACCUSED);
}

#[test]
fn xen_today_removes_what_the_same_thread_uses() {
    let (registry, witness) = with_one::<XenToday>();
    let using = registry.hold(at(), "a user with a name").expect("present");
    // Not Busy, and so there is no name either.
    assert_eq!(registry.remove(at()), Ok(()));
    assert_eq!(destroyed(&witness), 1, "the device is gone while it is used");
    drop(using);
}

/// Where a removal does not mind an assignment, it names nobody either.
fn removes_from_under_a_guest<S: Strategy>() {
    let (registry, witness) = with_one::<S>();
    let guest = registry.create_guest(1);
    assert_eq!(registry.assign(&guest, at(), at(), || ()), Ok(()));
    assert_eq!(registry.remove(at()), Ok(()));
    assert_eq!(destroyed(&witness), 1, "the device is gone while the guest has it");
}

#[test]
fn xen_today_removes_from_under_a_guest() {
    removes_from_under_a_guest::<XenToday>();
}

#[test]
fn xen_vpci_removes_from_under_a_guest() {
    removes_from_under_a_guest::<XenVpci>();
}

/// The answer to a removal, begun while somebody uses the device: it waits for him, and then it is `Ok`.
#[test]
fn xen_vpci_does_not_refuse_while_another_thread_uses_the_device() {
    let (registry, witness) = with_one::<XenVpci>();
    let using = registry.hold(at(), "a user with a name").expect("present");
    std::thread::scope(|scope| {
        let removal = scope.spawn(|| registry.remove(at()));
        for _ in 0..1000 {
            std::thread::yield_now();
            assert!(!removal.is_finished(), "it has no answer while the device is used");
        }
        assert_eq!(destroyed(&witness), 0);
        drop(using);
        assert_eq!(removal.join().expect("no panic"), Ok(()));
    });
}

#[test]
fn vmm_bus_removes_what_is_used_and_frees_it_later() {
    let (registry, witness) = with_one::<VmmBus>();
    let using = registry.hold(at(), "a user with a name").expect("present");
    // Not Busy, and so there is no name either.
    assert_eq!(registry.remove(at()), Ok(()));
    assert_eq!(destroyed(&witness), 0, "the removal succeeded, and the device lives");
    assert_eq!(using.lock().expect("no panic").read(REGISTER), expected(at()), "and is still called");
    drop(using);
    assert_eq!(destroyed(&witness), 1);
}

/// A lookup that has found the device and not counted yet: the removal succeeds, the device lives, the lookup too.
macro_rules! a_lookup_under_way_survives_the_removal {
    ($($test:ident: $strategy:ty),+ $(,)?) => {$(
        #[test]
        fn $test() {
            let (registry, witness) = with_one::<$strategy>();
            let using = registry.find_midway(key(at()), || {
                assert_eq!(registry.remove(at()), Ok(()), "exact Busy: somebody is about to use it");
                assert_eq!(destroyed(&witness), 0, "deterministic free: the removal succeeded, and the device lives");
            });
            assert!(using.is_some(), "no lookup after remove: the lookup succeeds");
            drop(using);
        }
    )+};
}

a_lookup_under_way_survives_the_removal! {
    papaya_a_lookup_under_way_survives_the_removal: Papaya,
    skip_list_a_lookup_under_way_survives_the_removal: SkipList,
    arc_swap_map_a_lookup_under_way_survives_the_removal: ArcSwapMap,
}

#[test]
fn papaya_frees_when_it_pleases() {
    let (registry, witness) = with_one::<Papaya>();
    assert_eq!(registry.remove(at()), Ok(()));
    assert_eq!(destroyed(&witness), 0, "nobody is there, and the device lives");
    drop(registry);
    assert_eq!(destroyed(&witness), 1);
}

#[test]
fn skip_list_frees_when_it_pleases() {
    let (registry, witness) = with_one::<SkipList>();
    assert_eq!(registry.remove(at()), Ok(()));
    assert_eq!(destroyed(&witness), 0, "nobody is there, and the device lives");
}

#[test]
fn arc_swap_map_is_busy_with_a_reader_of_an_older_map() {
    let (registry, _) = with_one::<ArcSwapMap>();
    let elsewhere = addresses(8)[1];
    assert!(registry.add(elsewhere, Device::at(elsewhere)).is_ok());
    // A reader of the other device, and meanwhile a third one comes.
    let using = registry.find_midway(key(elsewhere), || {
        let third = addresses(8)[2];
        assert!(registry.add(third, Device::at(third)).is_ok());
        let refused = registry.remove(at());
        assert_eq!(refused, Err(Refused::Busy { uses: 1, holders: Vec::new() }), "nobody uses this one");
    });
    drop(using);
    assert_eq!(registry.remove(at()), Ok(()));
}

/// The two that have a count of their own, stopped at the same place: they keep what the others break. Twice, one
/// lookup inside the other: the first that is refused leaves no trace.
macro_rules! a_closed_count_refuses_lookups_under_way {
    ($($test:ident: $strategy:ty),+ $(,)?) => {$(
        #[test]
        fn $test() {
            let (registry, witness) = with_one::<$strategy>();
            let outer = registry.get_midway(at(), || {
                let inner = registry.get_midway(at(), || {
                    assert_eq!(registry.remove(at()), Ok(()));
                    assert_eq!(destroyed(&witness), 1);
                });
                assert!(inner.is_none());
            });
            assert!(outer.is_none());
        }
    )+};
}

a_closed_count_refuses_lookups_under_way! {
    arc_swap_vec_refuses_lookups_under_way: ArcSwapVec,
    epoch_radix_refuses_lookups_under_way: EpochRadix,
}
