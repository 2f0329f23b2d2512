//! The names of one device's holders, under the slot's leaf lock.
//!
//! A name comes after its reference and goes before it, so the names are never more than the references, and
//! what a count has over the names is exactly the unnamed uses.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::Holder;
use crate::Sbdf;
use crate::memory::NoMemory;

/// What a holder wants called, once, when the device it holds is reported gone: with the device's address and
/// the holder's name, with no lock held; on the reporter's thread, or at once on the holder's if it is gone already.
pub type OnGone = Arc<dyn Fn(Sbdf, Holder) + Send + Sync>;

/// Tells one name of a slot from the others, since two holders may have equal names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(u64);

struct Name {
    holder: Holder,
    token: Token,
    /// The reference has no handle: it belongs to the slot's binding and is found again by its holder.
    parked: bool,
    on_gone: Option<OnGone>,
}

/// All names of one slot.
pub(crate) struct Names {
    names: Vec<Name>,
    next: u64,
}

impl Names {
    pub(crate) const fn new() -> Self {
        Self { names: Vec::new(), next: 0 }
    }

    #[inline]
    pub(crate) fn reserve(&mut self) -> Result<(), NoMemory> {
        if self.names.len() < self.names.capacity() { Ok(()) } else { self.grow() }
    }

    #[cold]
    fn grow(&mut self) -> Result<(), NoMemory> {
        Ok(self.names.try_reserve(1)?)
    }

    /// Adds a name; capacity must have been reserved.
    #[inline]
    pub(crate) fn add(&mut self, holder: Holder) -> Token {
        debug_assert!(self.names.len() < self.names.capacity());
        let token = Token(self.next);
        self.next += 1;
        self.names.push(Name { holder, token, parked: false, on_gone: None });
        token
    }

    /// Takes a name out. What it wanted called comes back, to be dropped without the lock.
    #[inline]
    pub(crate) fn remove(&mut self, token: Token) -> Option<OnGone> {
        // From the end: the youngest name is the likeliest to go.
        let place = self.names.iter().rposition(|name| name.token == token)?;
        self.names.swap_remove(place).on_gone
    }

    fn find(&mut self, token: Token) -> Option<&mut Name> {
        self.names.iter_mut().rfind(|name| name.token == token)
    }

    pub(crate) fn on_gone(&mut self, token: Token, call: OnGone) -> Option<OnGone> {
        self.find(token).and_then(|name| name.on_gone.replace(call))
    }

    pub(crate) fn holder(&mut self, token: Token) -> Option<Holder> {
        self.find(token).map(|name| name.holder)
    }

    pub(crate) fn park(&mut self, token: Token) {
        if let Some(name) = self.find(token) {
            name.parked = true;
        }
    }

    pub(crate) fn unpark(&mut self, holder: Holder) -> Option<Token> {
        let name = self.names.iter_mut().find(|name| name.parked && name.holder == holder)?;
        name.parked = false;
        Some(name.token)
    }

    pub(crate) fn rename_parked(&mut self, from: Holder, to: Holder) -> bool {
        let name = self.names.iter_mut().find(|name| name.parked && name.holder == from);
        name.map(|name| name.holder = to).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn holders(&self) -> impl Iterator<Item = Holder> {
        self.names.iter().map(|name| name.holder)
    }

    /// A name that wants to be told and has not been; it will not be found again.
    pub(crate) fn next_to_tell(&mut self) -> Option<(Holder, OnGone)> {
        self.names.iter_mut().find_map(|name| name.on_gone.take().map(|call| (name.holder, call)))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.holders()).finish()
    }
}
