//! The life of a device, rule by rule, on the simulated machine.

mod assign;
mod scaffold;
