//! What the life cycle must reach, as ratios within one run.

use crate::measuring::pair::LOCK_PAIR;
use crate::measuring::requirement::Row;
use crate::measuring::rounds::Results;
use crate::{assignment, hanging, release, watching};

pub(crate) fn rows(results: &Results) -> Vec<Row> {
    let row = |what: &str, group: &str, name: &str, floor: &str, at_most: f64| {
        let ratio = results.series(group, name).over(results.series(group, floor));
        Row::new(what, &ratio, at_most)
    };
    let mut rows = vec![
        row(
            "assign + deassign, any of 4096 devices, to a lock pair",
            assignment::GROUP,
            assignment::ANY,
            LOCK_PAIR,
            250.0,
        ),
        row(
            "assign + deassign, one of 4096 devices again and again, to a lock pair",
            assignment::GROUP,
            assignment::SAME,
            LOCK_PAIR,
            250.0,
        ),
        row(
            "assign + deassign of a set of 64, to 64 single pairs",
            assignment::GROUP,
            assignment::A_SET,
            assignment::SINGLES,
            1.1,
        ),
        row(
            "release of a domain, for each of 4096 devices to each of 64",
            release::GROUP,
            release::ALL,
            release::FEW,
            1.5,
        ),
    ];
    for what in [hanging::ACCESS, hanging::TRANSITION] {
        let hangs = hanging::hanging(what);
        rows.push(row(&format!("{hangs} on another device, to without"), hanging::GROUP, &hangs, what, 1.1));
    }
    for (what, floor) in [(watching::NOBODY, watching::COMPILED_OUT), (watching::LEFT, watching::NOBODY)] {
        let name = format!("assign + deassign, {what}, to {floor}");
        rows.push(row(&name, watching::GROUP, what, floor, 1.05));
    }
    rows
}
