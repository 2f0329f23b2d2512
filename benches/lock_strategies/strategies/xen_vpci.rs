//! Xen's vPCI path: each domain's read-write lock, its list of devices, and each device's sorted list of
//! register handlers under the device's own lock.
//!
//! Nothing is counted here either: a device is safe to use as long as its domain's lock is held. Adding, removing
//! and assigning hold the global lock, and the domain's write lock while its list changes.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use pcidevs::Sbdf;

use super::chain::Chain;
use crate::device::{Device, ONES, REGISTERS};
use crate::strategy::{Promise, Promises, Refused, Strategy};

/// A domain's devices.
pub(crate) type Domain = RwLock<Chain<Member>>;

pub(crate) struct Member {
    /// Where the domain sees it.
    seen_at: Sbdf,
    at: Sbdf,
    vpci: Mutex<Vpci>,
}

struct Vpci {
    device: Device,
    /// Sorted by number.
    registers: Chain<Register>,
}

struct Register {
    number: usize,
    read: fn(&Device, usize) -> u32,
    write: fn(&Device, usize, u32),
}

impl Vpci {
    fn of(device: Device) -> Self {
        let mut registers = Chain::new();
        for number in (0..REGISTERS).rev() {
            registers.push_front(Register { number, read: Device::read, write: Device::write });
        }
        Self { device, registers }
    }

    #[inline]
    fn read(&self, number: usize) -> u32 {
        let register = self.registers.find(|register| register.number >= number);
        register.map_or(ONES, |register| (register.read)(&self.device, number))
    }

    #[inline]
    fn write(&self, number: usize, value: u32) {
        if let Some(register) = self.registers.find(|register| register.number >= number) {
            (register.write)(&self.device, number, value);
        }
    }
}

#[inline]
fn read(domain: &Domain, at: Sbdf, number: usize) -> u32 {
    let members = domain.read();
    members.find(|member| member.seen_at == at).map_or(ONES, |member| member.vpci.lock().read(number))
}

pub(crate) struct XenVpci {
    /// The global lock, and the guests there are.
    pcidevs: Mutex<Vec<Arc<Domain>>>,
    /// The domain that has all devices at first.
    host: Domain,
}

fn move_member(from: &Domain, at: Sbdf, to: &Domain, seen_at: Sbdf) -> Result<(), Refused> {
    let moved = from.write().remove(|member| member.at == at).ok_or(Refused::NotFound)?;
    to.write().push_front(Member { seen_at, ..moved });
    Ok(())
}

impl Strategy for XenVpci {
    const NAME: &'static str = "Xen vPCI: domain rwlock, list";
    const PROMISES: Promises = Promises {
        exact_busy: Promise::Broken("waits for readers, never refuses; takes a device from under its guest"),
        names_holders: Promise::Broken("nobody is counted, so nobody has a name"),
        ..Promises::ALL
    };
    type Use<'a> = RwLockReadGuard<'a, Chain<Member>>;
    type Hold<'a> = Self::Use<'a>;
    type Guest = Arc<Domain>;

    fn new() -> Self {
        Self { pcidevs: Mutex::default(), host: RwLock::new(Chain::new()) }
    }

    fn add(&self, at: Sbdf, device: Device) -> Result<(), Device> {
        let _pcidevs = self.pcidevs.lock();
        if self.host.read().find(|member| member.at == at).is_some() {
            return Err(device);
        }
        // Made outside the domain's lock.
        let member = Member { seen_at: at, at, vpci: Mutex::new(Vpci::of(device)) };
        self.host.write().push_front(member);
        Ok(())
    }

    fn fill(&self, devices: impl Iterator<Item = (Sbdf, Device)>) {
        let mut members = self.host.write();
        for (at, device) in devices {
            members.push_front(Member { seen_at: at, at, vpci: Mutex::new(Vpci::of(device)) });
        }
    }

    fn remove(&self, at: Sbdf) -> Result<(), Refused> {
        let guests = self.pcidevs.lock();
        let domains = std::iter::once(&self.host).chain(guests.iter().map(|guest| &**guest));
        let mut removed = domains.filter_map(|domain| domain.write().remove(|member| member.at == at));
        removed.next().map(drop).ok_or(Refused::NotFound)
    }

    #[inline]
    fn get(&self, at: Sbdf) -> Option<RwLockReadGuard<'_, Chain<Member>>> {
        let members = self.host.read();
        let found = members.find(|member| member.at == at).is_some();
        found.then_some(members)
    }

    fn hold(&self, at: Sbdf, _name: &'static str) -> Option<RwLockReadGuard<'_, Chain<Member>>> {
        self.get(at)
    }

    #[inline]
    fn read(&self, at: Sbdf, register: usize) -> u32 {
        read(&self.host, at, register)
    }

    #[inline]
    fn write(&self, at: Sbdf, register: usize, value: u32) {
        if let Some(member) = self.host.read().find(|member| member.seen_at == at) {
            member.vpci.lock().write(register, value);
        }
    }

    fn create_guest(&self, _number: u32) -> Arc<Domain> {
        let guest = Arc::new(RwLock::new(Chain::new()));
        self.pcidevs.lock().push(guest.clone());
        guest
    }

    /// The hook, the IOMMU's, runs under the global lock, but not under a domain's.
    fn assign(&self, guest: &Arc<Domain>, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let _pcidevs = self.pcidevs.lock();
        if self.host.read().find(|member| member.at == at).is_none() {
            return Err(Refused::NotFound);
        }
        hook();
        move_member(&self.host, at, guest, guest_at)
    }

    fn release(&self, guest: &Arc<Domain>, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let _pcidevs = self.pcidevs.lock();
        if guest.read().find(|member| member.at == at && member.seen_at == guest_at).is_none() {
            return Err(Refused::NotFound);
        }
        hook();
        move_member(guest, at, &self.host, at)
    }

    #[inline]
    fn guest_read(&self, guest: &Arc<Domain>, guest_at: Sbdf, register: usize) -> u32 {
        read(guest, guest_at, register)
    }
}
