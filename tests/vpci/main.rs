//! vPCI, rule by rule: registers and how accesses meet them.

mod bar_map;
mod bar_map_reference;
mod binding;
mod decoding;
mod endpoint;
mod guest;
mod header;
mod interrupts;
mod ports;
mod reference;
mod registers;
mod resets;
mod scaffold;
mod state;
