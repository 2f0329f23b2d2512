//! Registers that any number of threads read at once, without a lock and without a write.
//!
//! Most of what a guest reads of a configuration space has no side effect and seldom changes. Under the device lock
//! such reads of one device by many vCPUs queue for one cache line. A device may therefore *publish* registers: copies
//! in memory of the slot's own, kept by whoever has the device lock. A reader takes nothing, so it must find out
//! afterwards whether what it read was still so:
//!
//! ```text
//! reader                                     whoever has the device lock
//!   version, odd: shown           (Acquire)    show: audience, then version + 1, odd      (Release)
//!   audience: is it meant for me?              set:  a register                            (Release)
//!   the register                               veil: version + 1, even; only then what
//!   fence                         (Acquire)          is for the next audience              (Release)
//!   version: still the same?
//! ```
//!
//! A reader that finds anything of a later audience has, by that store's Release and its own fence, the veil before it,
//! so the last look differs. What it returns was there for it at its last look. The board is veiled under the device
//! lock by everything that ends an audience: a move's mark, a closing, a departure's drain; so who asks after one of
//! those has returned reads nothing. `None` never means that there is no device: ask under the lock.
//!
//! # Invariants
//!
//! A board's memory goes with its slot, so a reader may always look; a board that has become too small stays behind
//! its successor, veiled for good. Only who has the device lock writes.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr;

use crate::memory::{NoMemory, try_box};
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering, Site, fence, ordering, weakened};

/// For whom registers are shown, beside those who may read any device: two numbers that mean nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Audience {
    pub(crate) party: u32,
    pub(crate) place: u64,
}

impl Audience {
    /// Nobody but those who may read any device. No audience of a guest is equal to it: a place has 48 bits.
    pub(crate) const NONE: Self = Self { party: 0, place: u64::MAX };
}

/// What one slot has published.
#[derive(Debug)]
pub(super) struct Published {
    board: AtomicPtr<Board>,
}

#[derive(Debug)]
struct Board {
    /// Odd while the registers are shown.
    version: AtomicU64,
    place: AtomicU64,
    party: AtomicU32,
    /// How many of the registers are this device's.
    used: AtomicU32,
    registers: Vec<AtomicU32>,
    /// The ones before, too small.
    former: AtomicPtr<Board>,
}

impl Published {
    pub(super) fn new() -> Self {
        Self { board: AtomicPtr::new(ptr::null_mut()) }
    }

    fn board(&self) -> Option<&Board> {
        // Acquire: pairs with the Release in `publish`.
        let board = self.board.load(ordering(Site::BoardAcquire, Ordering::Acquire));
        // SAFETY: by the invariant, a board lives as long as the slot.
        unsafe { board.as_ref() }
    }

    /// A register, if it is shown to this audience at this moment; to `None` whatever is shown is.
    #[inline]
    pub(super) fn read(&self, audience: Option<Audience>, register: usize) -> Option<u32> {
        let board = self.board()?;
        // Acquire: pairs with the Release of `show`.
        let version = board.version.load(ordering(Site::ShownAcquire, Ordering::Acquire));
        if version & 1 == 0 && !weakened(Site::ReadChecksShown) {
            return None;
        }
        if let Some(asked) = audience
            && asked != board.audience()
            && !weakened(Site::ReadChecksAudience)
        {
            return None;
        }
        if register >= board.used.load(Ordering::Relaxed) as usize {
            return None;
        }
        // Relaxed, all three: the fence is behind them.
        let value = board.registers.get(register)?.load(Ordering::Relaxed);
        if !weakened(Site::ReadFences) {
            // Acquire: pairs with the Release of `set`, so that who sees one change sees those before it, and of every
            // store after a veil, so that who sees one sees the veil.
            fence(Ordering::Acquire);
        }
        let is_still_so = board.version.load(Ordering::Relaxed) == version || weakened(Site::ReadLooksAgain);
        is_still_so.then_some(value)
    }

