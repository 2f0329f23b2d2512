//! The machine as the core knows it: a registry with every function, its owner and who holds it.
//!
//! `list` shows owner and references from here and not from the recording, so it shows what a removal would meet:
//! a bridge is held by the devices directly behind it, a physical function by its virtual ones.

use std::collections::BTreeMap;
use std::error::Error;

use pcidevs::address::{Bus, Segment};
use pcidevs::topology::{Function, Machine};
use pcidevs::{Hold, Holder, Member, Owner, Registry, Sbdf, Status};

use super::owner;

/// A registry of a machine's functions.
///
/// Fields drop in order: the uses first, so that the registry finds every device unused.
pub(super) struct Known {
    _uses: Vec<Hold<()>>,
    registry: Registry<()>,
    bridges: BTreeMap<(Segment, Bus), Option<Sbdf>>,
}

impl Known {
    /// Enters a machine. Fails only for want of memory.
    pub(super) fn new(machine: &Machine) -> Result<Self, Box<dyn Error>> {
        let registry = Registry::new()?;
        for function in &machine.functions {
            registry.add(function.address, ())?;
        }
        let bridges = bridges_above(machine);
        let mut uses = Vec::new();
        for &Function { address, physfn, .. } in &machine.functions {
            let bridge = bridges.get(&(address.segment(), address.bus())).copied().flatten();
            if let Some(bridge) = bridge {
                uses.extend(registry.hold(bridge, Holder::Child(address))?);
            }
            if let Some(pf) = physfn {
                // A recording may lack the physical function.
                uses.extend(registry.hold(pf, Holder::Vf(address))?);
            }
        }
        let quarantined = machine.functions.iter().filter(|function| {
            let driver = function.driver.as_deref();
            owner::from_driver(driver) == Owner::Quarantine
        });
        let set: Vec<Member> = quarantined.map(|function| function.address.into()).collect();
        registry.move_devices(&set, Owner::Quarantine)?;
        Ok(Self { _uses: uses, registry, bridges })
    }

    /// Owner, count and holders of a function.
    pub(super) fn status(&self, address: Sbdf) -> Option<Status> {
        self.registry.status(address)
    }

    /// The bridge directly above a function.
    pub(super) fn bridge_above(&self, address: Sbdf) -> Option<Sbdf> {
        self.bridges.get(&(address.segment(), address.bus())).copied().flatten()
    }
}

/// The bridge above each bus that has functions, looked for once a bus and not once a function.
fn bridges_above(machine: &Machine) -> BTreeMap<(Segment, Bus), Option<Sbdf>> {
    let mut bridges = BTreeMap::new();
    for function in &machine.functions {
        let (segment, bus) = (function.address.segment(), function.address.bus());
        bridges
            .entry((segment, bus))
            .or_insert_with(|| machine.behind(segment, bus).map(|bridge| bridge.address));
    }
    bridges
}
