//! The part of the suite that runs on any kernel: on the one in memory, and, in the guests of `tests/e2e/host`, on real
//! ones. What the one in memory does otherwise is a mistake in it.

mod facts;
mod kills;
mod operations;
mod rig;
