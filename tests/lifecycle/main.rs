//! The life of a device, rule by rule, on the simulated machine.

mod add;
mod add_again;
mod assign;
mod attachments;
mod bench;
mod broken;
mod can_assign;
mod events;
mod exhaustive;
mod faults;
mod gone;
mod groups;
mod hide;
mod interrupts;
mod memory;
mod quarantine;
mod release;
mod remove;
mod reset;
mod scaffold;
mod scan;
mod sets;
mod subtree;
mod ticket;
mod unplug;
