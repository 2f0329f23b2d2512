//! Why a function does not answer, and what a panic of its handlers makes of it.

/// Why it does not answer: nothing, or a bit for each reason, since one does not end with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State(u8);

impl State {
    pub(super) const ANSWERS: Self = Self(0);
    /// A handler panicked: reads ones.
    pub(super) const POISONED: Self = Self(1);
    /// It is being reset: reads ones, and nothing is begun.
    pub(super) const RESETTING: Self = Self(2);
    /// Its binding is at its end: the same.
    pub(super) const VEILED: Self = Self(4);

    pub(super) const fn is(self, why: Self) -> bool {
        self.0 & why.0 != 0
    }

    pub(super) const fn begin(&mut self, why: Self) {
        self.0 |= why.0;
    }

    pub(super) const fn end(&mut self, why: Self) {
        self.0 &= !why.0;
    }

    /// Nothing is carried out for it.
    pub(super) const fn is_held(self) -> bool {
        self.is(Self(Self::RESETTING.0 | Self::VEILED.0))
    }
}

/// Runs handlers; `None` if one of them panics, and then the function is poisoned. Without `std` there is nothing to
/// catch a panic with: it goes on its way, and leaves the function poisoned behind it.
#[inline]
#[cfg_attr(
    not(all(feature = "std", not(any(loom, shuttle)))),
    expect(clippy::unnecessary_wraps, reason = "with `std` there may be nothing")
)]
pub(super) fn shielded<R>(state: &mut State, handlers: impl FnOnce() -> R) -> Option<R> {
    let poison = Poison(state);
    #[cfg(all(feature = "std", not(any(loom, shuttle))))]
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(handlers)).ok()?;
    #[cfg(not(all(feature = "std", not(any(loom, shuttle)))))]
    let result = handlers();
    core::mem::forget(poison);
    Some(result)
}

/// Poisons a function, unless it is forgotten.
struct Poison<'a>(&'a mut State);

impl Drop for Poison<'_> {
    fn drop(&mut self) {
        self.0.begin(State::POISONED);
    }
}
