//! Looking, while a device is stuck: 500 functions, the unbind of one of which does not return.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pcidevs::Sbdf;
use pcidevs::address::Segment;
use pcidevs::host::fake::{Fake, FakeDriver, FakeFunction, Release};
use pcidevs::host::{DriverType, Guarding, HostManager, Options};

use crate::measuring::requirement::Row;
use crate::measuring::rounds::{Results, Series, nanoseconds};

pub(crate) const NIC: (u16, u16) = (0x8086, 0x1533);
const FUNCTIONS: u16 = 500;
/// How long it may take.
const AT_MOST: Duration = Duration::from_millis(50);

/// The n-th function of a machine.
pub(crate) fn function(n: u16) -> Sbdf {
    Sbdf::from_bdf(Segment::new(0), 0x1000 + n)
}

/// A machine with this many functions, each alone in its group.
pub(crate) fn crowd(count: u16) -> Fake {
    let fake = Fake::new();
    fake.add_driver("igb", FakeDriver::of(NIC));
    for n in 0..count {
        fake.add(function(n), FakeFunction::endpoint(NIC, u32::from(n)));
    }
    fake
}

pub(crate) fn measure(results: &mut Results, rounds: usize) -> Vec<Row> {
    let fake = crowd(FUNCTIONS);
    // Where most files of a device block beside its unbind.
    fake.set_release(Release::V6_1);
    let options = Options { write_deadline: Duration::from_millis(50), ..Options::default() };
    let kernel = Arc::new(fake.clone());
    let (manager, _) = HostManager::open(kernel.clone(), kernel.clone(), options).expect("opened");
    fake.add_driver("igb", FakeDriver { hangs_in_unbind: true, ..FakeDriver::of(NIC) });
    let stuck = function(7);
    manager.detach(&[stuck], &DriverType::Default, Guarding::On).expect_err("it hangs");
    assert!(manager.status(stuck).is_some_and(|status| status.stuck.is_some()), "it is stuck");
    let time = |look: &dyn Fn()| {
        let took = (0..rounds).map(|_| {
            let begun = Instant::now();
            look();
            nanoseconds(begun.elapsed())
        });
        Series(took.collect())
    };
    let list = time(&|| assert_eq!(manager.list().expect("listed").len(), usize::from(FUNCTIONS)));
    let status = time(&|| assert!(manager.status(stuck).is_some()));
    // What the command `status` does beside starting: a look at the journal and at the machine.
    let command = time(&|| {
        let (observer, _) = HostManager::observe(kernel.clone(), kernel.clone()).expect("opened");
        assert_eq!(observer.list().expect("listed").len(), usize::from(FUNCTIONS));
    });
    fake.add_driver("igb", FakeDriver::of(NIC));
    let limit = Series(vec![nanoseconds(AT_MOST); rounds]);
    let row = |what: &str, series: &Series| Row::new(&format!("{what}, to 50 ms"), &series.over(&limit), 1.0);
    let rows = vec![
        row("list of 500 functions, one stuck", &list),
        row("status of the stuck one", &status),
        row("status of all in a process of its own, one stuck", &command),
    ];
    let named = [("list", list), ("status of the stuck one", status), ("observe and list", command)];
    let named = named.map(|(name, series)| (name.to_owned(), series));
    results.record("500 functions, one stuck", named.into());
    rows
}
