//! What is known of one device, from its configuration bytes.
//!
//! Pure functions over bytes that somebody else read: from hardware, from a file, from a guest. They never touch
//! a device, never lock and never panic, whatever the bytes; `no_std` with `alloc`. Where bytes are missing a
//! fact is `None`, where they make no sense there is a typed warning beside what could be read.
//!
//! | file | what it tells |
//! |---|---|
//! | `config` | checked reads; whether there is an extended space |
//! | `header` | who the function is, and the layout of its header |
//! | `chain` | what can be wrong with a capability list |
//! | `capability`, `extended` | the two capability lists |
//! | `express` | the PCI Express capability: the kind of port |
//! | `bridge` | the kind of bridge and the buses behind it |
//! | `sriov` | virtual functions: how many, where, which BARs |
//! | `phantom` | phantom functions and the real one behind them |
//! | `upstream` | the map of bridges, and the outermost one above a device |
//! | `requester` | all requester IDs of a device |
#![forbid(unsafe_code)]

mod bridge;
mod capability;
mod chain;
mod config;
mod express;
mod extended;
mod header;
mod phantom;
mod requester;
mod sriov;
mod upstream;

pub use bridge::{BridgeKind, BusRange};
pub(crate) use capability::walk as walk_capabilities;
pub use capability::{Capabilities, Capability, find as find_capability};
pub use chain::ChainWarning;
pub use config::{ConfigSpace, EXTENDED_START, FULL_SIZE, HEADER_SIZE};
pub use express::{Express, PortType};
pub(crate) use extended::walk as walk_extended_capabilities;
pub use extended::{ExtendedCapabilities, ExtendedCapability, find as find_extended_capability};
pub use header::{Header, HeaderLayout, SubsystemId};
pub use phantom::{Stride, phantom_functions, real_function};
pub use requester::{RequesterId, RequesterSource, requester_ids};
pub use sriov::{SRIOV_CAPABILITY, SrIov, VF_BAR_SLOTS, VfAddressError, VfBar};
pub use upstream::{AddBridgeError, BridgeMap, MappingBridge, UpstreamError};
