//! What the counts of shared lines rest on: the replay of two cores' caches.
#![expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "whole counts far below 2^52")]

mod coherence;
#[expect(dead_code, reason = "the code of other processes is for the traces")]
mod machine_code;

use coherence::{Access, Counts, Turns};

/// The threads in turn, each doing the same so many times; `of`: the accesses of a thread's turn.
fn taken(times: usize, of: impl Fn(usize) -> Vec<(u64, Access, bool)>) -> Counts {
    let mut turns = Turns::default();
    for turn in 0..2 * times {
        turns.begin(turn % 2);
        for (address, access, locks) in of(turn % 2) {
            turns.instruction(locks);
            turns.data(address, 8, access);
        }
    }
    turns.counts()
}

/// Per turn, but for the first of each thread.
fn transfers(counts: Counts, times: usize) -> f64 {
    (counts.transfers * 2.0 * times as f64 / (2.0 * (times as f64 - 1.0)) * 1000.0).round() / 1000.0
}

#[test]
fn a_line_that_both_count_up_comes_over_once_in_a_turn() {
    let up_and_down = |_| vec![(64, Access::Write, true), (64, Access::Write, true)];
    let counts = taken(10, up_and_down);
    assert_eq!(
        (counts.shared_lines, counts.shared_writes, counts.hottest, counts.locked),
        (1.0, 2.0, 2.0, 2.0)
    );
    assert_eq!(transfers(counts, 10), 1.0);
}

#[test]
fn a_line_read_before_it_is_written_comes_over_twice() {
    let counts = taken(10, |_| vec![(64, Access::Read, false), (64, Access::Write, true)]);
    // 18 turns that are not a thread's first, and the write of the second thread's first.
    assert_eq!((counts.transfers * 20.0).round(), 37.0);
}

#[test]
fn what_locks_asks_for_its_line_once() {
    // A locked instruction is traced as a read and a write.
    let mut turns = Turns::default();
    for turn in 0..20 {
        turns.begin(turn % 2);
        turns.instruction(true);
        turns.data(64, 8, Access::Read);
        turns.data(64, 8, Access::Write);
    }
    let counts = turns.counts();
    assert_eq!((counts.shared_writes, transfers(counts, 10)), (1.0, 1.0));
}

#[test]
fn lines_of_their_own_and_lines_only_read_stay() {
    let counts = taken(10, |thread| {
        let own = 64 * (1 + thread as u64);
        vec![(own, Access::Read, false), (own, Access::Write, false), (0, Access::Read, false)]
    });
    assert_eq!((counts.transfers, counts.shared_lines, counts.read_shared), (0.0, 0.0, 1.0));
}

#[test]
fn neighbours_on_one_line_share_it() {
    let counts = taken(10, |thread| vec![(64 + 8 * thread as u64, Access::Write, false)]);
    assert_eq!((counts.shared_lines, transfers(counts, 10)), (1.0, 1.0));
}

#[test]
fn an_access_across_two_lines_is_one_to_each() {
    let counts = taken(10, |_| vec![(60, Access::Write, false)]);
    assert_eq!((counts.shared_lines, counts.shared_writes, counts.hottest), (2.0, 2.0, 1.0));
}

#[test]
fn a_line_that_one_writes_comes_over_to_the_reader_and_back() {
    let counts =
        taken(10, |thread| vec![(64, if thread == 0 { Access::Write } else { Access::Read }, false)]);
    assert_eq!((counts.shared_lines, counts.invalidated), (0.0, 1.0));
    assert_eq!(transfers(counts, 10), 1.0);
}

#[test]
fn counts_are_read_as_they_were_written() {
    let counts = taken(10, |_| vec![(64, Access::Read, false), (64, Access::Write, true)]);
    let named = counts.named();
    let count = |wanted: &str| named.iter().find(|(name, _)| *name == wanted).map(|(_, count)| *count);
    assert_eq!(Counts::of(count), Some(counts));
    assert_eq!(Counts::of(|_| None), None);
}

#[test]
fn instructions_that_lock_are_known() {
    let lock_xadd = [0xf0, 0x48, 0x0f, 0xc1, 0x07];
    let exchange_with_memory = [0x48, 0x87, 0x07];
    let exchange_of_registers = [0x48, 0x87, 0xc1];
    let move_to_memory = [0x48, 0x89, 0x07];
    assert!(machine_code::locks(&lock_xadd) && machine_code::locks(&exchange_with_memory));
    assert!(!machine_code::locks(&exchange_of_registers) && !machine_code::locks(&move_to_memory));
}
