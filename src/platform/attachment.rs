//! What a binding sets up, and its end must undo.

use core::fmt;

use super::error::HookError;
use crate::address::Sbdf;

/// A device in the hands of a transition, as a hook sees it.
pub trait Claimed<D> {
    /// The device's address.
    fn address(&self) -> Sbdf;

    /// Runs `step` on the embedder's data under the device's own lock. It must be bounded and must not call back.
    fn with(&self, step: &mut dyn FnMut(&mut D));
}

/// Whether there is still hardware to talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hardware {
    /// The device is there.
    Present,
    /// It was reported gone: give back what is held on this side, and do not touch it.
    Gone,
}

/// What kind of thing an attachment is, for lists and for rules such as "MSI-X entries in use".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttachmentKind {
    /// The virtual configuration space its owner sees.
    Vpci,
    /// An interrupt vector that is set up.
    MsiVector,
    /// The MSI-X table, mapped for the host.
    MsixTable,
    /// Address translation services, switched on.
    Ats,
    /// Anything else of the embedder's: an irqfd, a memory slot, a bus range, a DMA mapping.
    Other(&'static str),
}

impl fmt::Display for AttachmentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Vpci => "vPCI",
            Self::MsiVector => "MSI vector",
            Self::MsixTable => "MSI-X table",
            Self::Ats => "ATS",
            Self::Other(name) => name,
        })
    }
}

/// What the current binding of a device set up and its end must undo: a vPCI, an interrupt vector, an irqfd.
///
/// Not a use: it never makes a removal `Busy`. It is registered under the device lock or by the transition that
/// claimed the device, and undone, in reverse order of registration, by remove, deassign and reset, without a
/// lock held. Whoever reaches a device *through* one (an interrupt, an ATS walk) takes a reference first.
///
/// `undo` and `redo` are a pair: a deassign that fails after this attachment was undone redoes it, so that the
/// old owner has back what it had. Once undone for good it is dropped.
pub trait Attachment<D>: Send {
    /// What it is.
    fn kind(&self) -> AttachmentKind;

    /// How many interrupt vectors are set up with it and end with it: each is an attachment of kind
    /// [`AttachmentKind::MsiVector`] by itself.
    fn vectors(&self) -> usize {
        0
    }

    /// Stops it. From the return on it has no effect on its owner or the device.
    ///
    /// An error makes the device broken, whatever becomes of the transition: how much is undone is unknown.
    fn undo(&mut self, device: &dyn Claimed<D>, hardware: Hardware) -> Result<(), HookError>;

    /// Brings back what `undo` stopped. An error makes the device broken.
    fn redo(&mut self, device: &dyn Claimed<D>) -> Result<(), HookError>;
}

impl<D> fmt::Debug for dyn Attachment<D> + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())
    }
}
