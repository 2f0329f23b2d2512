//! The tool stack's side of xen-pciback: which devices a guest has, written where the driver and the front end look.
//!
//! A guest's backend is a folder of xenstore: how many devices (`num_devs`), and for each index from 0 on what it is and
//! how far it has come (`dev-N`, `state-N`, …). Driver and front end move each other along by their `state` nodes:
//!
//! ```text
//! start:      be 1 ─> 2 (driver looks: num_devs, dev-N) ─> 3 ─ fe 3 ─> be 4 ─> fe 4
//! add/remove: we write be 7 ─> fe 7 (guest lets go) ─> be 8 (driver adds, removes) ─> fe 4 (guest looks) ─> be 4
//! ```
//!
//! [`Toolstack`] writes only when both sides are *at rest* (be 4 and fe 4), and says so inside the transaction that
//! writes. That is what its invariants come from:
//!
//! - The driver sees a set whole or not at all: it appears in one transaction, with its number.
//! - No two reconfigurations are under way at once, whoever asks for them.
//! - A mark of removal is gone before the next reconfiguration begins: the driver fails for good when it meets one for a
//!   device that it does not have any more. Who finds one at rest clears it up, whoever left it.
//! - Indexes have no gaps, and nothing is left over after removals.
//!
//! | file | what it does |
//! |---|---|
//! | `state` | the states |
//! | `layout` | where the nodes are |
//! | `export` | what is written for a device |
//! | `table` | a backend as it is in one transaction, and the changes that lead to another |
//! | `toolstack` | one guest's devices: publish, list, release |
//! | `hot` | add and remove while the guest runs |
//! | `rest` | waiting until both sides are at rest |
//! | `error` | why not, and what has become of it |

mod error;
mod export;
mod hot;
mod layout;
mod rest;
mod state;
mod table;
mod toolstack;

pub use error::{Outcome, PcibackError, Unsettled};
pub use export::{Export, Exported, Options};
pub use layout::Place;
pub use state::State;
pub use toolstack::{Patience, Released, Toolstack};
