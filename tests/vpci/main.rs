//! vPCI, rule by rule: registers and how accesses meet them.

mod bar_map;
mod bar_map_reference;
mod decoding;
mod guest;
mod hardware;
mod header;
mod pass_through;
mod real_machines;
mod rebar;
#[path = "../recordings/mod.rs"]
mod recordings;
mod reference;
mod registers;
mod scaffold;
mod sriov;
mod walk;
