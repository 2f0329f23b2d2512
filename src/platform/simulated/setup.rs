//! Building the machine: functions, and what the platform knows of them.

use core::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::bar::BARS;
use super::config_bytes::ConfigBytes;
use super::function::Function;
use super::policy::{ResetSupport, Rule};
use super::watch::{BIND, RULES};
use super::{Simulated, locked, no_memory};
use crate::address::Sbdf;
use crate::owner::Owner;
use crate::platform::{Binding, Claimed, Facts, GroupId, HookError};

impl<D, L> Simulated<D, L> {
    /// Puts a function with this configuration space at an address, in place of one that may be there.
    ///
    /// What the platform knows of the address stays, and so does its IOMMU entry.
    pub fn plug(&self, address: Sbdf, config: impl Borrow<ConfigBytes>) {
        let config = config.borrow();
        self.place(address).plug(config.bytes(), config.fixed_bits()).unwrap_or_else(no_memory);
    }

    /// The same from recorded bytes, any number up to 4096: reads behind them give ones. Its BARs keep whatever is
    /// written, so they cannot be sized.
    pub fn plug_bytes(&self, address: Sbdf, bytes: &[u8]) {
        let fixed = [0; BARS];
        self.place(address).plug(bytes, (&fixed, &fixed)).unwrap_or_else(no_memory);
    }

    /// Pulls the function out: it reads ones, and sends nothing any more. Its IOMMU entry stays.
    pub fn unplug(&self, address: Sbdf) {
        self.place(address).unplug();
    }

    /// What the platform tells of the device when it is added.
    pub fn set_facts(&self, device: Sbdf, facts: Facts) {
        self.edit_facts(device, |known| *known = facts);
    }

    /// Puts the device into an IOMMU group.
    pub fn set_group(&self, device: Sbdf, group: GroupId) {
        self.edit_facts(device, |known| known.group = Some(group));
    }

    /// Puts the device near a NUMA node.
    pub fn set_node(&self, device: Sbdf, node: u32) {
        self.edit_facts(device, |known| known.node = Some(node));
    }

    /// Gives the device one more requester ID that its configuration space does not tell.
    pub fn add_alias(&self, device: Sbdf, requester: Sbdf) {
        self.edit_facts(device, |known| known.aliases.push(requester));
    }

    /// Lists the device as one that uses phantom functions and does not say so.
    pub fn set_phantom_stride(&self, device: Sbdf, stride: u8) {
        self.edit_facts(device, |known| known.phantom_stride = Some(stride));
    }

    /// Gives the device a driver of the host, or takes it away.
    pub fn set_driver(&self, device: Sbdf, present: bool) {
        self.place(device).driver.store(present, Ordering::Relaxed);
    }

    /// Says how the device can be reset; by itself, unless this is called.
    pub fn set_reset(&self, device: Sbdf, support: ResetSupport) {
        self.place(device).set_reset_support(support);
    }

    /// Somebody opens the group, or closes it.
    pub fn set_group_in_use(&self, group: GroupId, in_use: bool) {
        let mut open = locked(&self.open_groups);
        if in_use {
            open.insert(group);
        } else {
            open.remove(&group);
        }
        self.open_group_count.store(open.len(), Ordering::Relaxed);
    }

    /// Adds a rule to the policy, which permits everything that no rule refuses. The first that matches counts.
    pub fn refuse(&self, rule: Rule) {
        locked(&self.rules).push(rule);
        self.watch.switch(RULES, true);
    }

    /// Drops all rules.
    pub fn permit_all(&self) {
        locked(&self.rules).clear();
        self.watch.switch(RULES, false);
    }

    /// Says what [`bind`](crate::platform::Platform::bind) does; unless this is called it binds nothing.
    pub fn on_bind<F>(&self, bind: F)
    where
        F: Fn(&dyn Claimed<D>, Owner) -> Result<Binding<D>, HookError> + Send + Sync + 'static,
    {
        *locked(&self.on_bind) = Some(Arc::new(bind));
        self.watch.switch(BIND, true);
    }

    /// Advances the clock.
    pub fn advance(&self, nanoseconds: u64) {
        self.advanced.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// From now on the clock runs by itself, too.
    pub fn run_clock(&self) {
        self.running.get_or_init(Instant::now);
    }

    fn place(&self, address: Sbdf) -> &Function {
        self.places.place(address).unwrap_or_else(no_memory)
    }

    fn edit_facts(&self, device: Sbdf, edit: impl FnOnce(&mut Facts)) {
        self.place(device).edit_facts(edit).unwrap_or_else(no_memory);
    }
}
