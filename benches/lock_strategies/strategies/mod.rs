//! The strategies, one file each. A new one is its file and one line here.

mod chain;
mod counted;
mod entry;
mod key;
mod table;

#[allow(unused_imports, reason = "the tests of the promises use it")]
pub(crate) use key::key;

use crate::strategy::{Promises, Strategy};

/// Something done for every strategy, each with its own code.
pub(crate) trait ForEach {
    fn strategy<S: Strategy>(&mut self);
}

/// A strategy's name and what it promises.
pub(crate) struct Known {
    pub(crate) name: &'static str,
    pub(crate) promises: Promises,
}

/// All there are, in the order of the tables.
pub(crate) fn known() -> Vec<Known> {
    struct Knowing(Vec<Known>);
    impl ForEach for Knowing {
        fn strategy<S: Strategy>(&mut self) {
            self.0.push(Known { name: S::NAME, promises: S::PROMISES });
        }
    }
    let mut knowing = Knowing(Vec::new());
    for_each(&mut knowing);
    knowing.0
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