    // ---- all below only under the device lock

    /// Fills the board, veiled. Without memory it is as it was.
    pub(super) fn publish(&self, registers: &[u32]) -> Result<(), NoMemory> {
        let used = u32::try_from(registers.len()).map_err(|_| NoMemory)?;
        let fits = self.board().is_some_and(|board| board.registers.len() >= registers.len());
        let larger = if fits { None } else { Some(self.larger(registers.len())?) };
        self.veil();
        if let Some(larger) = larger {
            // Release: pairs with the Acquire in `board`.
            self.board.store(Box::into_raw(larger), ordering(Site::BoardRelease, Ordering::Release));
        }
        let Some(board) = self.board() else { return Ok(()) };
        for (place, register) in board.registers.iter().zip(registers) {
            // Release: as in `set`.
            place.store(*register, ordering(Site::RegisterRelease, Ordering::Release));
        }
        // Release: after the veil, as everything that is for the next audience.
        board.used.store(used, Ordering::Release);
        Ok(())
    }

    /// A board with room for so many, in front of the one there is.
    fn larger(&self, registers: usize) -> Result<Box<Board>, NoMemory> {
        let room = registers.checked_next_power_of_two().ok_or(NoMemory)?;
        let mut places = Vec::new();
        places.try_reserve_exact(room)?;
        places.extend((0..room).map(|_| AtomicU32::new(0)));
        try_box(Board {
            version: AtomicU64::new(0),
            place: AtomicU64::new(0),
            party: AtomicU32::new(0),
            used: AtomicU32::new(0),
            registers: places,
            former: AtomicPtr::new(self.board.load(Ordering::Relaxed)),
        })
    }

    /// One register is another value from now on; `false` if it is not published.
    pub(super) fn set(&self, register: usize, value: u32) -> bool {
        let Some(board) = self.board() else { return false };
        let Some(place) = board.registers.get(register) else { return false };
        if register >= board.used.load(Ordering::Relaxed) as usize {
            return false;
        }
        // Release: pairs with the fence of the reader.
        place.store(value, ordering(Site::RegisterRelease, Ordering::Release));
        true
    }

    /// Whether there is something to show.
    pub(super) fn is_filled(&self) -> bool {
        self.board().is_some_and(|board| board.used.load(Ordering::Relaxed) > 0)
    }

    /// Shows what is on the board, if anything is.
    pub(super) fn show(&self, audience: Audience) {
        let Some(board) = self.board().filter(|_| self.is_filled()) else { return };
        self.veil();
        board.place.store(audience.place, Ordering::Release);
        board.party.store(audience.party, Ordering::Release);
        // Release: pairs with the Acquire of the reader's first look.
        board.version.fetch_add(1, ordering(Site::ShownRelease, Ordering::Release));
    }

    /// Shows what is on the board to whom it was shown before.
    pub(super) fn show_again(&self) {
        if let Some(board) = self.board() {
            self.show(board.audience());
        }
    }

    /// From the return on nobody reads it.
    pub(super) fn veil(&self) {
        if let Some(board) = self.board()
            && board.version.load(Ordering::Relaxed) & 1 == 1
        {
            // Relaxed: the Release of the stores that follow carries it.
            board.version.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Veils it, and there is nothing left to show.
    pub(super) fn clear(&self) {
        if let Some(board) = self.board() {
            self.veil();
            board.used.store(0, Ordering::Release);
        }
    }
}

impl Board {
    fn audience(&self) -> Audience {
        Audience { party: self.party.load(Ordering::Relaxed), place: self.place.load(Ordering::Relaxed) }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        let mut board = self.board.load(Ordering::Relaxed);
        while !board.is_null() {
            // SAFETY: made by `Box::into_raw` in `publish`, and each stands in one place; nobody reaches the slot any more.
            let this = unsafe { Box::from_raw(board) };
            board = this.former.load(Ordering::Relaxed);
        }
    }
}
