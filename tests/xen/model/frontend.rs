//! xen-pcifront, as Linux has it, in the guest and with the guest's permissions.

use std::collections::BTreeSet;
use std::time::Duration;

use pcidevs::Sbdf;
use pcidevs::xen::pciback::State;
use pcidevs::xen::store::{Change, Store, StoreError, Watched, transact};

use super::kernel::{ATTEMPTS, EXPORTED, SEEN, address, be, fe, node, number, show, state, switch, unlisted};

/// How a guest behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Manners {
    Linux,
    /// Connects, and never answers a reconfiguration.
    Deaf,
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Frontend {
    manners: Manners,
    started: bool,
    pub(crate) bound: bool,
    last: State,
    pub(super) seen: BTreeSet<Sbdf>,
    pub(crate) fatal: Option<&'static str>,
}

impl Frontend {
    pub(crate) fn new(manners: Manners) -> Self {
        Self {
            manners,
            started: false,
            bound: false,
            last: State::Unknown,
            seen: BTreeSet::new(),
            fatal: None,
        }
    }

    pub(crate) fn turn(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        if !self.started {
            self.started = true;
            return store.watch(&node("/local/domain/7/device").into(), "bus");
        }
        let Some(event) = store.next_event(Duration::MAX)? else { return Ok(()) };
        match event.token.as_str() {
            "bus" => self.bus_changed(store),
            "be" if self.bound => self.backend_changed(store),
            _ => Ok(()),
        }
    }

    fn watch() -> Watched {
        be("state").into()
    }

    fn bus_changed(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        let there = store.find(None, &fe("state"))?;
        match (self.bound, there) {
            (true, None) => {
                self.bound = false;
                self.seen.clear();
                show(store, SEEN, &self.seen)?;
                store.unwatch(&Self::watch(), "be")
            }
            (false, Some(value)) if State::read(&value) == State::Initialising => self.probe(store),
            _ => Ok(()),
        }
    }

    fn probe(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        (self.bound, self.last, self.fatal) = (true, State::Initialising, None);
        transact(store, ATTEMPTS, |_, _| -> Result<_, StoreError> {
            let leaves = [("pci-op-ref", "8"), ("event-channel", "9"), ("magic", "7")];
            Ok((leaves.map(|(leaf, value)| Change::Write(fe(leaf), value.into())).to_vec(), ()))
        })?;
        self.switch(store, State::Initialised)?;
        store.watch(&Self::watch(), "be")
    }

    fn switch(&mut self, store: &mut dyn Store, to: State) -> Result<(), StoreError> {
        switch(store, &mut self.last, &fe("state"), to)
    }

    fn backend_changed(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        match state(store, &be("state"))? {
            State::Connected => self.look_from(store, State::Initialised),
            State::Reconfiguring if self.manners == Manners::Linux => self.let_go(store),
            State::Reconfigured => self.look_from(store, State::Reconfiguring),
            State::Closing | State::Closed => self.switch(store, State::Closing),
            _ => Ok(()),
        }
    }

    /// Looks at the bus, and says so. It sees what the driver has exported at that moment.
    fn look_from(&mut self, store: &mut dyn Store, only_in: State) -> Result<(), StoreError> {
        if state(store, &fe("state"))? != only_in {
            return Ok(());
        }
        let exported = store.read(None, &node(EXPORTED))?;
        self.seen.extend(unlisted(&String::from_utf8_lossy(&exported)));
        show(store, SEEN, &self.seen)?;
        self.switch(store, State::Connected)
    }

    fn let_go(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        if state(store, &fe("state"))? != State::Connected {
            return Ok(());
        }
        let Some(devices) = number(store, &be("num_devs"))? else {
            self.fatal = Some("it found no number of devices");
            return self.switch(store, State::Closing);
        };
        for index in 0..devices {
            if state(store, &be(&format!("state-{index}")))? != State::Closing {
                continue;
            }
            // Its own address of the device is in vdev-N; which device that is stands beside it.
            let Some(device) = address(store, &be(&format!("dev-{index}")))? else {
                self.fatal = Some("it found no address of a device to let go");
                return self.switch(store, State::Closing);
            };
            if self.seen.remove(&device) {
                show(store, SEEN, &self.seen)?;
            }
        }
        self.switch(store, State::Reconfiguring)
    }
}
