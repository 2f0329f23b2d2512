//! Adapters: what a guest finds is the same through each of them as it is directly, whoever wrote the device.

mod accesses;
mod barriers;
mod devices;
mod guest;
mod interrupts;
mod paths;
mod scenario;
mod storm;
