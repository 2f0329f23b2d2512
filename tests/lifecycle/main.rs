//! The life of a device, rule by rule, on the simulated machine.

mod add;
mod add_again;
mod alias;
mod assign;
mod attachments;
mod bench;
mod broken;
mod can_assign;
mod events;
mod faults;
mod gone;
mod groups;
mod hide;
mod interrupts;
mod quarantine;
mod release;
mod remove;
mod reset;
mod scaffold;
mod scan;
mod sets;
mod stray;
mod subtree;
mod ticket;
mod unplug;
