//! What the kernel does when its files are written: probing, binding, unbinding, virtual functions, resets.

use std::sync::MutexGuard;

use super::function::{FakeFunction, Function};
use super::pciback::PCIBACK;
use super::{Fake, Machine, Release};
use crate::Sbdf;
use crate::errno::Errno;

/// What blocks while somebody holds a device's lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    /// Binding, unbinding, resetting: always.
    Driver,
    /// The override: on kernels up to 6.1.
    Override,
}

impl Machine {
    fn function(&mut self, address: Sbdf) -> Result<&mut Function, Errno> {
        self.functions.get_mut(&address).ok_or(Errno::ENODEV)
    }

    /// Whether a driver takes a function. With an override only the one of that very name does.
    fn matches(&self, name: &str, address: Sbdf, function: &Function) -> bool {
        match &function.driver_override {
            Some(only) => only == name,
            None if name == PCIBACK => {
                self.drivers.contains_key(name) && self.pciback.slots.contains(&address)
            }
            None => self.drivers.get(name).is_some_and(|driver| driver.ids.contains(&function.is.id)),
        }
    }

    /// What the probe of a driver says.
    fn try_driver(&self, name: &str, function: &Function) -> Result<(), Errno> {
        let driver = self.drivers.get(name).ok_or(Errno::ENODEV)?;
        if let Some(errno) = driver.refuses {
            return Err(errno);
        }
        if driver.is_vfio {
            if function.is_bridge() || function.is.group.is_none() {
                return Err(Errno::EINVAL);
            }
            if function.num_vfs > 0 {
                return Err(Errno::EBUSY);
            }
        } else if name != "pci-stub" && self.is_owned(function.is.group) {
            // The group's DMA belongs to a guest.
            return Err(Errno::EBUSY);
        }
        Ok(())
    }

    /// Whether a guest has a device of this group open.
    pub(super) fn is_owned(&self, group: Option<u32>) -> bool {
        group.is_some() && self.functions.values().any(|other| other.is.group == group && other.open > 0)
    }

    /// Whether no function of this group is on a host driver.
    pub(super) fn is_viable(&self, group: Option<u32>) -> bool {
        let is_fine = |function: &Function| match &function.driver {
            Some(name) => {
                let is_vfio = self.drivers.get(name).is_some_and(|driver| driver.is_vfio);
                is_vfio || name == "pci-stub" || function.is_bridge() && name == "pcieport"
            }
            None => true,
        };
        self.functions.values().filter(|function| function.is.group == group).all(is_fine)
    }

    /// Binds a function to the first driver that matches, if its probe succeeds. How long that takes is not modelled.
    pub(super) fn probe(&mut self, address: Sbdf) -> Option<String> {
        let function = self.functions.get(&address)?;
        if function.driver.is_some() {
            return None;
        }
        let name = self.drivers.keys().find(|name| self.matches(name, address, function))?.clone();
        self.try_driver(&name, function).ok()?;
        self.functions.get_mut(&address)?.driver = Some(name.clone());
        Some(name)
    }
}

