//! A device in an `Arc`, with its own lock: what the maps of this benchmark lead to.
//!
//! The `Arc` is the count: the map has one reference, and every use another.

use std::sync::Arc;

use parking_lot::Mutex;
use pcidevs::Sbdf;

use crate::device::Device;
use crate::strategy::Refused;

pub(crate) struct Entry {
    pub(super) device: Mutex<Device>,
    /// What is seldom touched.
    aside: Mutex<Aside>,
}

struct Aside {
    holders: Vec<&'static str>,
    /// The guest's address for it, while it is assigned or on its way there or back.
    assigned: Option<Sbdf>,
    /// A transition is under way.
    claimed: bool,
}

impl Entry {
    pub(super) fn of(device: Device) -> Arc<Self> {
        let aside = Aside { holders: Vec::new(), assigned: None, claimed: false };
        Arc::new(Self { device: Mutex::new(device), aside: Mutex::new(aside) })
    }

    /// The device back, of an entry that nobody else has seen.
    pub(super) fn into_device(self: Arc<Self>) -> Device {
        Arc::into_inner(self).expect("nobody else has seen it").device.into_inner()
    }

    /// Refuses if there are more references than the map's own. Exact if no other can be made meanwhile.
    pub(super) fn unused(self: &Arc<Self>) -> Result<(), Refused> {
        let uses = Arc::strong_count(self) - 1;
        if uses == 0 { Ok(()) } else { Err(self.busy(uses)) }
    }

    fn busy(&self, uses: usize) -> Refused {
        let aside = self.aside.lock();
        let assigned = aside.assigned.map(|_| "assigned");
        Refused::Busy {
            uses,
            holders: aside.holders.iter().copied().chain(assigned).map(str::to_owned).collect(),
        }
    }

    /// Begins to assign the device. `self` is a use, beside the map's reference.
    pub(super) fn claim_for(&self, guest_at: Sbdf) -> Result<(), Refused> {
        let mut aside = self.aside.lock();
        if aside.claimed || aside.assigned.is_some() {
            drop(aside);
            return Err(self.busy(1));
        }
        aside.claimed = true;
        aside.assigned = Some(guest_at);
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

    /// Ends a transition, with the device at this address of a guest or with none.
    pub(super) fn settle(&self, assigned: Option<Sbdf>) {
        let mut aside = self.aside.lock();
        aside.claimed = false;
        aside.assigned = assigned;
    }
}

/// A named use.
pub(crate) struct Named {
    entry: Arc<Entry>,
    name: &'static str,
}

impl Named {
    pub(super) fn of(entry: Arc<Entry>, name: &'static str) -> Self {
        entry.aside.lock().holders.push(name);
        Self { entry, name }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let mut aside = self.entry.aside.lock();
        if let Some(place) = aside.holders.iter().position(|name| *name == self.name) {
            aside.holders.swap_remove(place);
        }
    }
}
