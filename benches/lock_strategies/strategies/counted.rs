//! A device with a count of its own, which a removal closes: for tables whose readers no lock stops.
//!
//! The count begins at one, the registry's own. A removal takes it from one to none in one step, and from none
//! nobody counts up again. Then it takes the device out from under its lock and destroys it: a reader who found
//! the node before finds it empty.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use pcidevs::Sbdf;

use crate::device::{Device, ONES};
use crate::strategy::Refused;

pub(crate) struct Counted {
    /// The registry's reference and the uses.
    references: AtomicUsize,
    device: Mutex<Option<Device>>,
    aside: Mutex<Aside>,
}

#[derive(Default)]
struct Aside {
    holders: Vec<&'static str>,
    assigned: Option<Sbdf>,
    claimed: bool,
}

impl Counted {
    pub(super) fn of(device: Device) -> Self {
        Self { references: AtomicUsize::new(1), device: Mutex::new(Some(device)), aside: Mutex::default() }
    }

    pub(super) fn into_device(self) -> Option<Device> {
        self.device.into_inner()
    }

    /// Counts one use, unless the device is closed.
    #[inline]
    pub(super) fn get(&self) -> bool {
        let mut seen = self.references.load(Ordering::Relaxed);
        while seen != 0 {
            match self.references.compare_exchange_weak(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Gives a use back.
    #[inline]
    pub(super) fn put(&self) {
        self.references.fetch_sub(1, Ordering::Release);
    }

    /// Closes an unused device and destroys it.
    pub(super) fn close(&self) -> Result<(), Refused> {
        match self.references.compare_exchange(1, 0, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => {
                let device = self.device.lock().take();
                drop(device);
                Ok(())
            }
            Err(0) => Err(Refused::NotFound),
            Err(references) => {
                let aside = self.aside.lock();
                let assigned = aside.assigned.map(|_| "assigned");
                let holders = aside.holders.iter().copied().chain(assigned).map(str::to_owned).collect();
                Err(Refused::Busy { uses: references - 1, holders })
            }
        }
    }

    #[inline]
    pub(super) fn read(&self, register: usize) -> u32 {
        self.device.lock().as_ref().map_or(ONES, |device| device.read(register))
    }

    #[inline]
    pub(super) fn write(&self, register: usize, value: u32) {
        if let Some(device) = &*self.device.lock() {
            device.write(register, value);
        }
    }

    pub(super) fn name(&self, name: &'static str) {
        self.aside.lock().holders.push(name);
    }

    pub(super) fn unname(&self, name: &'static str) {
        let holders = &mut self.aside.lock().holders;
        if let Some(place) = holders.iter().position(|known| *known == name) {
            holders.swap_remove(place);
        }
    }

    /// Begins to assign the device.
    pub(super) fn claim_for(&self, guest_at: Sbdf) -> Result<(), Refused> {
        let mut aside = self.aside.lock();
        if aside.claimed || aside.assigned.is_some() {
            return Err(Refused::Busy { uses: 1, holders: vec!["assigned".to_owned()] });
        }
        (aside.claimed, aside.assigned) = (true, Some(guest_at));
        Ok(())
    }

    /// Begins to release the device from the guest's address.
    pub(super) fn claim_from(&self, guest_at: Sbdf) -> Result<(), Refused> {
        let mut aside = self.aside.lock();
        if aside.claimed || aside.assigned != Some(guest_at) {
            return Err(Refused::NotFound);
        }
        aside.claimed = true;
        Ok(())
    }

    /// Ends a transition.
    pub(super) fn settle(&self, assigned: Option<Sbdf>) {
        let mut aside = self.aside.lock();
        (aside.claimed, aside.assigned) = (false, assigned);
    }
}
