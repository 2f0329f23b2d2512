//! The strategies, one file each. A new one is its file and one line here.

mod chain;
mod counted;
mod entry;
mod key;
mod table;

#[cfg(test)]
pub(crate) use key::key;

use crate::strategy::Strategy;

/// Something done for every strategy, each with its own code.
pub(crate) trait ForEach {
    fn strategy<S: Strategy>(&mut self);
}

/// The strategies, in the order of the tables: from what is used today to what keeps every promise.
macro_rules! strategies {
    ($($module:ident::$type:ident),+ $(,)?) => {
        $(mod $module;)+
        $(#[allow(unused_imports, reason = "the tests of the promises name some of them")] pub(crate) use $module::$type;)+

        /// Does something for every strategy.
        pub(crate) fn for_each(what: &mut impl ForEach) {
            $(what.strategy::<$type>();)+
        }
    };
}

strategies! {
    xen_today::XenToday,
    xen_vpci::XenVpci,
    vmm_bus::VmmBus,
    mutex_map::MutexMap,
    rwlock_map::RwLockMap,
    rwlock_std::RwLockStd,
    dash_map::Dash,
    papaya_map::Papaya,
    skip_list::SkipList,
    arc_swap_map::ArcSwapMap,
    arc_swap_vec::ArcSwapVec,
    epoch_radix::EpochRadix,
    pcidevs_registry::Pcidevs,
}
