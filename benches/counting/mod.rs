//! Counting instead of timing: this program runs again under valgrind, which tells what it executed.
//!
//! A count has no noise: it is the same on a busy machine as on an idle one. It says nothing of caches, of other
//! processors, or of how long an instruction takes; the times are in the other benchmarks.
//!
//! | file | what |
//! |---|---|
//! | `valgrind` | this program, run again under one of valgrind's tools |
//! | `repeated` | the instructions of one repetition: what more repetitions cost more |

pub(crate) mod repeated;
pub(crate) mod valgrind;
