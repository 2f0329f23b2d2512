//! A box that is made when it is first needed, by whoever needs it first, and kept.

use alloc::boxed::Box;
use core::fmt;
use core::marker::PhantomData;
use core::ptr;

use super::{NoMemory, try_box};
use crate::sync::Ordering;
use crate::sync::unexplored::AtomicPtr;

/// Nothing, or for ever after one `T`: what few have need of, for the price of a pointer to all.
///
/// # Invariants
///
/// `place` is null, or came from `Box::into_raw` and stays.
pub(crate) struct OnceBox<T> {
    place: AtomicPtr<T>,
    owns: PhantomData<T>,
}

impl<T> OnceBox<T> {
    pub(crate) const fn new() -> Self {
        Self { place: AtomicPtr::new(ptr::null_mut()), owns: PhantomData }
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        // Acquire: pairs with the Release of who made it.
        let there = self.place.load(Ordering::Acquire);
        // SAFETY: by the invariant it is a `T` that lives as long as this.
        unsafe { there.as_ref() }
    }

    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> T) -> Result<&T, NoMemory> {
        if let Some(there) = self.get() {
            return Ok(there);
        }
        let made = Box::into_raw(try_box(make())?);
        // Release: pairs with the Acquire of those who find it; Acquire: with the Release of one who was faster.
        match self.place.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: made above, and kept from here on.
            Ok(_) => Ok(unsafe { &*made }),
            Err(there) => {
                // SAFETY: made above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(made) });
                // SAFETY: by the invariant.
                Ok(unsafe { &*there })
            }
        }
    }
}

impl<T> Drop for OnceBox<T> {
    fn drop(&mut self) {
        let there = *self.place.get_mut();
        if !there.is_null() {
            // SAFETY: by the invariant it came from a box, and `&mut self` says that nobody looks at it any more.
            drop(unsafe { Box::from_raw(there) });
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(all(test, feature = "std", not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn whoever_needs_it_first_makes_it_and_all_get_the_same() {
        let once = OnceBox::new();
        assert!(once.get().is_none());
        let got: std::vec::Vec<usize> = std::thread::scope(|scope| {
            let get = |made: usize| once.get_or_make(|| made).map(|there| ptr::from_ref(there).addr());
            let threads: std::vec::Vec<_> = (0..4).map(|made| scope.spawn(move || get(made))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
        });
        assert!(got.iter().all(|there| Some(*there) == once.get().map(|it| ptr::from_ref(it).addr())));
    }
}
