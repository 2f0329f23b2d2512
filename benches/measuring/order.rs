//! The order of visits: random, and the same in every run.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// No order of visits is shorter, so that the loop over it rarely wraps.
pub(crate) const SHORTEST_ORDER: usize = 1024;

/// A random order of visits: permutations of `all`, one after the other, the same in every run.
pub(crate) fn random_order<T: Clone>(all: &[T]) -> Vec<T> {
    let mut random = StdRng::seed_from_u64(0x0bdf);
    let mut order = Vec::new();
    while order.len() < SHORTEST_ORDER {
        let mut permutation = all.to_vec();
        permutation.shuffle(&mut random);
        order.append(&mut permutation);
    }
    order
}

/// The order of visits of a thread that has one thing to visit.
pub(crate) fn always<T: Clone>(thing: &T) -> Vec<T> {
    vec![thing.clone(); SHORTEST_ORDER]
}
