//! The Linux host manager, on a kernel in memory; `same` runs on real ones as well.

#![cfg(target_os = "linux")]

mod bus_reset;
mod crash;
mod deferred;
mod detach;
mod driver_type;
mod faults;
mod guards;
mod hostile;
mod journal;
mod linux;
mod meddling;
mod network;
mod ownership;
mod random;
mod recovery;
mod same;
mod scaffold;
mod status;
mod stuck;
mod vanishing;