impl Fake {
    /// Waits until nobody holds the function's lock.
    pub(super) fn unlocked(&self, address: Sbdf, touch: Touch) -> Result<MutexGuard<'_, Machine>, Errno> {
        let mut machine = self.machine();
        while machine.function(address)?.is_locked
            && (touch == Touch::Driver || machine.release == Release::V6_1)
        {
            machine = self.wait(machine);
        }
        Ok(machine)
    }

    /// `drivers_probe`: succeeds whatever the probe says.
    pub(super) fn probe_driver(&self, address: Sbdf) -> Result<(), Errno> {
        let mut machine = self.unlocked(address, Touch::Driver)?;
        let function = machine.function(address)?;
        if function.driver.is_some() {
            return Ok(());
        }
        let function = machine.functions.get(&address).ok_or(Errno::ENODEV)?;
        let name = machine.drivers.keys().find(|name| machine.matches(name, address, function)).cloned();
        let Some(name) = name else { return Ok(()) };
        // What went wrong nobody learns.
        let _probed = self.attach(machine, address, &name);
        Ok(())
    }

    /// `bind`: the probe's error.
    pub(super) fn bind(&self, name: &str, address: Sbdf) -> Result<(), Errno> {
        let machine = self.unlocked(address, Touch::Driver)?;
        let function = machine.functions.get(&address).ok_or(Errno::ENODEV)?;
        if !machine.matches(name, address, function) {
            return Err(Errno::ENODEV);
        }
        if function.driver.is_some() {
            return Err(Errno::EBUSY);
        }
        self.attach(machine, address, name)
    }

    /// A driver's probe, with the device's lock held as long as it takes.
    fn attach<'a>(
        &'a self,
        mut machine: MutexGuard<'a, Machine>,
        address: Sbdf,
        name: &str,
    ) -> Result<(), Errno> {
        let takes = machine.drivers.get(name).ok_or(Errno::ENODEV)?.probe_takes;
        if !takes.is_zero() {
            machine.function(address)?.is_locked = true;
            drop(machine);
            std::thread::sleep(takes);
            machine = self.machine();
            machine.function(address)?.is_locked = false;
        }
        let function = machine.functions.get(&address).ok_or(Errno::ENODEV)?;
        let probed = machine.try_driver(name, function);
        if probed.is_ok() {
            machine.function(address)?.driver = Some(name.into());
        }
        drop(machine);
        self.shared.changed.notify_all();
        probed
    }

    /// `unbind`: the link is gone at once, but it returns when nobody has the device open any more.
    pub(super) fn unbind(&self, name: &str, address: Sbdf) -> Result<(), Errno> {
        let mut machine = self.unlocked(address, Touch::Driver)?;
        let function = machine.function(address)?;
        if function.driver.as_deref() != Some(name) {
            return Err(Errno::ENODEV);
        }
        (function.driver, function.is_locked) = (None, true);
        loop {
            let hangs = machine.drivers.get(name).is_some_and(|driver| driver.hangs_in_unbind);
            match machine.functions.get(&address) {
                // It vanished.
                None => return Ok(()),
                Some(function) if function.open == 0 && !hangs => break,
                Some(_) => machine = self.wait(machine),
            }
        }
        let function = machine.function(address)?;
        function.is_locked = false;
        // A driver switches the device off as it leaves.
        function.set_command(0);
        machine.left_pciback(name, address);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// `reset`.
    pub(super) fn reset(&self, address: Sbdf) -> Result<(), Errno> {
        let mut machine = self.unlocked(address, Touch::Driver)?;
        let function = machine.function(address)?;
        let method = function.is.reset_method.clone().unwrap_or_default();
        let bus = (address.segment(), address.bus());
        let siblings = machine.functions.keys().filter(|other| (other.segment(), other.bus()) == bus).count();
        match method.split_whitespace().next() {
            None => return Err(Errno::ENOENT),
            // ENOTTY, though it is listed: the first one of a bus was alone when it was found.
            Some("bus") if siblings > 1 => return Err(Errno::new(25)),
            Some(_) => {}
        }
        let function = machine.function(address)?;
        function.resets += 1;
        function.set_command(0);
        Ok(())
    }

    /// A reset of a whole bus: all of it is on VFIO, and in these groups, which nobody has open.
    pub(super) fn reset_bus(&self, address: Sbdf, groups: &[u32]) -> Result<(), Errno> {
        let mut machine = self.machine();
        if groups.iter().any(|group| machine.open_groups.contains(group) || machine.is_owned(Some(*group))) {
            return Err(Errno::EBUSY);
        }
        let bus = (address.segment(), address.bus());
        let is_there = |other: &Sbdf| (other.segment(), other.bus()) == bus;
        let members: Vec<Sbdf> = machine.functions.keys().copied().filter(is_there).collect();
        for member in &members {
            let function = machine.functions.get(member).ok_or(Errno::ENODEV)?;
            let driver = function.driver.as_ref().and_then(|driver| machine.drivers.get(driver));
            if !driver.is_some_and(|driver| driver.is_vfio) {
                return Err(Errno::ENODEV);
            }
            if !function.is.group.is_some_and(|group| groups.contains(&group)) {
                return Err(Errno::EINVAL);
            }
        }
        for member in members {
            let function = machine.function(member)?;
            function.resets += 1;
            function.set_command(0);
        }
        Ok(())
    }

    /// `remove`: its driver leaves it first. It is still plugged in.
    pub(super) fn remove(&self, address: Sbdf) -> Result<(), Errno> {
        let driver = self.unlocked(address, Touch::Driver)?.function(address)?.driver.clone();
        if let Some(driver) = driver {
            self.unbind(&driver, address)?;
        }
        let mut machine = self.machine();
        let function = machine.functions.remove(&address).ok_or(Errno::ENODEV)?;
        machine.removed.insert(address, function);
        Ok(())
    }

    /// `rescan`: what is plugged in and was removed is found, as at boot.
    pub(super) fn rescan(&self) {
        let mut machine = self.machine();
        for (address, mut function) in std::mem::take(&mut machine.removed) {
            function.start_anew();
            machine.functions.insert(address, function);
            // A probe that fails leaves it without driver.
            let _probed = machine.probe(address);
        }
    }

    /// `sriov_numvfs`.
    pub(super) fn set_num_vfs(&self, address: Sbdf, wanted: u16) -> Result<(), Errno> {
        let mut machine = self.unlocked(address, Touch::Driver)?;
        let function = machine.function(address)?;
        let (now, total, driver) = (function.num_vfs, function.is.total_vfs, function.driver.clone());
        let (id, group, is_probing) = (function.is.id, function.is.group, function.probes_vfs);
        if wanted > total {
            return Err(Errno::ERANGE);
        }
        if wanted == now {
            return Ok(());
        }
        let makes = driver.as_ref().and_then(|driver| machine.drivers.get(driver));
        let may = !makes.is_some_and(|driver| driver.is_vfio) || machine.vfio_makes_vfs;
        if !may || !makes.is_some_and(|driver| driver.makes_vfs) {
            return Err(Errno::ENOENT);
        }
        let is_vfio = makes.is_some_and(|driver| driver.is_vfio);
        if wanted > 0 && now > 0 {
            return Err(Errno::EBUSY);
        }
        let virtuals = |count: u16| (1..=count).filter_map(move |n| nth_virtual(address, n));
        if wanted == 0 {
            // Each leaves its driver, which waits for whoever has it open.
            while virtuals(now).any(|vf| machine.functions.get(&vf).is_some_and(|vf| vf.open > 0)) {
                machine = self.wait(machine);
            }
            for vf in virtuals(now) {
                machine.functions.remove(&vf);
            }
            machine.forget_kept(address);
        }
        for (vf, n) in virtuals(wanted).zip(1..) {
            let is = FakeFunction {
                physical_function: Some(address),
                ..FakeFunction::endpoint(
                    (id.0, id.1.wrapping_add(1)),
                    group.unwrap_or(0).wrapping_mul(256) + n,
                )
            };
            let mut function = Function::new(is);
            // Nobody but the one who holds the token of the physical function is to have them.
            function.driver_override = is_vfio.then(|| driver.clone()).flatten();
            machine.functions.insert(vf, function);
            if is_probing {
                machine.probe(vf);
            }
        }
        machine.function(address)?.num_vfs = wanted;
        Ok(())
    }
}

/// First VF Offset 0x80, VF Stride 1: as many cards have it.
pub(super) fn nth_virtual(pf: Sbdf, n: u16) -> Option<Sbdf> {
    let bdf = pf.bdf().checked_add(0x80 + n - 1)?;
    Some(Sbdf::from_bdf(pf.segment(), bdf))
}
