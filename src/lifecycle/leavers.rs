//! Devices that leave together.
//!
//! They hold uses of each other, and each was closed at the count that the members closed before it hold. So the
//! order matters at both ends: what depends on others leaves first, and is opened again last. Were it open while
//! what it depends on is still closed, letting go of it would be a put on a closed device.

use alloc::vec::Vec;

use super::Lifecycle;
use super::hand::Leaver;
use crate::Sbdf;
use crate::memory::NoMemory;
use crate::platform::{Claimed, Platform};
use crate::registry::with_room;

/// Closed devices, those that depend on others first. Dropping it opens them again; one whose hardware has gone
/// meanwhile, or that of what it depends on, is reported gone.
pub(super) struct Leavers<'a, P: Platform> {
    lifecycle: &'a Lifecycle<P>,
    members: Vec<Leaver<'a, P>>,
}

impl<'a, P: Platform> Leavers<'a, P> {
    /// None yet, with room for so many.
    pub(super) fn with_room(lifecycle: &'a Lifecycle<P>, room: usize) -> Result<Self, NoMemory> {
        Ok(Self { lifecycle, members: with_room(room)? })
    }

    /// Takes in one that depends on none of those before. There is room.
    pub(super) fn push(&mut self, leaver: Leaver<'a, P>) {
        self.members.push(leaver);
    }

    pub(super) fn as_slice(&self) -> &[Leaver<'a, P>] {
        &self.members
    }

    /// How many uses of this device its members hold.
    pub(super) fn holds(&self, device: Sbdf) -> u32 {
        self.members.iter().map(|leaver| leaver.holds(device)).sum()
    }

    /// This device, which its members may depend on, is none of them after all: it has gone.
    pub(super) fn leave_without(&mut self, device: Sbdf) {
        self.members.iter_mut().for_each(|leaver| leaver.leave_without(device));
    }

    /// Unlinks and destroys all of them. They have been taken down, so a destructor that panics does not keep the rest.
    pub(super) fn finish(mut self) {
        struct Rest<'a, P: Platform>(Leavers<'a, P>);

        impl<P: Platform> Rest<'_, P> {
            fn finish(&mut self) {
                let Leavers { lifecycle, members } = &mut self.0;
                while let Some(leaver) = members.pop() {
                    // The maps first: once the device has left, its address is free for the next one.
                    let address = Claimed::address(&leaver);
                    if let Some(known) = leaver.known() {
                        lifecycle.leave_maps(address, &known);
                        lifecycle.forget(address, &known);
                    }
                    leaver.finish();
                }
            }
        }

        impl<P: Platform> Drop for Rest<'_, P> {
            fn drop(&mut self) {
                self.finish();
            }
        }

        self.members.reverse();
        Rest(self).finish();
    }
}

impl<P: Platform> Drop for Leavers<'_, P> {
    fn drop(&mut self) {
        while let Some(last) = self.members.pop() {
            let address = Claimed::address(&last);
            if last.reopen() || self.lifecycle.is_orphaned(address) {
                // Somebody else may have seen it first.
                let _gone = self.lifecycle.report_gone(address);
            }
        }
    }
}
