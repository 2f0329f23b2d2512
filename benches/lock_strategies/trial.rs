//! Trials: what is measured as a whole and not in chunks of operations, interleaved as well.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::measuring::rounds::Series;

/// A strategy's trial: each run gives one figure for each column.
pub(crate) struct Trial<'a> {
    pub(crate) name: &'static str,
    pub(crate) run: Box<dyn Fn() -> Vec<f64> + 'a>,
}

/// All trials in turn, in another order in every round; for each trial and each of its columns, one figure a round.
pub(crate) fn interleaved(trials: &[Trial<'_>], rounds: usize) -> Vec<Vec<Series>> {
    let mut series: Vec<Vec<Series>> = trials.iter().map(|_| Vec::new()).collect();
    let mut order: Vec<usize> = (0..trials.len()).collect();
    let mut random = StdRng::seed_from_u64(0x0f0d);
    for _ in 0..rounds {
        order.shuffle(&mut random);
        for at in &order {
            for (column, figure) in (trials[*at].run)().into_iter().enumerate() {
                match series[*at].get_mut(column) {
                    Some(known) => known.0.push(figure),
                    None => series[*at].push(Series(vec![figure])),
                }
            }
        }
    }
    series
}
