//! A machine: its functions and how they hang together.

use std::collections::BTreeMap;

use super::function::Function;
use super::warning::{Warning, WarningKind};
use crate::address::{Bus, Sbdf, Segment};
use crate::device::ConfigSpace;

/// The PCI functions of one machine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// In address order, each address once.
    pub functions: Vec<Function>,
    /// What could not be right, in the order found.
    pub warnings: Vec<Warning>,
}

/// A function as a reader found it, and where in a text source.
pub(super) struct Found {
    pub(super) function: Function,
    pub(super) line: Option<u32>,
}

impl Machine {
    /// Puts a machine together from what a reader found, in any order and with repeats: completes each function
    /// from its bytes, and ties virtual functions to their physical ones.
    pub(super) fn assemble(found: Vec<Found>, mut warnings: Vec<Warning>) -> Self {
        let mut unique: BTreeMap<Sbdf, Found> = BTreeMap::new();
        for next in found {
            let address = next.function.address;
            if let Some(first) = unique.get_mut(&address) {
                warnings.push(duplicate(address, next.line));
                first.function.merge(next.function);
            } else {
                unique.insert(address, next);
            }
        }
        let mut functions = Vec::with_capacity(unique.len());
        for Found { mut function, line } in unique.into_values() {
            function.complete_from_config(line, &mut warnings);
            functions.push(function);
        }
        let mut machine = Self { functions, warnings };
        machine.tie_virtual_functions();
        machine
    }

    /// The function at an address.
    pub fn function(&self, address: Sbdf) -> Option<&Function> {
        self.index(address).and_then(|index| self.functions.get(index))
    }

    /// The segments that have functions, in order.
    pub fn segments(&self) -> Vec<Segment> {
        let mut segments: Vec<_> = self.functions.iter().map(|function| function.address.segment()).collect();
        segments.dedup();
        segments
    }

    /// The bridge a bus is behind: the innermost whose bus range contains it. `None` for a root bus.
    pub fn behind(&self, segment: Segment, bus: Bus) -> Option<&Function> {
        let around = self.functions.iter().filter(|function| {
            let above = function.address.segment() == segment && function.address.bus() != bus;
            above && function.bridge.is_some_and(|range| range.contains(bus))
        });
        around.max_by_key(|function| function.bridge.map(|range| range.secondary))
    }

    /// The bridge directly above a function; `None` on a root bus. The function need not be part of the machine.
    pub fn parent(&self, address: Sbdf) -> Option<&Function> {
        self.behind(address.segment(), address.bus())
    }

    /// The functions directly behind a bridge, in address order; none for a function that is no bridge.
    pub fn children(&self, bridge: Sbdf) -> impl Iterator<Item = &Function> {
        let below = self.function(bridge).and_then(|function| function.bridge);
        self.functions.iter().filter(move |function| {
            let address = function.address;
            let in_range =
                address.segment() == bridge.segment() && below.is_some_and(|r| r.contains(address.bus()));
            in_range && self.parent(address).is_some_and(|parent| parent.address == bridge)
        })
    }

    /// The virtual functions of a physical function, in address order.
    pub fn virtual_functions(&self, physical: Sbdf) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(move |function| function.physfn == Some(physical))
    }

    fn index(&self, address: Sbdf) -> Option<usize> {
        self.functions.binary_search_by_key(&address, |function| function.address).ok()
    }

    /// Derives from each PF's SR-IOV capability which functions are its VFs and who they are.
    ///
    /// What the source stated itself (sysfs links, names in text) is kept.
    fn tie_virtual_functions(&mut self) {
        let mut warnings = Vec::new();
        for index in 0..self.functions.len() {
            let pf = &self.functions[index];
            let Some(sriov) = pf.sriov().filter(|sriov| sriov.enabled_vfs() > 0) else { continue };
            let (pf, vendor) = (pf.address, pf.vendor);
            for vf in sriov.vf_addresses(pf) {
                match vf {
                    Ok(address) if address != pf => {
                        let Some(index) = self.index(address) else { continue };
                        let vf = &mut self.functions[index];
                        if !could_be_virtual(vf) || *vf.physfn.get_or_insert(pf) != pf {
                            continue;
                        }
                        vf.vendor = vf.vendor.or(vendor);
                        vf.device.get_or_insert(sriov.vf_device);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        let (kind, message) = (WarningKind::VfAddress, error.to_string());
                        warnings.push(Warning { line: None, address: Some(pf), kind, message });
                        // The rest would only say the same.
                        break;
                    }
                }
            }
        }
        self.warnings.append(&mut warnings);
    }
}

/// A function with an identity of its own in its bytes is none of a PF's, whatever the PF's registers say.
fn could_be_virtual(function: &Function) -> bool {
    ConfigSpace::new(&function.config).u32(0).is_none_or(|identity| identity == u32::MAX)
}

fn duplicate(address: Sbdf, line: Option<u32>) -> Warning {
    let message = "listed before; the facts were put together".into();
    Warning { line, address: Some(address), kind: WarningKind::Duplicate, message }
}
