//! The traits of Cloud Hypervisor that a port meets, as its crates `pci` and `vm-device` (not rust-vmm's) have them.
//!
//! They cannot be named from here, since neither crate is published. Who ports implements theirs for a type of his own
//! by calling the method of the same name here; signatures are the same. What has to do with allocation and
//! snapshots (`allocate_bars`, `free_bars`, `as_any_mut`, `id`) names types of their crates, and is left out.

use std::sync::{Arc, Barrier};
use std::vec::Vec;

/// What answers for a range of an address space, shared by all vCPUs.
pub trait BusDeviceSync: Send + Sync {
    /// Reads `data.len()` bytes at `base + offset`, where `base` is where the range begins.
    fn read(&self, base: u64, offset: u64, data: &mut [u8]);

    /// Writes. The vCPU meets somebody at the barrier before it goes on.
    fn write(&self, base: u64, offset: u64, data: &[u8]) -> Option<Arc<Barrier>>;
}

/// The same, of a device that is under a mutex of theirs.
pub trait BusDevice: Send {
    /// Reads `data.len()` bytes at `base + offset`.
    fn read(&mut self, base: u64, offset: u64, data: &mut [u8]);

    /// Writes.
    fn write(&mut self, base: u64, offset: u64, data: &[u8]) -> Option<Arc<Barrier>>;
}

impl<T: BusDeviceSync + ?Sized> BusDevice for Arc<T> {
    fn read(&mut self, base: u64, offset: u64, data: &mut [u8]) {
        BusDeviceSync::read(&**self, base, offset, data);
    }

    fn write(&mut self, base: u64, offset: u64, data: &[u8]) -> Option<Arc<Barrier>> {
        BusDeviceSync::write(&**self, base, offset, data)
    }
}

/// One function, under a mutex of theirs.
pub trait PciDevice: Send {
    /// Writes to a register: dword number `reg_idx` of configuration space, from byte `offset` of it on. Returns the
    /// BARs that are elsewhere from now on, and the barrier.
    fn write_config_register(
        &mut self,
        reg_idx: usize,
        offset: u64,
        data: &[u8],
    ) -> (Vec<BarReprogrammingParams>, Option<Arc<Barrier>>);

    /// Reads a register.
    fn read_config_register(&mut self, reg_idx: usize) -> u32;

    /// Reads from the BAR that begins at `base`.
    fn read_bar(&mut self, base: u64, offset: u64, data: &mut [u8]) {
        let _ = (base, offset, data);
    }

    /// Writes to the BAR that begins at `base`.
    fn write_bar(&mut self, base: u64, offset: u64, data: &[u8]) -> Option<Arc<Barrier>> {
        let _ = (base, offset, data);
        None
    }
}

/// A BAR that the guest has put elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarReprogrammingParams {
    /// Where it was.
    pub old_base: u64,
    /// Where it is.
    pub new_base: u64,
    /// Its size in bytes.
    pub len: u64,
    /// Of which kind it is.
    pub region_type: PciBarRegionType,
}

/// The kinds of BARs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PciBarRegionType {
    /// 32 bits of memory address.
    Memory32BitRegion,
    /// I/O ports.
    IoRegion,
    /// 64 bits of memory address.
    Memory64BitRegion,
}
