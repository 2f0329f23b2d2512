//! The driver xen-pciback: what it may take stands in a list of its own, `slots`, and not in IDs.

use std::collections::BTreeSet;

use super::{Fake, FakeDriver, Machine};
use crate::Sbdf;
use crate::errno::Errno;

/// Its name.
pub(super) const PCIBACK: &str = "pciback";
/// Where its files are.
const FOLDER: &str = "bus/pci/drivers/pciback/";

/// Its lists.
#[derive(Default)]
pub(super) struct Pciback {
    pub(super) slots: BTreeSet<Sbdf>,
    permissive: BTreeSet<Sbdf>,
    /// Functions that a guest uses: taking one away does not block, it warns.
    in_use: BTreeSet<Sbdf>,
    warnings: usize,
}

impl Fake {
    /// Loads xen-pciback, with these slots.
    pub fn add_pciback(&self, slots: &[Sbdf]) {
        self.add_driver(PCIBACK, FakeDriver::default());
        self.machine().pciback.slots.extend(slots);
    }

    /// Whether pciback's list has a function.
    pub fn has_slot(&self, address: Sbdf) -> bool {
        self.machine().pciback.slots.contains(&address)
    }

    /// Whether a guest may write all of a function's configuration space.
    pub fn is_permissive(&self, address: Sbdf) -> bool {
        self.machine().pciback.permissive.contains(&address)
    }

    /// A guest uses a function through pciback, or does not any more.
    pub fn use_through_pciback(&self, address: Sbdf, used: bool) {
        let mut machine = self.machine();
        let in_use = &mut machine.pciback.in_use;
        if used {
            in_use.insert(address)
        } else {
            in_use.remove(&address)
        };
    }

    /// How often a function was taken from pciback while a guest used it: a kernel that warns, and goes on.
    pub fn pciback_warnings(&self) -> usize {
        self.machine().pciback.warnings
    }

    pub(super) fn write_pciback(&self, file: &str, address: Sbdf) -> Result<(), Errno> {
        let mut machine = self.machine();
        let on_pciback = machine
            .functions
            .get(&address)
            .is_some_and(|function| function.driver.as_deref() == Some(PCIBACK));
        let lists = &mut machine.pciback;
        match file {
            // A slot need not have a function. One that is listed already is no error.
            "new_slot" => {
                lists.slots.insert(address);
                Ok(())
            }
            "remove_slot" if lists.slots.remove(&address) => Ok(()),
            "permissive" if on_pciback => {
                lists.permissive.insert(address);
                Ok(())
            }
            "permissive" => Err(Errno::ENODEV),
            _ => Err(Errno::ENOENT),
        }
    }
}

impl Machine {
    /// The files that tell of pciback's lists.
    pub(super) fn read_pciback(&self, path: &str) -> Option<Vec<u8>> {
        let file = path.strip_prefix(FOLDER).filter(|_| self.drivers.contains_key(PCIBACK))?;
        let lines = |listed: &BTreeSet<Sbdf>| {
            listed.iter().fold(String::new(), |text, at| text + &at.to_string() + "\n")
        };
        match file {
            "slots" => Some(lines(&self.pciback.slots).into_bytes()),
            "permissive" => Some(lines(&self.pciback.permissive).into_bytes()),
            "quirks" | "irq_handlers" => Some(Vec::new()),
            _ => None,
        }
    }

    /// A function has left its driver.
    pub(super) fn left_pciback(&mut self, driver: &str, address: Sbdf) {
        if driver == PCIBACK {
            self.pciback.warnings += usize::from(self.pciback.in_use.remove(&address));
            self.pciback.permissive.remove(&address);
        }
    }
}
