//! The life of a device, rule by rule, on the simulated machine.

mod add;
mod add_again;
mod alias;
mod assign;
mod bench;
mod can_assign;
mod hide;
mod remove;
mod scaffold;
mod scan;
mod sets;
mod stray;
mod subtree;
mod ticket;
