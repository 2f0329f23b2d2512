//! The names of what can happen to a device.

use core::fmt;

/// A movement of a device through its life that somebody is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transition {
    /// Made known.
    Add,
    /// Adopted by the host: from unowned to the host.
    Adopt,
    /// Taken away.
    Remove,
    /// Given to a guest.
    Assign,
    /// Taken back from a guest, or out of quarantine.
    Deassign,
    /// Put into quarantine.
    Quarantine,
    /// Taken away from everyone.
    Hide,
    /// Taken from its host driver.
    Detach,
    /// Given back to its host driver.
    Reattach,
    /// Reset.
    Reset,
    /// Made usable again after a step that could not be undone.
    Repair,
    /// Its guest is asked to let it go.
    Unplug,
    /// Its MSI-X table is being prepared or released.
    Interrupts,
}

impl Transition {
    /// The name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Adopt => "adopt",
            Self::Remove => "remove",
            Self::Assign => "assign",
            Self::Deassign => "deassign",
            Self::Quarantine => "quarantine",
            Self::Hide => "hide",
            Self::Detach => "detach",
            Self::Reattach => "reattach",
            Self::Reset => "reset",
            Self::Repair => "repair",
            Self::Unplug => "unplug",
            Self::Interrupts => "interrupts",
        }
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
