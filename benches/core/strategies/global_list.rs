//! Xen's: one recursive lock for all of PCI, and a linked list that is walked under it.
//!
//! Nothing is counted: a device is safe to use because, and as long as, the global lock is held.

use std::collections::LinkedList;

use parking_lot::ReentrantMutex;
use pcidevs::Sbdf;

use super::Strategy;
use crate::devices::{Device, REGISTER};

#[expect(clippy::linkedlist, reason = "it is what Xen has, and what is measured")]
pub(super) struct GlobalList(ReentrantMutex<LinkedList<(Sbdf, Device)>>);

impl Strategy for GlobalList {
    const NAME: &'static str = "global lock and list (Xen)";

    fn with(addresses: &[Sbdf]) -> Self {
        Self(ReentrantMutex::new(addresses.iter().map(|address| (*address, Device::at(*address))).collect()))
    }

    #[inline]
    fn keep(&self, address: Sbdf) -> bool {
        self.0.lock().iter().any(|(at, _)| *at == address)
    }

    #[inline]
    fn read(&self, address: Sbdf) -> u32 {
        let all = self.0.lock();
        let found = all.iter().find(|(at, _)| *at == address);
        found.map_or(u32::MAX, |(_, device)| device.registers[REGISTER])
    }
}
