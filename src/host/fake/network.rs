//! Network interfaces of physical functions, and what they keep of virtual ones.

use std::collections::BTreeMap;

use super::binding::nth_virtual;
use super::{Fake, Machine};
use crate::Sbdf;
use crate::errno::Errno;
use crate::host::network::{KeptNetwork, NetworkChange};

/// An interface.
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) physical_function: Sbdf,
    pub(super) kept: BTreeMap<u16, KeptNetwork>,
    /// What it answers whatever it is asked.
    pub(super) refuses: Option<Errno>,
    /// It says that it has changed something, and has not.
    pub(super) is_deaf: bool,
}

impl Machine {
    /// The names in a function's folder `net`.
    pub(super) fn interface_names(&self, physical_function: Sbdf) -> Result<Vec<String>, Errno> {
        let theirs = self.interfaces.values().filter(|one| one.physical_function == physical_function);
        let names: Vec<String> = theirs.map(|interface| interface.name.clone()).collect();
        if names.is_empty() { Err(Errno::ENOENT) } else { Ok(names) }
    }

    /// The file `ifindex` of one of them.
    pub(super) fn interface_index(&self, physical_function: Sbdf, name: &str) -> Result<Vec<u8>, Errno> {
        let is_it =
            |(_, one): &(&u32, &Interface)| one.physical_function == physical_function && one.name == name;
        let (index, _) = self.interfaces.iter().find(is_it).ok_or(Errno::ENOENT)?;
        Ok(format!("{index}\n").into_bytes())
    }

    /// The virtual functions are switched off, and what was kept of them is forgotten.
    pub(super) fn forget_kept(&mut self, physical_function: Sbdf) {
        for interface in self.interfaces.values_mut() {
            if interface.physical_function == physical_function {
                interface.kept.clear();
            }
        }
    }

    /// What is kept of a virtual function that there is.
    fn kept(&mut self, index: u32, number: u16) -> Result<&mut KeptNetwork, Errno> {
        let interface = self.interfaces.get_mut(&index).ok_or(Errno::ENODEV)?;
        if let Some(errno) = interface.refuses {
            return Err(errno);
        }
        let count = self.functions.get(&interface.physical_function).map_or(0, |pf| pf.num_vfs);
        if number >= count && !interface.kept.contains_key(&number) {
            return Err(Errno::ENODEV);
        }
        Ok(interface.kept.entry(number).or_default())
    }
}

impl Fake {
    /// A physical function gets a network interface, which keeps MAC addresses and VLANs of its virtual functions.
    /// Returns its index.
    pub fn add_interface(&self, physical_function: Sbdf, name: &str) -> u32 {
        let mut machine = self.machine();
        let index = machine.interfaces.keys().next_back().map_or(2, |last| last + 1);
        let interface = Interface {
            name: name.into(),
            physical_function,
            kept: BTreeMap::new(),
            refuses: None,
            is_deaf: false,
        };
        machine.interfaces.insert(index, interface);
        index
    }

    /// From now on the interface answers this to whatever it is asked of virtual functions.
    pub fn refuse_at_interface(&self, index: u32, errno: Option<Errno>) {
        if let Some(interface) = self.machine().interfaces.get_mut(&index) {
            interface.refuses = errno;
        }
    }

    /// From now on changes at the interface have no effect, and no error.
    pub fn deafen_interface(&self, index: u32) {
        if let Some(interface) = self.machine().interfaces.get_mut(&index) {
            interface.is_deaf = true;
        }
    }

    /// Somebody gives an interface another name.
    pub fn rename_interface(&self, index: u32, name: &str) {
        if let Some(interface) = self.machine().interfaces.get_mut(&index) {
            interface.name = name.into();
        }
    }

    /// What is kept of a virtual function by the first interface of its physical one; as somebody else sees it.
    pub fn kept_network(&self, device: Sbdf) -> Option<KeptNetwork> {
        let machine = self.machine();
        let (index, number) = machine.keeper(device)?;
        Some(machine.interfaces.get(&index)?.kept.get(&number).copied().unwrap_or_default())
    }

    /// Somebody else changes that.
    pub fn keep_network(&self, device: Sbdf, kept: KeptNetwork) {
        let mut machine = self.machine();
        if let Some((index, number)) = machine.keeper(device)
            && let Some(interface) = machine.interfaces.get_mut(&index)
        {
            interface.kept.insert(number, kept);
        }
    }

    pub(super) fn read_network(&self, index: u32, number: u16) -> Result<KeptNetwork, Errno> {
        self.machine().kept(index, number).copied()
    }

    pub(super) fn change_network(&self, index: u32, number: u16, change: NetworkChange) -> Result<(), Errno> {
        let name = self.machine().interfaces.get(&index).map(|interface| interface.name.clone());
        let name = name.ok_or(Errno::ENODEV)?;
        self.strike(&format!("ip link set {name} vf {number} {change}"))?;
        let mut machine = self.machine();
        let is_deaf = machine.interfaces.get(&index).is_some_and(|interface| interface.is_deaf);
        let kept = machine.kept(index, number)?;
        match change {
            _ if is_deaf => {}
            NetworkChange::Mac(mac) => kept.mac = mac,
            NetworkChange::Vlan(vlan) => kept.vlan = vlan,
        }
        Ok(())
    }
}

impl Machine {
    /// The first interface of a virtual function's physical one, and its number there.
    fn keeper(&self, device: Sbdf) -> Option<(u32, u16)> {
        let pf = self.functions.get(&device)?.is.physical_function?;
        let count = self.functions.get(&pf)?.num_vfs;
        let number = (0..count).find(|number| nth_virtual(pf, number + 1) == Some(device))?;
        let (index, _) = self.interfaces.iter().find(|(_, one)| one.physical_function == pf)?;
        Some((*index, number))
    }
}
