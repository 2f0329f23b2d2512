//! What a hostile reader found: one test for each, so that it stays found.
use pcidevs::{DomainId, Holder, Member, Owner, Phase, Registry, RemoveError, Sbdf, Transition};

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

struct Count(AtomicUsize);
impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_refused_second_ticket_leaves_the_first_ones_waker() {
    let registry: Registry<()> = Registry::new().unwrap();
    registry.add(at("01:00.0"), ()).unwrap();
    let user = registry.get(at("01:00.0")).unwrap();
    let mut ticket = registry.begin_removal(at("01:00.0")).unwrap();
    let woken = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(woken.clone());
    assert_eq!(Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker)), Poll::Pending);
    assert!(matches!(registry.begin_removal(at("01:00.0")), Err(RemoveError::Busy(_))));
    drop(user);
    assert_eq!(woken.0.load(SeqCst), 1, "the last put wakes the ticket");
}

#[test]
fn a_callback_left_after_the_device_went_is_called() {
    let registry: Registry<()> = Registry::new().unwrap();
    registry.add(at("01:00.0"), ()).unwrap();
    let hold = registry.hold(at("01:00.0"), Holder::Named("backend")).unwrap().unwrap();
    registry.report_gone(at("01:00.0")).unwrap(); // another thread, between hold and on_gone
    let told = Arc::new(AtomicUsize::new(0));
    hold.on_gone({
        let told = told.clone();
        Arc::new(move |_, _| {
            told.fetch_add(1, SeqCst);
        })
    });
    assert_eq!(told.load(SeqCst), 1);
}

/// The same inside the reporter's loop, by an older holder.
#[test]
fn a_callback_left_by_an_older_holder_while_others_are_told_is_called_once() {
    let registry: Registry<()> = Registry::new().unwrap();
    registry.add(at("01:00.0"), ()).unwrap();
    let old = Arc::new(registry.hold(at("01:00.0"), Holder::Named("old")).unwrap().unwrap());
    let young = registry.hold(at("01:00.0"), Holder::Named("young")).unwrap().unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    young.on_gone({
        let told = told.clone();
        let old = std::sync::Mutex::new(Some(old));
        Arc::new(move |_, _| {
            let told = told.clone();
            if let Some(old) = old.lock().unwrap().take() {
                old.on_gone(Arc::new(move |_, _| {
                    told.fetch_add(1, SeqCst);
                }));
                std::mem::forget(old);
            }
        })
    });
    registry.report_gone(at("01:00.0")).unwrap();
    assert_eq!(told.load(SeqCst), 1);
}

#[test]
fn a_panicking_callback_does_not_silence_the_others() {
    let registry: Registry<()> = Registry::new().unwrap();
    registry.add(at("01:00.0"), ()).unwrap();
    let first = registry.hold(at("01:00.0"), Holder::Named("first")).unwrap().unwrap();
    let second = registry.hold(at("01:00.0"), Holder::Named("second")).unwrap().unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    first.on_gone(Arc::new(|_, _| panic!("first")));
    second.on_gone({
        let told = told.clone();
        Arc::new(move |_, _| {
            told.fetch_add(1, SeqCst);
        })
    });
    let outcome =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| registry.report_gone(at("01:00.0"))));
    assert!(outcome.is_err());
    assert_eq!(told.load(SeqCst), 1);
}

#[test]
fn a_handle_of_a_destroyed_guest_does_not_reach_its_namesakes_devices() {
    let registry: Registry<u32> = Registry::new().unwrap();
    let (nic, seen, id) = (at("01:00.0"), at("00:03.0"), DomainId::new(1));
    registry.add(nic, 1).unwrap();
    let dead = registry.create_domain(id).unwrap();
    registry.move_devices(&[Member::at(nic, seen)], Owner::Guest(id)).unwrap();
    registry.report_gone(nic).unwrap();
    registry.destroy_domain(id).unwrap();
    let alive = registry.create_domain(id).unwrap();
    registry.add(nic, 2).unwrap();
    registry.move_devices(&[Member::at(nic, seen)], Owner::Guest(id)).unwrap();
    assert_eq!(*alive.lock(seen).unwrap(), 2);
    assert!(dead.lock(seen).is_err(), "a dead guest's vCPU reached the new guest's device");
}

#[test]
fn a_device_in_removal_is_not_taken_from_quarantine_to_the_host() {
    let registry: Registry<u32> = Registry::new().unwrap();
    let (nic, id) = (at("01:00.0"), DomainId::new(1));
    registry.add(nic, 1).unwrap();
    registry.create_domain(id).unwrap();
    registry.move_devices(&[nic.into()], Owner::Guest(id)).unwrap();
    let _ticket = registry.begin_removal(nic).unwrap();
    for _ in 0..2 {
        registry.move_devices(&[nic.into()], Owner::Host).unwrap();
        assert_eq!(registry.status(nic).unwrap().owner, Some(Owner::Quarantine));
    }
}

