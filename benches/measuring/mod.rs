//! How the benchmarks measure: what they have in common.
//!
//! | file | what |
//! |---|---|
//! | `asked` | what the command line and the environment ask for |
//! | `processors` | pinned threads |
//! | `order` | the random order of visits |
//! | `pair` | a pair of lock and unlock: the floor that figures are compared with |
//! | `rounds` | candidates measured in turn, again and again, and what was found |
//! | `allocation` | the bytes asked of the allocator |
//! | `requirement` | what must be reached |
//! | `report` | the tables, on the terminal and under `docs/measurements` |
//! | `statistics` | the same candidates for criterion |

pub(crate) mod allocation;
pub(crate) mod asked;
pub(crate) mod order;
pub(crate) mod pair;
pub(crate) mod processors;
pub(crate) mod report;
pub(crate) mod requirement;
pub(crate) mod rounds;
pub(crate) mod statistics;
