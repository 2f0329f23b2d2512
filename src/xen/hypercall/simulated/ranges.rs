//! Sets of numbers, as ranges: a BAR can have millions of pages.

use std::collections::BTreeMap;

/// A set of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First and last of each range. No two touch.
    ranges: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether it has this one.
    pub fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, &last)| number <= last)
    }

    /// First and last of each range, in order; no two touch.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(&first, &last)| (first, last))
    }

    pub(super) fn insert(&mut self, mut first: u64, mut last: u64) {
        // With those that touch it, it becomes one.
        while let Some((&before, &end)) = self.ranges.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            first = first.min(before);
            last = last.max(end);
            self.ranges.remove(&before);
        }
        self.ranges.insert(first, last);
    }

    pub(super) fn remove(&mut self, first: u64, last: u64) {
        while let Some((&before, &end)) = self.ranges.range(..=last).next_back() {
            if end < first {
                break;
            }
            self.ranges.remove(&before);
            if end > last {
                self.ranges.insert(last + 1, end);
            }
            if before < first {
                self.ranges.insert(before, first - 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_pair_of_changes_is_as_on_single_numbers() {
        const MOST: u64 = 6;
        let changes: Vec<(bool, u64, u64)> = [true, false]
            .into_iter()
            .flat_map(|insert| {
                (0..MOST).flat_map(move |first| (first..MOST).map(move |last| (insert, first, last)))
            })
            .collect();
        for one in &changes {
            for two in &changes {
                for three in &changes {
                    let (mut ranges, mut numbers) = (Ranges::default(), BTreeSet::new());
                    for &(insert, first, last) in [one, two, three] {
                        if insert {
                            ranges.insert(first, last);
                            numbers.extend(first..=last);
                        } else {
                            ranges.remove(first, last);
                            numbers.retain(|number| !(first..=last).contains(number));
                        }
                    }
                    let has: BTreeSet<u64> = (0..=MOST).filter(|&number| ranges.contains(number)).collect();
                    assert_eq!(has, numbers, "{one:?} {two:?} {three:?}");
                    let mut after = None;
                    for (first, last) in ranges.iter() {
                        assert!(
                            first <= last && after.is_none_or(|after| first > after),
                            "{one:?} {two:?} {three:?}"
                        );
                        after = Some(last + 1);
                    }
                }
            }
        }
    }

    #[test]
    fn the_ends_of_64_bits_are_numbers_like_others() {
        let mut ranges = Ranges::default();
        ranges.insert(0, u64::MAX);
        ranges.remove(1, u64::MAX);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(0, 0)]);
        ranges.insert(u64::MAX, u64::MAX);
        ranges.remove(0, 0);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(u64::MAX, u64::MAX)]);
    }
}
