//! What vCPU threads do all day: a locked read of a register.

use std::sync::Arc;

use pcidevs::Sbdf;

use crate::asked::Asked;
use crate::cell::Cell;
use crate::device::{Device, REGISTER, addresses};
use crate::floors::Floors;
use crate::measuring::rounds::{Candidate, Effort, Results};
use crate::strategies::{ForEach, for_each};
use crate::strategy::Strategy;

/// A registry with these devices.
pub(crate) fn filled<S: Strategy>(addresses: &[Sbdf]) -> S {
    let strategy = S::new();
    for address in addresses {
        assert!(strategy.add(*address, Device::at(*address)).is_ok(), "each address once");
    }
    strategy
}

/// One candidate of each strategy.
struct Reading<'a> {
    asked: &'a Asked,
    addresses: &'a [Sbdf],
    orders: &'a [Vec<Sbdf>],
    candidates: Vec<Candidate<'a>>,
}

impl ForEach for Reading<'_> {
    fn strategy<S: Strategy>(&mut self) {
        if !self.asked.wants(S::NAME) {
            return;
        }
        let strategy = Arc::new(filled::<S>(self.addresses));
        self.candidates
            .push(Candidate::visiting(S::NAME, self.orders, move |at| strategy.read(*at, REGISTER)));
    }
}

pub(crate) fn measure(results: &mut Results, asked: &Asked, effort: &Effort, cell: Cell) {
    let addresses = addresses(cell.n);
    let Some(orders) = cell.orders(&addresses) else { return };
    let floors = Floors::of(cell.threads);
    let mut reading =
        Reading { asked, addresses: &addresses, orders: &orders, candidates: floors.candidates() };
    for_each(&mut reading);
    results.measure(&cell.to_string(), &reading.candidates, &effort.for_devices(cell.n));
}
