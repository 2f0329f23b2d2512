//! The instructions of one access: what a counted program runs, and the counting.

use std::hint::black_box;

use crate::counting::repeated;
use crate::measuring::order::random_order;
use crate::operations::{Filled, Operation, WithStrategy, with_strategy};
use crate::strategy::Strategy;

/// As many devices as the tables of the strategies have.
pub(crate) const DEVICES: usize = 4096;

/// Each device is visited as often as every other.
const TIMES: usize = DEVICES;

/// Visits devices in random order, or only the loop around that.
struct Repeating {
    operation: Option<Operation>,
    times: usize,
}

impl WithStrategy for Repeating {
    fn run<S: Strategy>(&mut self) {
        let operations: Vec<Operation> = self.operation.into_iter().collect();
        let filled = Filled::<S>::of(DEVICES, &operations);
        let order = random_order(&filled.addresses);
        // One loop for each operation: nothing is chosen within it.
        let turns = (0..self.times).map(|turn| order[black_box(turn % DEVICES)]);
        match self.operation {
            None => turns.for_each(|at| {
                black_box(at);
            }),
            Some(Operation::GetPut) => turns.for_each(|at| filled.run(Operation::GetPut, at)),
            Some(Operation::Read) => turns.for_each(|at| filled.run(Operation::Read, at)),
            Some(Operation::GuestRead) => turns.for_each(|at| filled.run(Operation::GuestRead, at)),
            Some(Operation::PlainRead) => turns.for_each(|at| filled.run(Operation::PlainRead, at)),
        }
    }
}

/// Runs it, in the program that is counted.
pub(crate) fn run(strategy: &str, operation: &str, times: &str) -> Result<(), String> {
    let times = times.parse().map_err(|_| format!("no number: {times}"))?;
    with_strategy(strategy, &mut Repeating { operation: Operation::named(operation), times })
}

/// The instructions of one access, without the loop.
pub(crate) fn count(strategy: &str, operation: Operation) -> Result<f64, String> {
    let of = |name: &str| repeated::instructions(&["--run", strategy, name], TIMES);
    Ok(of(operation.name())? - of("nothing")?)
}
