//! Moving 64 functions whose driver takes 50 ms to probe: one by one, side by side, and as one set.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pcidevs::Sbdf;
use pcidevs::host::fake::FakeDriver;
use pcidevs::host::{DriverType, Guarding, HostManager, Options};

use crate::looking::{crowd, function};
use crate::measuring::requirement::Row;
use crate::measuring::rounds::{Results, Series, nanoseconds};

const FUNCTIONS: u16 = 64;
const PROBE: Duration = Duration::from_millis(50);

/// How long it takes to detach all of a new machine's functions.
fn time(detach: impl FnOnce(&HostManager, &[Sbdf])) -> f64 {
    let fake = crowd(FUNCTIONS);
    fake.add_driver("vfio-pci", FakeDriver { probe_takes: PROBE, ..FakeDriver::vfio() });
    let kernel = Arc::new(fake.clone());
    let (manager, _) = HostManager::open(kernel.clone(), kernel, Options::default()).expect("opened");
    let all: Vec<Sbdf> = (0..FUNCTIONS).map(function).collect();
    let begun = Instant::now();
    detach(&manager, &all);
    let took = nanoseconds(begun.elapsed());
    assert!(all.iter().all(|device| fake.driver(*device).as_deref() == Some("vfio-pci")), "all are");
    took
}

fn one(manager: &HostManager, devices: &[Sbdf]) {
    manager.detach(devices, &DriverType::Default, Guarding::On).expect("detached");
}

fn one_by_one() -> f64 {
    time(|manager, all| all.iter().for_each(|device| one(manager, &[*device])))
}

fn side_by_side() -> f64 {
    time(|manager, all| {
        std::thread::scope(|scope| {
            for device in all {
                scope.spawn(move || one(manager, &[*device]));
            }
        });
    })
}

fn as_a_set() -> f64 {
    time(one)
}

pub(crate) fn measure(results: &mut Results, rounds: usize) -> Vec<Row> {
    // A round takes seven seconds, and what is slow is asleep.
    let rounds = rounds.div_ceil(3);
    let (mut apart, mut together, mut set) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        apart.push(one_by_one());
        together.push(side_by_side());
        set.push(as_a_set());
    }
    let (apart, together, set) = (Series(apart), Series(together), Series(set));
    let rows = vec![Row::new(
        "64 functions detached by 64 threads, to one by one, where a probe takes 50 ms",
        &together.over(&apart),
        0.125,
    )];
    let named = [("one by one", apart), ("64 threads", together), ("one set, one thread", set)];
    results.record(
        "64 functions detached, a probe takes 50 ms",
        named.map(|(name, series)| (name.to_owned(), series)).into(),
    );
    rows
}
