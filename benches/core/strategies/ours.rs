//! This crate.

use pcidevs::{Registry, Sbdf};

use super::Strategy;
use crate::devices::{self, Device, REGISTER};

pub(super) struct Ours(Registry<Device>);

impl Strategy for Ours {
    const NAME: &'static str = "pcidevs";

    fn with(addresses: &[Sbdf]) -> Self {
        Self(devices::registry(addresses))
    }

    #[inline]
    fn keep(&self, address: Sbdf) -> bool {
        self.0.get(address).is_some()
    }

    #[inline]
    fn read(&self, address: Sbdf) -> u32 {
        self.0.lock(address).map_or(u32::MAX, |device| device.registers[REGISTER])
    }
}
