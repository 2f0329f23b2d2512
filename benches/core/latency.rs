//! How long a removal takes: from the last put, on another thread, until the ticket has completed.
//!
//! Polled, it is the protocol's own time. Parked, the system's wake-up dominates, so the same wake-up without
//! any registry is measured beside it.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use pcidevs::{Handle, Registry, Sbdf};

use crate::devices::{self, Device};
use crate::measuring::order::random_order;
use crate::measuring::processors::pin;
use crate::measuring::rounds::{Effort, Results, Series, nanoseconds};

pub(crate) const GROUP: &str = "a removal's latency";

/// The last use goes this long after the removal was begun.
const LATER: Duration = Duration::from_micros(100);

/// One step on the second processor, at a time of its own choosing; gives back when it began.
fn on_the_other_core(step: impl FnOnce() + Send + 'static) -> mpsc::Receiver<Instant> {
    let (began, when) = mpsc::channel();
    thread::spawn(move || {
        pin(1);
        let start = Instant::now();
        while start.elapsed() < LATER {
            spin_loop();
        }
        let now = Instant::now();
        step();
        began.send(now).expect("the other side waits");
    });
    when
}

fn since(when: &mpsc::Receiver<Instant>) -> f64 {
    let end = Instant::now();
    nanoseconds(end.saturating_duration_since(when.recv().expect("the other side sends")))
}

fn removal(registry: &Registry<Device>, address: Sbdf, parked: bool) -> f64 {
    let last: Handle<Device> = registry.get(address).expect("present");
    let mut ticket = registry.begin_removal(address).expect("present");
    let when = on_the_other_core(move || last.put());
    if parked {
        ticket.wait(None).expect("nothing else happens");
    } else {
        while !ticket.try_complete().expect("nothing else happens") {
            spin_loop();
        }
    }
    let time = since(&when);
    registry.add(address, Device::at(address)).expect("just removed");
    time
}

fn wake_up() -> f64 {
    static AWAKE: AtomicBool = AtomicBool::new(false);
    AWAKE.store(false, Ordering::Relaxed);
    let sleeper = thread::current();
    let when = on_the_other_core(move || {
        AWAKE.store(true, Ordering::Release);
        sleeper.unpark();
    });
    while !AWAKE.load(Ordering::Acquire) {
        thread::park();
    }
    since(&when)
}

/// Begun and completed at once: nobody uses the device.
fn unused(registry: &Registry<Device>, address: Sbdf) -> f64 {
    let start = Instant::now();
    let completed = registry.begin_removal(address).is_ok_and(|mut ticket| ticket.try_complete() == Ok(true));
    let time = nanoseconds(start.elapsed());
    assert!(completed, "nobody uses it");
    registry.add(address, Device::at(address)).expect("just removed");
    time
}

pub(crate) fn measure(results: &mut Results, effort: &Effort) {
    let addresses = devices::addresses(64);
    let registry: Registry<Device> = devices::registry(&addresses);
    let mut series = [const { Vec::new() }; 4];
    for address in random_order(&addresses).into_iter().take(effort.rounds * 8) {
        series[0].push(unused(&registry, address));
        series[1].push(removal(&registry, address, false));
        series[2].push(removal(&registry, address, true));
        series[3].push(wake_up());
    }
    let names = [
        "ticket, no use: begin to completed",
        "last put to completed, polled",
        "last put to completed, parked",
        "unpark to awake, no registry",
    ];
    let series = series.into_iter().map(Series);
    results.record(GROUP, names.map(str::to_owned).into_iter().zip(series).collect());
}
