//! Two threads read their devices while a third adds and removes the functions beside them, all the time.
//!
//! With two processors the third thread shares one of them, so a reader's mean tells of the scheduler. What is
//! reported is the median of short stretches of reads. It is also measured with one reader, so that reader and
//! third party really run at the same time.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pcidevs::{Registry, Sbdf};

use crate::access::read;
use crate::devices::{self, Device};
use crate::measuring::order::random_order;
use crate::measuring::processors::pin;
use crate::measuring::rounds::{Effort, Results, Series, nanoseconds};

/// Reads between two looks at the clock.
const STRETCH: usize = 64;

pub(crate) const GROUP: &str = "n=64, L while a third party adds and removes neighbours";

/// Nanoseconds for a read: the median of a thread's stretches, averaged over the readers.
fn readers(
    registry: &Registry<Device>,
    orders: &[Vec<Sbdf>],
    third_on: Option<usize>,
    time: Duration,
) -> f64 {
    let (ready, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let neighbours: Vec<Sbdf> = odd(&devices::addresses(128));
    let start_together = || {
        ready.fetch_add(1, Ordering::Relaxed);
        while ready.load(Ordering::Relaxed) < orders.len() {
            spin_loop();
        }
    };
    let reader = |thread: usize| {
        pin(thread);
        start_together();
        let mut stretches = Vec::with_capacity(1 << 16);
        let start = Instant::now();
        let mut order = orders[thread].chunks_exact(STRETCH).cycle();
        while start.elapsed() < time {
            let part = order.next().unwrap_or(&[]);
            let start = Instant::now();
            for address in part {
                std::hint::black_box(read(registry, *address));
            }
            stretches.push(nanoseconds(start.elapsed()) / STRETCH as f64);
        }
        Series(stretches).spread().median
    };
    std::thread::scope(|scope| {
        if let Some(core) = third_on {
            let (over, neighbours) = (&over, &neighbours);
            scope.spawn(move || {
                pin(core);
                while !over.load(Ordering::Relaxed) {
                    for address in neighbours {
                        registry.remove_device(*address).expect("unused");
                        registry.add(*address, Device::at(*address)).expect("just removed");
                    }
                }
            });
        }
        let others: Vec<_> = (1..orders.len()).map(|thread| scope.spawn(move || reader(thread))).collect();
        let mut medians = vec![reader(0)];
        medians.extend(others.into_iter().map(|other| other.join().expect("no panic")));
        over.store(true, Ordering::Relaxed);
        medians.iter().sum::<f64>() / medians.len() as f64
    })
}

fn odd(all: &[Sbdf]) -> Vec<Sbdf> {
    all.iter().skip(1).step_by(2).copied().collect()
}

fn even(all: &[Sbdf]) -> Vec<Sbdf> {
    all.iter().step_by(2).copied().collect()
}

pub(crate) fn measure(results: &mut Results, effort: &Effort) {
    // 64 devices that are read, at the even functions; their neighbours come and go at the odd ones.
    let all = devices::addresses(128);
    let registry: Registry<Device> = devices::registry(&all);
    let read = even(&all);
    let two = [random_order(&even(&read)), random_order(&odd(&read))];
    let one = [random_order(&read)];
    let time = effort.turn * 20;
    let mut series = [const { Vec::new() }; 4];
    for _ in 0..effort.fewer(4).rounds {
        series[0].push(readers(&registry, &two, None, time));
        series[1].push(readers(&registry, &two, Some(1), time));
        series[2].push(readers(&registry, &one, None, time));
        series[3].push(readers(&registry, &one, Some(1), time));
    }
    let names = ["2 readers", "2 readers and a third party", "1 reader", "1 reader and another party"];
    let series = series.into_iter().map(Series);
    results.record(GROUP, names.map(str::to_owned).into_iter().zip(series).collect());
}
