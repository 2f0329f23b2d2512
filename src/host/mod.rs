//! The Linux host manager: real functions go from their host drivers to guests and back, and survive crashes.
//!
//! [`HostManager`] does what libvirt's host-device manager does. It is a platform of the one engine in
//! [`lifecycle`](crate::lifecycle): driver binding is a step like any other, and can be undone. Everything it knows of
//! the machine, and does to it, goes through [`Kernel`], a handful of file operations; [`Linux`] is the running
//! kernel, [`fake`] one in memory that behaves like it.
//!
//! | file | what |
//! |---|---|
//! | `kernel` | the file interface; the running kernel behind it, rtnetlink, and VFIO's requests, the one place with `unsafe` |
//! | `fake` | a kernel in memory, with its rules and its errors |
//! | `function` | what sysfs says of one function; nothing it says is believed without a check |
//! | `name`, `driver_type`, `variant` | names; which driver is asked for; which one is the best |
//! | `network`, `identity` | MAC address and VLAN of a virtual function; giving it one, and putting the old one back |
//! | `guards`, `siblings` | what the host cannot do without; who shares a group |
//! | `writer` | kernel writes with a deadline; devices that are stuck |
//! | `driver` | putting a driver in place and taking it away |
//! | `record`, `journal`, `store`, `book` | what must survive a crash, and where it is written |
//! | `operation`, `platform`, `view` | the engine's hooks |
//! | `manager` | the operations: detach, attach, release, reattach, adopt, status, recover |
//!
//! # Locks
//!
//! None is held while the kernel is written to, and none that `status` takes while the disk is.
#![deny(unsafe_code)]

mod book;
mod driver;
mod driver_type;
pub mod fake;
mod function;
mod guards;
mod identity;
mod journal;
mod kernel;
mod manager;
mod name;
mod network;
mod operation;
mod platform;
mod record;
mod siblings;
mod store;
mod variant;
mod view;
mod writer;

pub use driver_type::{DriverChoice, DriverType, InvalidDriverType, UnsupportedDriver};
pub use guards::Guard;
pub use journal::JournalDamage;
pub use kernel::{GroupFile, Kernel, Linux, Place, Root};
pub use manager::{
    Attachable, Guarding, HostError, HostManager, HostState, HostStatus, Options, Recovered, Recovery,
    Released, ResetPolicy, SavedDevice,
};
pub use name::{DriverName, GuestName, InvalidName};
pub use network::{
    InvalidNetwork, KeptNetwork, MacAddress, NetworkChange, NetworkIdentity, NetworkSettings, Vlan,
    VlanProtocol,
};
pub use operation::WriteFailure;
pub use record::{Identity, NetworkRecord, Original, Record, Tenure};
pub use store::{Directory, LockRefused, Locked, Store};
pub use writer::LateEnd;
