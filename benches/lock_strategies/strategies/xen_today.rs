//! Xen today: one recursive lock for all of PCI, and linked lists that are walked under it.
//!
//! Nothing is counted: a device is safe to use because, and as long as, the global lock is held. The lock is
//! recursive, so it does not keep its own holder from removing the device that he is using; and an assignment is
//! no use, so a removal takes a device from under its guest.

use std::cell::RefCell;
use std::sync::Arc;

use parking_lot::{ReentrantMutex, ReentrantMutexGuard};
use pcidevs::Sbdf;

use super::chain::Chain;
use crate::device::{Device, ONES};
use crate::strategy::{Promise, Promises, Refused, Strategy};

/// What the lock protects: the segment's list, and one of each guest.
///
/// The `Arc` is for a device being on two lists; while the lock is held only lists have it.
pub(crate) struct Lists {
    segment: Chain<(Sbdf, Arc<Device>)>,
    guests: Vec<Chain<Member>>,
}

struct Member {
    guest_at: Sbdf,
    at: Sbdf,
    device: Arc<Device>,
}

pub(crate) struct XenToday(ReentrantMutex<RefCell<Lists>>);

impl XenToday {
    #[inline]
    fn with(&self, at: Sbdf, step: impl FnOnce(&Device) -> u32) -> u32 {
        let lists = self.0.lock();
        let lists = lists.borrow();
        lists.segment.find(|(known, _)| *known == at).map_or(ONES, |(_, device)| step(device))
    }
}

impl Strategy for XenToday {
    const NAME: &'static str = "Xen today: global lock, list";
    const PROMISES: Promises = Promises {
        exact_busy: Promise::Broken("waits for other threads, never refuses: not a use of its own thread, not a guest"),
        names_holders: Promise::Broken("nobody is counted, so nobody has a name"),
        ..Promises::ALL
    };
    type Use<'a> = Using<'a>;
    type Hold<'a> = Using<'a>;
    type Guest = usize;

    fn new() -> Self {
        Self(ReentrantMutex::new(RefCell::new(Lists { segment: Chain::new(), guests: Vec::new() })))
    }

    fn add(&self, at: Sbdf, device: Device) -> Result<(), Device> {
        let lists = self.0.lock();
        let mut lists = lists.borrow_mut();
        if lists.segment.find(|(known, _)| *known == at).is_some() {
            return Err(device);
        }
        lists.segment.push_front((at, Arc::new(device)));
        Ok(())
    }

    fn fill(&self, devices: impl Iterator<Item = (Sbdf, Device)>) {
        let lists = self.0.lock();
        let mut lists = lists.borrow_mut();
        devices.for_each(|(at, device)| lists.segment.push_front((at, Arc::new(device))));
    }

    fn remove(&self, at: Sbdf) -> Result<(), Refused> {
        let lists = self.0.lock();
        let mut lists = lists.borrow_mut();
        let removed = lists.segment.remove(|(known, _)| *known == at).ok_or(Refused::NotFound)?;
        for guest in &mut lists.guests {
            if guest.remove(|member| member.at == at).is_some() {
                break;
            }
        }
        drop(removed);
        Ok(())
    }

    #[inline]
    fn get(&self, at: Sbdf) -> Option<Using<'_>> {
        let lists = self.0.lock();
        let found = lists.borrow().segment.find(|(known, _)| *known == at).is_some();
        found.then_some(Using(lists))
    }

    fn hold(&self, at: Sbdf, _name: &'static str) -> Option<Using<'_>> {
        self.get(at)
    }

    #[inline]
    fn read(&self, at: Sbdf, register: usize) -> u32 {
        self.with(at, |device| device.read(register))
    }

    #[inline]
    fn write(&self, at: Sbdf, register: usize, value: u32) {
        self.with(at, |device| {
            device.write(register, value);
            value
        });
    }

    fn create_guest(&self, _number: u32) -> usize {
        let lists = self.0.lock();
        let guests = &mut lists.borrow_mut().guests;
        guests.push(Chain::new());
        guests.len() - 1
    }

    fn assign(&self, guest: &usize, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let lists = self.0.lock();
        let found = lists.borrow().segment.find(|(known, _)| *known == at).map(|(_, device)| device.clone());
        let device = found.ok_or(Refused::NotFound)?;
        if Arc::strong_count(&device) > 2 {
            return Err(Refused::Busy { uses: 1, holders: Vec::new() });
        }
        hook();
        lists.borrow_mut().guests[*guest].push_front(Member { guest_at, at, device });
        Ok(())
    }

    fn release(&self, guest: &usize, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let lists = self.0.lock();
        let wanted = |member: &Member| member.at == at && member.guest_at == guest_at;
        if lists.borrow().guests[*guest].find(wanted).is_none() {
            return Err(Refused::NotFound);
        }
        hook();
        lists.borrow_mut().guests[*guest].remove(wanted);
        Ok(())
    }

    #[inline]
    fn guest_read(&self, guest: &usize, guest_at: Sbdf, register: usize) -> u32 {
        let lists = self.0.lock();
        let lists = lists.borrow();
        let found = lists.guests[*guest].find(|member| member.guest_at == guest_at);
        found.map_or(ONES, |member| member.device.read(register))
    }
}

/// Whoever uses a device has the global lock.
pub(crate) struct Using<'a>(#[expect(dead_code, reason = "kept for its drop")] ReentrantMutexGuard<'a, RefCell<Lists>>);
