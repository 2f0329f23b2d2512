//! What is counted: one access to one device, through a strategy.

use std::hint::black_box;
use std::sync::Arc;

use pcidevs::Sbdf;

use crate::device::{Device, REGISTER, addresses};
use crate::strategies::{ForEach, for_each};
use crate::strategy::Strategy;

/// One access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    GetPut,
    Read,
    GuestRead,
    PlainRead,
}

impl Operation {
    pub(crate) const ALL: [Self; 4] = [Self::GetPut, Self::Read, Self::GuestRead, Self::PlainRead];

    /// As the benchmark of the strategies calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GetPut => "get and put",
            Self::Read => "read by address",
            Self::GuestRead => "read by guest address",
            Self::PlainRead => "plain read",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }
}

/// A strategy full of devices, which a guest has.
pub(crate) struct Filled<S: Strategy> {
    strategy: S,
    guest: S::Guest,
    pub(crate) addresses: Vec<Sbdf>,
}

impl<S: Strategy> Filled<S> {
    pub(crate) fn of(n: usize, operations: &[Operation]) -> Arc<Self> {
        let (strategy, addresses) = (S::new(), addresses(n));
        strategy.fill(addresses.iter().map(|at| (*at, Device::at(*at))));
        let guest = strategy.create_guest(1);
        if operations.contains(&Operation::GuestRead) {
            // From the end, where lists that grow at the front are looked through from.
            for at in addresses.iter().rev() {
                strategy.assign(&guest, *at, *at, || ()).expect("unused");
            }
        }
        for at in &addresses {
            strategy.prepare_plain(*at);
        }
        Arc::new(Self { strategy, guest, addresses })
    }

    #[inline]
    pub(crate) fn run(&self, operation: Operation, at: Sbdf) {
        let result = match operation {
            Operation::GetPut => u32::from(self.strategy.get(at).is_some()),
            Operation::Read => self.strategy.read(at, REGISTER),
            Operation::GuestRead => self.strategy.guest_read(&self.guest, at, REGISTER),
            Operation::PlainRead => self.strategy.read_plain(at, REGISTER),
        };
        black_box(result);
    }
}

/// Something done with the strategy of a name, by its own code.
pub(crate) trait WithStrategy {
    fn run<S: Strategy>(&mut self);
}

/// Finds the strategy; complains if there is none.
pub(crate) fn with_strategy(name: &str, what: &mut impl WithStrategy) -> Result<(), String> {
    struct Finding<'a, W> {
        name: &'a str,
        what: &'a mut W,
        found: bool,
    }
    impl<W: WithStrategy> ForEach for Finding<'_, W> {
        fn strategy<S: Strategy>(&mut self) {
            if S::NAME == self.name {
                self.what.run::<S>();
                self.found = true;
            }
        }
    }
    let mut finding = Finding { name, what, found: false };
    for_each(&mut finding);
    if finding.found { Ok(()) } else { Err(format!("no strategy {name}")) }
}
