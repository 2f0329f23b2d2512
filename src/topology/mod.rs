//! Reading real machines: which PCI functions there are, and what is recorded of each.
//!
//! A [`Machine`] comes from the live `/sys`, from a copy of a sysfs tree in a folder or an archive, or from the
//! text of `lspci`. Sources are recordings that other people and failing hardware made, so every reader takes
//! anything: what cannot be right becomes a [`Warning`] beside the facts that can be read, and one bad function
//! never loses the others. Only a source with nothing to read is a [`ReadError`].
//!
//! | file | what it does |
//! |---|---|
//! | `read` | tells which reader a source needs; the errors |
//! | `directory`, `archive` | find the functions of a sysfs tree on disk or in a tar archive |
//! | `sysfs` | reads one function's folder, wherever it is |
//! | `lspci` | reads the text of `lspci` |
//! | `function` | the facts of one function, completed from its configuration bytes by [`device`](crate::device) |
//! | `machine` | all functions, and how they hang together |
//! | `warning` | what a source says that cannot be right |
//! | `q35-sriov-sysfs.tar.xz` | a recording of an emulated machine (QEMU), not of real hardware |
#![forbid(unsafe_code)]

#[cfg(feature = "topology-archives")]
mod archive;
mod directory;
mod function;
mod lspci;
mod machine;
mod read;
mod sysfs;
mod warning;

pub use function::Function;
pub use machine::Machine;
pub use read::ReadError;
pub use warning::{Warning, WarningKind};
