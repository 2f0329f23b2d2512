//! Single-threaded candidates for criterion: its estimates, baselines and command line.

use std::time::Duration;

use criterion::{Bencher, Criterion};

use super::order::SHORTEST_ORDER;
use super::rounds::Candidate;

/// Criterion as every benchmark uses it, with what the command line says.
pub(crate) fn criterion(quick: bool) -> Criterion {
    Criterion::default()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(if quick { 50 } else { 200 }))
        .measurement_time(Duration::from_millis(if quick { 100 } else { 500 }))
        .configure_from_args()
}

pub(crate) fn group(criterion: &mut Criterion, name: &str, candidates: &[Candidate<'_>]) {
    let mut group = criterion.benchmark_group(name);
    for candidate in candidates {
        group.bench_function(&candidate.name, |bencher| bench(bencher, candidate));
    }
    group.finish();
}

/// Whole chunks, at least as many operations as asked for, scaled to those.
fn bench(bencher: &mut Bencher<'_>, candidate: &Candidate<'_>) {
    bencher.iter_custom(|asked| {
        let (mut done, mut time) = (0_u64, Duration::ZERO);
        while done < asked {
            let left = usize::try_from(asked - done).unwrap_or(usize::MAX).min(SHORTEST_ORDER);
            let (operations, took) = candidate.chunk(1 << left.ilog2());
            done += operations as u64;
            time += took;
        }
        time.mul_f64(asked as f64 / done as f64)
    });
}
