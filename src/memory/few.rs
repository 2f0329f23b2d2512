//! A list that is short nearly always, and then needs no allocation.
//!
//! A transition keeps half a dozen lists of its members. Most move one device, and allocating and freeing lists of
//! one cost them a quarter of their time (`docs/measurements/lifecycle.md`).

use alloc::vec::Vec;
use core::fmt;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};

use super::NoMemory;

/// A list with room for `N` in place. Whatever is beyond that, and then all of it, is allocated, fallibly.
///
/// # Invariants
///
/// `heap` has capacity: everything is there, and `length` is 0. It has none: the first `length` of `place` are
/// initialised, and owned by this list.
pub(crate) struct Few<T, const N: usize> {
    length: usize,
    place: [MaybeUninit<T>; N],
    heap: Vec<T>,
}

impl<T, const N: usize> Few<T, N> {
    pub(crate) const fn new() -> Self {
        const { assert!(size_of::<T>() > 0, "a vector of nothings has capacity without being asked") };
        // INVARIANT: nothing is anywhere.
        Self { length: 0, place: [const { MaybeUninit::uninit() }; N], heap: Vec::new() }
    }

    fn is_in_place(&self) -> bool {
        self.heap.capacity() == 0
    }

    /// Makes room for so many more.
    ///
    /// There is no constructor that does: moving the empty list out of it, with all of its place, cost more than
    /// what it is for.
    #[inline]
    pub(crate) fn reserve(&mut self, more: usize) -> Result<(), NoMemory> {
        if self.is_in_place() && self.length + more <= N { Ok(()) } else { self.reserve_on_heap(more) }
    }

    #[cold]
    fn reserve_on_heap(&mut self, more: usize) -> Result<(), NoMemory> {
        if !self.is_in_place() {
            return Ok(self.heap.try_reserve(more)?);
        }
        let mut heap = Vec::new();
        heap.try_reserve(self.length + more)?;
        // SAFETY: by the invariant; with the length at 0 and the values in `heap`, which has room, they have
        // moved.
        heap.extend(self.place.iter().take(self.length).map(|value| unsafe { value.assume_init_read() }));
        // INVARIANT: everything is on the heap.
        (self.length, self.heap) = (0, heap);
        Ok(())
    }

    /// Appends a value. There is room.
    pub(crate) fn push(&mut self, value: T) {
        if self.is_in_place()
            && let Some(free) = self.place.get_mut(self.length)
        {
            free.write(value);
            // INVARIANT: one more is initialised.
            self.length += 1;
        } else {
            debug_assert!(self.heap.len() < self.heap.capacity(), "room was made");
            self.heap.push(value);
        }
    }

    /// Takes a value out; those behind it move up.
    pub(crate) fn remove(&mut self, place: usize) -> T {
        if !self.is_in_place() {
            return self.heap.remove(place);
        }
        self[place..].rotate_left(1);
        // INVARIANT: one less, and it is the last.
        self.length -= 1;
        // SAFETY: it was initialised until the line before, and is not the list's any more.
        unsafe { self.place[self.length].assume_init_read() }
    }

    pub(crate) fn clear(&mut self) {
        self.heap.clear();
        let all = core::ptr::from_mut(&mut self[..]);
        // INVARIANT: before the destructors, of which one may panic.
        self.length = 0;
        // SAFETY: they were initialised, and are not the list's any more; on the heap there are none left.
        unsafe { core::ptr::drop_in_place(all) };
    }
}

impl<T, const N: usize> Extend<T> for Few<T, N> {
    /// Appends values. There is room.
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.push(value));
    }
}

impl<T, const N: usize> Deref for Few<T, N> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        if self.is_in_place() {
            // SAFETY: by the invariant.
            unsafe { self.place.get_unchecked(..self.length).assume_init_ref() }
        } else {
            &self.heap
        }
    }
}

impl<T, const N: usize> DerefMut for Few<T, N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        if self.is_in_place() {
            // SAFETY: by the invariant.
            unsafe { self.place.get_unchecked_mut(..self.length).assume_init_mut() }
        } else {
            &mut self.heap
        }
    }
}

impl<T, const N: usize> Drop for Few<T, N> {
    #[inline]
    fn drop(&mut self) {
        self.clear();
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for Few<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::rc::Rc;

    use super::*;

    fn of(values: core::ops::Range<usize>) -> Few<Rc<usize>, 2> {
        let mut few = Few::new();
        for value in values {
            few.reserve(1).expect("memory");
            few.push(Rc::new(value));
        }
        few
    }

    fn values(few: &[Rc<usize>]) -> Vec<usize> {
        few.iter().map(|value| **value).collect()
    }

    #[test]
    fn a_list_holds_what_was_pushed_in_place_and_beyond() {
        for length in 0..6 {
            assert_eq!(values(&of(0..length)), (0..length).collect::<Vec<_>>());
        }
    }

    #[test]
    fn room_for_many_is_made_at_once() {
        let mut few = Few::<usize, 2>::new();
        few.reserve(5).expect("memory");
        let capacity = few.heap.capacity();
        few.extend(0..5);
        assert_eq!((few.len(), few.heap.capacity()), (5, capacity));
    }

    #[test]
    fn what_is_removed_leaves_the_rest_in_order() {
        for length in 1..5 {
            for place in 0..length {
                let mut few = of(0..length);
                assert_eq!(*few.remove(place), place);
                let rest: Vec<_> = (0..length).filter(|value| *value != place).collect();
                assert_eq!(values(&few), rest);
            }
        }
    }

    #[test]
    fn every_value_is_dropped_once() {
        for length in 0..6 {
            let witness = Rc::new(0);
            let mut few = Few::<Rc<usize>, 2>::new();
            for _ in 0..length {
                few.reserve(1).expect("memory");
                few.push(witness.clone());
            }
            assert_eq!(Rc::strong_count(&witness), length + 1);
            few.clear();
            assert_eq!((few.len(), Rc::strong_count(&witness)), (0, 1));
            few.reserve(1).expect("memory");
            few.push(witness.clone());
            drop(few);
            assert_eq!(Rc::strong_count(&witness), 1);
        }
    }
}
