//! vPCI, rule by rule: registers and how accesses meet them.

mod any_access;
mod bar_map;
mod bar_map_reference;
mod binding;
mod bytes;
mod decoding;
mod edges;
mod endings;
mod endpoint;
mod faults;
mod guest;
mod hardware;
mod header;
mod interrupts;
mod pass_through;
mod ports;
mod real_machines;
mod rebar;
mod recorded;
#[path = "../recordings/mod.rs"]
mod recordings;
mod reference;
mod registers;
mod resets;
mod routes;
mod scaffold;
mod sriov;
mod stage;
mod state;
mod storm;
mod walk;
