//! The Linux host manager, on a kernel in memory.

#![cfg(target_os = "linux")]

mod crash;
mod deferred;
mod detach;
mod driver_type;
mod faults;
mod guards;
mod hostile;
mod journal;
mod kernel_facts;
mod linux;
mod meddling;
mod ownership;
mod random;
mod recovery;
mod scaffold;
mod status;
mod stuck;
mod vanishing;
