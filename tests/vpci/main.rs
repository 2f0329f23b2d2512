//! vPCI, rule by rule: registers and how accesses meet them.

mod bar_map;
mod bar_map_reference;
mod decoding;
mod guest;
mod header;
mod reference;
mod registers;
mod routes;
mod scaffold;