#[test]
fn busy_of_a_device_in_removal_tells_its_named_holders() {
    let registry: Registry<u32> = Registry::new().unwrap();
    let nic = at("01:00.0");
    registry.add(nic, 1).unwrap();
    let _hold = registry.hold(nic, Holder::Named("backend")).unwrap().unwrap();
    let _ticket = registry.begin_removal(nic).unwrap();
    for refused in
        [registry.remove_device(nic).unwrap_err(), registry.begin_removal(nic).map(drop).unwrap_err()]
    {
        let RemoveError::Busy(busy) = refused else { panic!("{refused}") };
        assert_eq!((busy.uses, busy.unnamed), (1, 0));
        assert!(busy.holders.contains(&Holder::Named("backend")));
        assert!(busy.holders.contains(&Holder::Transition(Transition::Remove)));
    }
}

struct Bomb(Arc<AtomicUsize>, bool);
impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
        assert!(!self.1, "bomb");
    }
}

#[test]
fn a_panicking_destructor_does_not_keep_the_registry_from_dropping_the_rest() {
    let destroyed = Arc::new(AtomicUsize::new(0));
    let registry: Registry<Bomb> = Registry::new().unwrap();
    for device in 0..4 {
        registry
            .add(Sbdf::from_u32(device << 3), Bomb(destroyed.clone(), device == 1))
            .unwrap_or_else(|_| panic!());
    }
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(registry)));
    assert!(outcome.is_err());
    assert_eq!(destroyed.load(SeqCst), 4);
}

/// A panicking destructor leaves the address free, whoever ran it.
#[test]
fn a_panicking_destructor_leaves_the_slot_free() {
    let destroyed = Arc::new(AtomicUsize::new(0));
    let registry: Registry<Bomb> = Registry::new().unwrap();
    let nic = at("01:00.0");
    for way in 0..3 {
        registry.add(nic, Bomb(destroyed.clone(), true)).unwrap_or_else(|_| panic!());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match way {
            0 => registry.remove_device(nic).unwrap(),
            1 => registry.report_gone(nic).unwrap(),
            _ => assert!(registry.begin_removal(nic).unwrap().try_complete().unwrap()),
        }));
        assert!(outcome.is_err());
        assert!(
            registry.status(nic).is_none() && registry.devices_of(Owner::Host).unwrap().unwrap().is_empty()
        );
    }
    assert_eq!(destroyed.load(SeqCst), 3);
}

#[test]
fn uses_of_a_gone_device_are_counted() {
    let registry: Registry<u32> = Registry::new().unwrap();
    registry.add(at("01:00.0"), 1).unwrap();
    let handle = registry.get(at("01:00.0")).unwrap();
    let hold = registry.hold(at("01:00.0"), Holder::Named("backend")).unwrap().unwrap();
    registry.report_gone(at("01:00.0")).unwrap();
    let status = handle.status();
    assert_eq!((status.phase, status.uses, status.unnamed), (Phase::Gone, 2, 1));
    drop(hold);
    assert_eq!(handle.status().uses, 1);
}

#[test]
fn addresses_asked_for_come_before_addresses_handed_out() {
    let registry: Registry<u32> = Registry::new().unwrap();
    let id = DomainId::new(1);
    let guest = registry.create_domain(id).unwrap();
    registry.add(at("01:00.0"), 1).unwrap();
    registry.add(at("02:00.0"), 2).unwrap();
    let set = [Member::new(at("01:00.0")), Member::at(at("02:00.0"), at("00:00.0"))];
    registry.move_devices(&set, Owner::Guest(id)).unwrap();
    assert_eq!(*guest.lock(at("00:00.0")).unwrap(), 2);
    assert_eq!(*guest.lock(at("00:01.0")).unwrap(), 1);
}

/// A guard of this thread, through a domain handle, when the registry goes.
#[test]
fn a_registry_dropped_under_a_guard_reports_the_device_gone() {
    let destroyed = Arc::new(AtomicUsize::new(0));
    let registry: Registry<Bomb> = Registry::new().unwrap();
    let (nic, id) = (at("01:00.0"), DomainId::new(1));
    registry.add(nic, Bomb(destroyed.clone(), false)).unwrap_or_else(|_| panic!());
    let guest = registry.create_domain(id).unwrap();
    registry.move_devices(&[Member::at(nic, at("00:00.0"))], Owner::Guest(id)).unwrap();
    let guard = guest.lock(at("00:00.0")).unwrap();
    drop(registry);
    drop(guard);
    assert!(guest.lock(at("00:00.0")).is_err(), "every lookup finds nothing once the registry is gone");
}
