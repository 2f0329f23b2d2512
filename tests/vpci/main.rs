//! vPCI, rule by rule: registers and how accesses meet them.

mod decoding;
mod reference;
mod registers;
mod scaffold;
