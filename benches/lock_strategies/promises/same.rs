//! What all strategies do alike: without it their figures could not be compared.

use crate::device::{Device, ONES, REGISTER, addresses, expected};
use crate::strategies::{ForEach, for_each};
use crate::strategy::{Refused, Strategy};

struct Same<F>(F);

/// What a test does with every strategy.
trait Test {
    fn of<S: Strategy>(&self);
}

impl<T: Test> ForEach for Same<T> {
    fn strategy<S: Strategy>(&mut self) {
        self.0.of::<S>();
    }
}

#[test]
fn every_device_is_read_and_written_at_its_address() {
    struct Access;
    impl Test for Access {
        fn of<S: Strategy>(&self) {
            let (registry, all) = (S::new(), addresses(600));
            assert_eq!(registry.read(all[0], REGISTER), ONES, "{}: empty", S::NAME);
            registry.write(all[0], REGISTER, 1);
            for at in &all {
                assert!(registry.add(*at, Device::at(*at)).is_ok(), "{}", S::NAME);
            }
            for at in &all {
                assert_eq!(registry.read(*at, REGISTER), expected(*at), "{}", S::NAME);
                assert_eq!(registry.read_plain(*at, REGISTER), expected(*at), "{}", S::NAME);
                assert!(registry.get(*at).is_some(), "{}", S::NAME);
                registry.write(*at, REGISTER, !expected(*at));
                assert_eq!(registry.read(*at, REGISTER), !expected(*at), "{}", S::NAME);
                assert_eq!(registry.read(*at, REGISTER + 1), expected(*at), "{}", S::NAME);
            }
        }
    }
    for_each(&mut Same(Access));
}

#[test]
fn an_address_is_taken_once() {
    struct Taken;
    impl Test for Taken {
        fn of<S: Strategy>(&self) {
            let (registry, at) = (S::new(), addresses(2)[1]);
            assert!(registry.add(at, Device::at(at)).is_ok(), "{}", S::NAME);
            let second = Device::at(addresses(1)[0]);
            let back = registry.add(at, second).expect_err("taken");
            assert_eq!(back.read(REGISTER), expected(addresses(1)[0]), "{}", S::NAME);
            assert_eq!(registry.read(at, REGISTER), expected(at), "{}", S::NAME);
            assert_eq!(registry.remove(at), Ok(()), "{}", S::NAME);
            assert!(registry.add(at, back).is_ok(), "{}: free again", S::NAME);
        }
    }
    for_each(&mut Same(Taken));
}

#[test]
fn a_guest_sees_what_is_assigned_to_it_where_it_was_assigned() {
    struct Guests;
    impl Test for Guests {
        fn of<S: Strategy>(&self) {
            let (registry, all) = (S::new(), addresses(300));
            let (at, guest_at, elsewhere) = (all[290], all[7], all[8]);
            for at in &all {
                assert!(registry.add(*at, Device::at(*at)).is_ok(), "{}", S::NAME);
            }
            let guests = [registry.create_guest(1), registry.create_guest(2)];
            for round in 0..3 {
                let mut hooks = 0;
                assert_eq!(
                    registry.assign(&guests[0], at, guest_at, || hooks += 1),
                    Ok(()),
                    "{} {round}",
                    S::NAME
                );
                assert_eq!(registry.guest_read(&guests[0], guest_at, REGISTER), expected(at), "{}", S::NAME);
                assert_eq!(registry.guest_read(&guests[0], elsewhere, REGISTER), ONES, "{}", S::NAME);
                assert_eq!(registry.guest_read(&guests[1], guest_at, REGISTER), ONES, "{}", S::NAME);
                let other = registry.release(&guests[1], at, guest_at, || hooks += 10);
                assert_eq!(other, Err(Refused::NotFound), "{}", S::NAME);
                assert_eq!(registry.release(&guests[0], at, guest_at, || hooks += 1), Ok(()), "{}", S::NAME);
                assert_eq!(registry.guest_read(&guests[0], guest_at, REGISTER), ONES, "{}", S::NAME);
                assert_eq!(hooks, 2, "{}: once each way", S::NAME);
            }
            assert_eq!(registry.read(at, REGISTER), expected(at), "{}", S::NAME);
        }
    }
    for_each(&mut Same(Guests));
}

#[test]
fn an_unused_device_can_be_removed_and_comes_back() {
    struct Unused;
    impl Test for Unused {
        fn of<S: Strategy>(&self) {
            let (registry, all) = (S::new(), addresses(20));
            assert_eq!(registry.remove(all[3]), Err(Refused::NotFound), "{}", S::NAME);
            for at in &all {
                assert!(registry.add(*at, Device::at(*at)).is_ok(), "{}", S::NAME);
            }
            for at in &all {
                assert_eq!(registry.remove(*at), Ok(()), "{}", S::NAME);
                assert_eq!(registry.read(*at, REGISTER), ONES, "{}", S::NAME);
                assert!(registry.add(*at, Device::at(*at)).is_ok(), "{}", S::NAME);
                assert_eq!(registry.read(*at, REGISTER), expected(*at), "{}", S::NAME);
            }
        }
    }
    for_each(&mut Same(Unused));
}

#[test]
fn a_plain_read_sees_what_was_written_and_nothing_of_the_device_before() {
    struct Plain;
    impl Test for Plain {
        fn of<S: Strategy>(&self) {
            let (registry, all) = (S::new(), addresses(4));
            for (at, written) in [(all[2], 7), (all[3], 8)] {
                for _ in 0..2 {
                    assert!(registry.add(at, Device::at(at)).is_ok(), "{}", S::NAME);
                    registry.prepare_plain(at);
                    assert_eq!(registry.read_plain(at, REGISTER), expected(at), "{}", S::NAME);
                    registry.write(at, REGISTER, written);
                    assert_eq!(registry.read_plain(at, REGISTER), written, "{}", S::NAME);
                    assert_eq!(registry.remove(at), Ok(()), "{}", S::NAME);
                    assert_eq!(registry.read_plain(at, REGISTER), ONES, "{}", S::NAME);
                }
            }
        }
    }
    for_each(&mut Same(Plain));
}

#[test]
fn many_are_filled_in_at_once_as_one_by_one() {
    struct Filled;
    impl Test for Filled {
        fn of<S: Strategy>(&self) {
            let (registry, mut all) = (S::new(), addresses(600));
            let late = all.remove(300);
            registry.fill(all.iter().map(|at| (*at, Device::at(*at))));
            assert!(all.iter().all(|at| registry.read(*at, REGISTER) == expected(*at)), "{}", S::NAME);
            assert!(registry.get(late).is_none(), "{}", S::NAME);
            assert!(registry.add(late, Device::at(late)).is_ok(), "{}", S::NAME);
            assert!(registry.add(all[5], Device::at(late)).is_err(), "{}: taken", S::NAME);
            assert_eq!(registry.remove(all[5]), Ok(()), "{}", S::NAME);
        }
    }
    for_each(&mut Same(Filled));
}
