//! Every strategy that says that it keeps a promise keeps it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use pcidevs::Sbdf;

use crate::device::{Device, ONES, REGISTER, Witness, addresses, expected};
use crate::strategies::{ForEach, for_each};
use crate::strategy::{Promise, Promises, Refused, Strategy};

/// Does something for each strategy that keeps a promise, and sees to it that there are such.
fn for_each_keeper(keeps: fn(&Promises) -> Promise, test: impl Test) {
    struct Keepers<T> {
        keeps: fn(&Promises) -> Promise,
        test: T,
        seen: usize,
    }

    impl<T: Test> ForEach for Keepers<T> {
        fn strategy<S: Strategy>(&mut self) {
            if (self.keeps)(&S::PROMISES) == Promise::Kept {
                self.seen += 1;
                self.test.of::<S>();
            }
        }
    }

    let mut keepers = Keepers { keeps, test, seen: 0 };
    for_each(&mut keepers);
    assert!(keepers.seen > 1, "there are strategies that promise it");
}

trait Test {
    fn of<S: Strategy>(&self);
}

fn at() -> Sbdf {
    addresses(8)[5]
}

/// A registry with one device, whose destructor is watched.
fn with_one<S: Strategy>() -> (S, Witness) {
    let (registry, destroyed) = (S::new(), Witness::default());
    assert!(registry.add(at(), Device::witnessed(at(), &destroyed)).is_ok(), "{}", S::NAME);
    (registry, destroyed)
}

fn uses(refused: &Result<(), Refused>) -> Option<usize> {
    match refused {
        Err(Refused::Busy { uses, .. }) => Some(*uses),
        _ => None,
    }
}

#[test]
fn exact_busy_a_removal_is_refused_with_the_number_of_uses() {
    struct Exact;
    impl Test for Exact {
        fn of<S: Strategy>(&self) {
            let (registry, destroyed) = with_one::<S>();
            let mut held = Vec::new();
            for number in 1..=3 {
                held.push(registry.get(at()).expect("present"));
                assert_eq!(uses(&registry.remove(at())), Some(number), "{}", S::NAME);
            }
            while held.pop().is_some() {
                let left = (!held.is_empty()).then_some(held.len());
                if left.is_some() {
                    assert_eq!(uses(&registry.remove(at())), left, "{}", S::NAME);
                    assert_eq!(registry.read(at(), REGISTER), expected(at()), "{}: as it was", S::NAME);
                }
            }
            assert_eq!(destroyed.load(Ordering::Acquire), 0, "{}", S::NAME);
            assert_eq!(registry.remove(at()), Ok(()), "{}", S::NAME);
        }
    }
    for_each_keeper(|promises| promises.exact_busy, Exact);
}

#[test]
fn exact_busy_a_guest_is_a_use() {
    struct Assigned;
    impl Test for Assigned {
        fn of<S: Strategy>(&self) {
            let (registry, destroyed) = with_one::<S>();
            let guest = registry.create_guest(1);
            assert_eq!(registry.assign(&guest, at(), at(), || ()), Ok(()), "{}", S::NAME);
            assert_eq!(uses(&registry.remove(at())), Some(1), "{}", S::NAME);
            assert_eq!(registry.guest_read(&guest, at(), REGISTER), expected(at()), "{}", S::NAME);
            assert_eq!(registry.release(&guest, at(), at(), || ()), Ok(()), "{}", S::NAME);
            assert_eq!(destroyed.load(Ordering::Acquire), 0, "{}", S::NAME);
            assert_eq!(registry.remove(at()), Ok(()), "{}", S::NAME);
            assert_eq!(registry.guest_read(&guest, at(), REGISTER), ONES, "{}", S::NAME);
        }
    }
    for_each_keeper(|promises| promises.exact_busy, Assigned);
}

#[test]
fn exact_busy_a_device_in_a_hook_is_in_use() {
    struct InHook;
    impl Test for InHook {
        fn of<S: Strategy>(&self) {
            let (registry, _) = with_one::<S>();
            let guest = registry.create_guest(1);
            let mut seen = None;
            let hook = || seen = uses(&registry.remove(at()));
            assert_eq!(registry.assign(&guest, at(), at(), hook), Ok(()), "{}", S::NAME);
            assert!(seen.is_some_and(|uses| uses > 0), "{}: {seen:?}", S::NAME);
        }
    }
    for_each_keeper(|promises| promises.exact_busy, InHook);
}

