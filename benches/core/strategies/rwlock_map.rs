//! A read-write lock around a hash map of counted devices, each with a lock of its own.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use pcidevs::Sbdf;

use super::{FastHash, Strategy, key};
use crate::devices::{Device, REGISTER};

pub(super) struct RwLockMap(RwLock<HashMap<u32, Arc<Mutex<Device>>, FastHash>>);

impl Strategy for RwLockMap {
    const NAME: &'static str = "RwLock, HashMap of Arc";

    fn with(addresses: &[Sbdf]) -> Self {
        let device = |address: &Sbdf| (key(*address), Arc::new(Mutex::new(Device::at(*address))));
        Self(RwLock::new(addresses.iter().map(device).collect()))
    }

    #[inline]
    fn keep(&self, address: Sbdf) -> bool {
        let device = self.0.read().get(&key(address)).cloned();
        device.is_some()
    }

    /// Under the read lock, which spares the count.
    #[inline]
    fn read(&self, address: Sbdf) -> u32 {
        let all = self.0.read();
        all.get(&key(address)).map_or(u32::MAX, |device| device.lock().registers[REGISTER])
    }
}
