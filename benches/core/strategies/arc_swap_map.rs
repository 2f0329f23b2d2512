//! A hash map that is never changed but replaced, by arc-swap.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pcidevs::Sbdf;

use super::{FastHash, Strategy, key};
use crate::devices::{Device, REGISTER};

pub(super) struct ArcSwapMap(ArcSwap<HashMap<u32, Arc<Mutex<Device>>, FastHash>>);

impl Strategy for ArcSwapMap {
    const NAME: &'static str = "arc-swap'd HashMap of Arc";

    fn with(addresses: &[Sbdf]) -> Self {
        let device = |address: &Sbdf| (key(*address), Arc::new(Mutex::new(Device::at(*address))));
        Self(ArcSwap::from_pointee(addresses.iter().map(device).collect()))
    }

    #[inline]
    fn keep(&self, address: Sbdf) -> bool {
        let device = self.0.load().get(&key(address)).cloned();
        device.is_some()
    }

    /// Under the guard of the map, which spares the count.
    #[inline]
    fn read(&self, address: Sbdf) -> u32 {
        let all = self.0.load();
        all.get(&key(address)).map_or(u32::MAX, |device| device.lock().registers[REGISTER])
    }
}