#[test]
fn deterministic_free_the_destructor_has_run_when_the_removal_returns() {
    struct Free;
    impl Test for Free {
        fn of<S: Strategy>(&self) {
            for _ in 0..100 {
                let (registry, destroyed) = with_one::<S>();
                drop(registry.get(at()));
                assert_eq!(registry.read(at(), REGISTER), expected(at()), "{}", S::NAME);
                assert_eq!(registry.remove(at()), Ok(()), "{}", S::NAME);
                assert_eq!(destroyed.load(Ordering::Acquire), 1, "{}", S::NAME);
                drop(registry);
                assert_eq!(destroyed.load(Ordering::Acquire), 1, "{}: once", S::NAME);
            }
        }
    }
    for_each_keeper(|promises| promises.deterministic_free, Free);
}

#[test]
fn no_lookup_after_remove_nothing_finds_it() {
    struct Lookup;
    impl Test for Lookup {
        fn of<S: Strategy>(&self) {
            let (registry, _) = with_one::<S>();
            assert_eq!(registry.remove(at()), Ok(()), "{}", S::NAME);
            assert!(registry.get(at()).is_none(), "{}", S::NAME);
            assert!(registry.hold(at(), "late").is_none(), "{}", S::NAME);
            assert_eq!(registry.read(at(), REGISTER), ONES, "{}", S::NAME);
            assert_eq!(registry.read_plain(at(), REGISTER), ONES, "{}", S::NAME);
            assert_eq!(registry.remove(at()), Err(Refused::NotFound), "{}", S::NAME);
        }
    }
    for_each_keeper(|promises| promises.no_lookup_after_remove, Lookup);
}

#[test]
fn holders_named_a_refusal_names_them() {
    struct Names;
    impl Test for Names {
        fn of<S: Strategy>(&self) {
            let (registry, _) = with_one::<S>();
            let migration = registry.hold(at(), "migration").expect("present");
            let metrics = registry.hold(at(), "metrics").expect("present");
            let names = |refused| match refused {
                Err(Refused::Busy { mut holders, .. }) => {
                    holders.sort();
                    holders
                }
                _ => Vec::new(),
            };
            assert_eq!(names(registry.remove(at())), ["metrics", "migration"], "{}", S::NAME);
            drop(metrics);
            assert_eq!(names(registry.remove(at())), ["migration"], "{}", S::NAME);
            drop(migration);
            let guest = registry.create_guest(3);
            assert_eq!(registry.assign(&guest, at(), at(), || ()), Ok(()), "{}", S::NAME);
            let names = names(registry.remove(at()));
            assert!(matches!(&names[..], [name] if name.starts_with("assigned")), "{}: {names:?}", S::NAME);
        }
    }
    for_each_keeper(|promises| promises.names_holders, Names);
}

/// Uses that are counted beside the strategy: whoever got one says so until just before he gives it back.
#[test]
fn exact_busy_and_no_lookup_in_a_storm() {
    struct Storm;
    impl Test for Storm {
        fn of<S: Strategy>(&self) {
            let (registry, destroyed) = (S::new(), Witness::default());
            let (inside, over) = (AtomicUsize::new(0), AtomicUsize::new(0));
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while over.load(Ordering::Acquire) == 0 {
                            let before = destroyed.load(Ordering::Acquire);
                            if let Some(using) = registry.get(at()) {
                                inside.fetch_add(1, Ordering::SeqCst);
                                assert_eq!(registry.read(at(), REGISTER), expected(at()), "{}", S::NAME);
                                inside.fetch_sub(1, Ordering::SeqCst);
                                drop(using);
                            }
                            assert!(before <= destroyed.load(Ordering::Acquire));
                        }
                    });
                }
                let mut removed = 0;
                while removed < 200 {
                    // Refused only before a removal, so the address is free here.
                    assert!(registry.add(at(), Device::witnessed(at(), &destroyed)).is_ok(), "{}", S::NAME);
                    while let Err(refused) = registry.remove(at()) {
                        assert_ne!(uses(&Err(refused)), Some(0), "{}", S::NAME);
                        thread::yield_now();
                    }
                    removed += 1;
                    assert_eq!(inside.load(Ordering::SeqCst), 0, "{}: nobody uses what is removed", S::NAME);
                    assert_eq!(destroyed.load(Ordering::Acquire), removed, "{}", S::NAME);
                }
                over.store(1, Ordering::Release);
            });
        }
    }
    fn exact_and_free(promises: &Promises) -> Promise {
        if promises.all_kept() { Promise::Kept } else { Promise::Broken("some are not") }
    }
    for_each_keeper(exact_and_free, Storm);
}
