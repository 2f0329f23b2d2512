//! The guard fails when it must: a guard that cannot fail guards nothing.

#[expect(dead_code, reason = "no test writes the baseline")]
mod baseline;
mod table;

use baseline::{Baseline, Change};

fn counted(paths: &[(&str, f64)]) -> Baseline {
    Baseline::of(paths.iter().map(|(path, count)| ((*path).to_owned(), *count)).collect())
}

/// What a path that took 100 instructions and may become 10 % longer is now.
fn hundred_becomes(count: f64) -> Change {
    let changes = counted(&[("path", 100.0)]).compared_with(&counted(&[("path", count)]), |_| Some(10.0));
    changes.into_iter().next().expect("one path")
}

#[test]
fn more_than_ten_percent_longer_fails() {
    assert!(hundred_becomes(110.0).is_allowed());
    assert!(!hundred_becomes(110.2).is_allowed());
    assert!(table::of(&[hundred_becomes(110.2)]).contains("+10.2 %  LONGER"));
}

#[test]
fn shorter_is_allowed_and_said() {
    let shorter = hundred_becomes(80.0);
    assert!(shorter.is_allowed() && shorter.is_gain());
    assert!(!hundred_becomes(95.0).is_gain());
}

#[test]
fn a_new_path_and_a_lost_one_must_be_accepted() {
    let (before, now) = (counted(&[("lost", 1.0)]), counted(&[("new", 1.0)]));
    let changes = before.compared_with(&now, |_| Some(10.0));
    let paths: Vec<_> = changes.iter().map(|change| (change.path.as_str(), change.is_allowed())).collect();
    assert_eq!(paths, [("new", false), ("lost", false)]);
    assert!(table::of(&changes).contains("LOST"));
}

#[test]
fn what_is_written_is_read_again() {
    let text = counted(&[("a", 42.0), ("b", 7.25)]).text().expect("JSON");
    let read = Baseline::parse(&text).expect("as written");
    assert!(read.is_of_this_architecture());
    assert_eq!(read.other_compiler(&counted(&[])), None);
    assert_eq!(read.text().expect("JSON"), text);
    assert!(Baseline::parse("{}").is_none());
}

#[test]
fn the_committed_baseline_can_be_read() {
    assert!(Baseline::read().is_ok());
}
