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
/// the holder's name, on the reporter's thread, with no lock held.
pub type OnGone = Arc<dyn Fn(Sbdf, Holder) + Send + Sync>;

/// Tells one name of a slot from the others, since two holders may have equal names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token(u32);

impl Token {
    pub(crate) const FIRST: Self = Self(0);

    pub(crate) const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

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
    next: Token,
}

impl Names {
    pub(crate) const fn new() -> Self {
        Self { names: Vec::new(), next: Token::FIRST }
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
        let token = self.next;
        self.next = token.next();
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

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn holders(&self) -> impl Iterator<Item = Holder> {
        self.names.iter().map(|name| name.holder)
    }

    /// The first name from `token` on that wants to be told, without allocating.
    pub(crate) fn to_tell(&self, from: Token) -> Option<(Token, Holder, OnGone)> {
        let name = self
            .names
            .iter()
            .filter(|name| name.token >= from)
            .min_by_key(|name| (name.on_gone.is_none(), name.token))?;
        name.on_gone.clone().map(|call| (name.token, name.holder, call))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.holders()).finish()
    }
}
