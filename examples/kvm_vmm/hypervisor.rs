//! What runs the guest: KVM, or the stand-in where there is none.

use pcidevs::platform::HookError;
use pcidevs::vpci::Message;

use super::memory::Memory;

/// A line into the guest: writing it sends the message that is connected to it. KVM's word is GSI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line(pub(crate) u32);

/// The part of a hypervisor that devices need.
pub(crate) trait Hypervisor: Send + Sync {
    /// Connects a line, or has it send another message from now on.
    fn connect(&self, line: Line, message: Message) -> Result<(), HookError>;

    /// From the return on nothing that is written to the line reaches the guest.
    fn disconnect(&self, line: Line) -> Result<(), HookError>;

    /// Writes to a line.
    fn send(&self, line: Line) -> Result<(), HookError>;

    /// Shows memory to the guest.
    fn map(&self, base: u64, memory: &Memory) -> Result<(), HookError>;

    /// From the return on the guest does not reach what was mapped here.
    fn unmap(&self, base: u64) -> Result<(), HookError>;

    /// Lines that are connected, and mappings besides RAM.
    fn in_use(&self) -> (usize, usize);
}
