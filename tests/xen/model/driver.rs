//! xen-pciback, as Linux has it: one thread that is called for events, and looks again at each.

use std::collections::BTreeSet;
use std::time::Duration;

use pcidevs::Sbdf;
use pcidevs::xen::pciback::State;
use pcidevs::xen::store::{Store, StoreError, Watched};

use super::kernel::{EXPORTED, address, be, fe, node, number, show, state, switch};

/// Which of Linux's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    /// Looks at the devices once, before it is Initialised, and then only when reconfigured.
    LooksOnce,
    /// Looks again at events while it is Initialised (since Linux 5.12).
    LooksAgain,
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Driver {
    version: Version,
    started: bool,
    /// Whether it has the backend.
    pub(crate) bound: bool,
    last: State,
    pub(super) exported: BTreeSet<Sbdf>,
    /// Why it has given up.
    pub(crate) fatal: Option<&'static str>,
}

impl Driver {
    pub(crate) fn new(version: Version) -> Self {
        Self {
            version,
            started: false,
            bound: false,
            last: State::Unknown,
            exported: BTreeSet::new(),
            fatal: None,
        }
    }

    pub(crate) fn turn(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        if !self.started {
            self.started = true;
            return store.watch(&node("/local/domain/0/backend/pci").into(), "bus");
        }
        let Some(event) = store.next_event(Duration::MAX)? else { return Ok(()) };
        match event.token.as_str() {
            "bus" => self.bus_changed(store),
            "be" if self.bound => self.backend_changed(store),
            "fe" if self.bound => self.frontend_changed(store),
            _ => Ok(()),
        }
    }

    fn watches() -> [(Watched, &'static str); 2] {
        let folder = be("state").parent().expect("a folder");
        [(folder.into(), "be"), (fe("state").into(), "fe")]
    }

    fn bus_changed(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        let there = store.find(None, &be("state"))?;
        match (self.bound, there) {
            (true, None) => self.unregister(store),
            // Only a device that is new.
            (false, Some(value)) if State::read(&value) == State::Initialising => self.probe(store),
            _ => Ok(()),
        }
    }

    fn probe(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        (self.bound, self.last, self.fatal) = (true, State::Initialising, None);
        self.exported.clear();
        self.switch(store, State::InitWait)?;
        let [backend, frontend] = Self::watches();
        store.watch(&backend.0, backend.1)?;
        self.backend_changed(store)?;
        store.watch(&frontend.0, frontend.1)
    }

    fn unregister(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        self.bound = false;
        self.exported.clear();
        show(store, EXPORTED, &self.exported)?;
        for (watched, token) in Self::watches() {
            store.unwatch(&watched, token)?;
        }
        // The bus says so, for a driver that does not want the same backend again.
        self.switch(store, State::Closed)
    }

    fn switch(&mut self, store: &mut dyn Store, to: State) -> Result<(), StoreError> {
        switch(store, &mut self.last, &be("state"), to)
    }

    fn give_up(&mut self, store: &mut dyn Store, why: &'static str) -> Result<(), StoreError> {
        self.fatal = Some(why);
        self.switch(store, State::Closing)
    }

    fn backend_changed(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        match (state(store, &be("state"))?, self.version) {
            (State::InitWait, _) => self.set_up(store),
            (State::Initialised, Version::LooksAgain) => self.reconfigure(store, State::Initialised),
            _ => Ok(()),
        }
    }

    fn frontend_changed(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        match state(store, &fe("state"))? {
            State::Initialised => self.attach(store),
            State::Reconfiguring => self.reconfigure(store, State::Reconfiguring),
            State::Connected => self.switch(store, State::Connected),
            State::Closing => self.switch(store, State::Closing),
            State::Unknown | State::Closed => self.unregister(store),
            _ => Ok(()),
        }
    }

    fn set_up(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        if state(store, &be("state"))? != State::InitWait {
            return Ok(());
        }
        let Some(devices) = number(store, &be("num_devs"))? else {
            return self.give_up(store, "it found no number of devices");
        };
        for index in 0..devices {
            if !self.export(store, index)? {
                return self.give_up(store, "it found no device at an index");
            }
        }
        store.write(None, &be("root-0"), b"0000:00")?;
        store.write(None, &be("root_num"), b"1")?;
        self.switch(store, State::Initialised)
    }

    fn export(&mut self, store: &mut dyn Store, index: u32) -> Result<bool, StoreError> {
        let Some(device) = address(store, &be(&format!("dev-{index}")))? else { return Ok(false) };
        self.exported.insert(device);
        show(store, EXPORTED, &self.exported)?;
        let guest_address = format!("0000:00:{:02x}.00", device.function());
        store.write(None, &be(&format!("vdev-{index}")), guest_address.as_bytes())?;
        store.write(None, &be(&format!("state-{index}")), State::Initialised.number().as_bytes())?;
        Ok(true)
    }

    fn attach(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        if state(store, &be("state"))? != State::Initialised {
            return Ok(());
        }
        if state(store, &fe("state"))? != State::Initialised {
            return Ok(());
        }
        if store.find(None, &fe("magic"))?.is_none() {
            return self.give_up(store, "the front end has not said how to reach it");
        }
        self.switch(store, State::Connected)
    }

    fn reconfigure(&mut self, store: &mut dyn Store, only_in: State) -> Result<(), StoreError> {
        if state(store, &be("state"))? != only_in {
            return Ok(());
        }
        let Some(devices) = number(store, &be("num_devs"))? else {
            return self.give_up(store, "it found no number of devices");
        };
        for index in 0..devices {
            match state(store, &be(&format!("state-{index}")))? {
                State::Initialising => {
                    if !self.export(store, index)? {
                        return self.give_up(store, "it found no device at an index");
                    }
                    store.write(None, &be("root_num"), b"1")?;
                }
                State::Closing => {
                    let device = address(store, &be(&format!("dev-{index}")))?;
                    if !device.is_some_and(|device| self.exported.remove(&device)) {
                        return self.give_up(store, "it was to remove a device that it does not have");
                    }
                    show(store, EXPORTED, &self.exported)?;
                }
                _ => {}
            }
        }
        if only_in == State::Reconfiguring { self.switch(store, State::Reconfigured) } else { Ok(()) }
    }
}
