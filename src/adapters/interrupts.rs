//! From devices that interrupt whenever they like to a model that takes interrupts under its lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::vpci::{Level, Signals};

/// Vectors in one word.
const WORD: u16 = 64;
/// MSI-X has 2048 vectors at most.
const WORDS: usize = 32;
/// The two bits of the pin.
const LOW: u32 = 1;
const HIGH: u32 = 2;

/// The interrupt line of a device that was written for another VMM: what it is given in place of its own trigger.
///
/// A device of ours says within an access what it wants to interrupt with. Devices of others trigger an object of
/// theirs, from any thread, within an access or not. This is such an object: what was raised waits here until the model
/// takes it, after the access under way or, outside of one, by what the line was made with:
///
/// ```
/// use pcidevs::adapters::Interrupts;
/// use pcidevs::vpci::{Bus, Modelled, Wiring};
/// # fn with<D: Modelled + Send + 'static, W: Wiring + 'static>(bus: Bus<D, W>, at: pcidevs::Sbdf) -> Interrupts {
/// Interrupts::new(move |line| {
///     bus.signal(at, |signals| line.deliver(signals)).wait();
/// })
/// # }
/// ```
///
/// Within an access that does nothing, since the thread is inside the device already: a write takes what was raised
/// when the device has returned. A read cannot ask for anything, so what a device raises *because it is read* waits for
/// the next write or raise: such a device tells a thread of its own.
#[derive(Clone)]
pub struct Interrupts(Arc<Line>);

struct Line {
    /// One bit for each vector.
    vectors: [AtomicU64; WORDS],
    /// Which of the words may have bits.
    words: AtomicU32,
    pin: AtomicU32,
    tell: Tell,
}

type Tell = std::boxed::Box<dyn Fn(&Interrupts) + Send + Sync>;

impl Interrupts {
    /// A line with nothing raised. `tell` is called after each raise, on the thread that raises, and has the model call
    /// [`deliver`](Self::deliver).
    pub fn new(tell: impl Fn(&Self) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Line {
            vectors: [const { AtomicU64::new(0) }; WORDS],
            words: AtomicU32::new(0),
            pin: AtomicU32::new(0),
            tell: std::boxed::Box::new(tell),
        }))
    }

    /// Raises a vector. One raised again before it was taken is raised once, as a pending bit is.
    pub fn raise(&self, vector: u16) {
        let (word, bit) = (vector / WORD, vector % WORD);
        let Some(vectors) = self.0.vectors.get(usize::from(word)) else { return };
        // Release, both: pair with the Acquire swaps of `deliver`. The word first: who finds it marked finds its bits.
        vectors.fetch_or(1 << bit, Ordering::Release);
        self.0.words.fetch_or(1 << word, Ordering::Release);
        (self.0.tell)(self);
    }

    /// Sets the level of the pin. Only the last one set counts.
    pub fn set_pin(&self, level: Level) {
        let level = if level == Level::High { HIGH } else { LOW };
        // Release: pairs with the Acquire swap of `deliver`.
        self.0.pin.store(level, Ordering::Release);
        (self.0.tell)(self);
    }

    /// Hands what was raised to the model.
    pub fn deliver(&self, signals: &mut Signals<'_>) {
        let line = &*self.0;
        // Relaxed: a hint. Who raises later tells the model later.
        if line.pin.load(Ordering::Relaxed) != 0 {
            // Acquire: pairs with the store of `set_pin`.
            match line.pin.swap(0, Ordering::Acquire) {
                LOW => signals.set_intx(Level::Low),
                HIGH => signals.set_intx(Level::High),
                _ => {}
            }
        }
        if line.words.load(Ordering::Relaxed) == 0 {
            return;
        }
        // Acquire: pairs with `raise`. The marks first: bits set after this are marked again.
        let words = line.words.swap(0, Ordering::Acquire);
        for (number, word) in (0..).zip(&line.vectors).filter(|(number, _)| words & 1 << number != 0) {
            // Acquire: pairs with `raise`.
            let mut bits = word.swap(0, Ordering::Acquire);
            while bits != 0 {
                let vector = number * u32::from(WORD) + bits.trailing_zeros();
                bits &= bits - 1;
                if let Ok(vector) = u16::try_from(vector) {
                    signals.raise(vector);
                }
            }
        }
    }
}

impl core::fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Interrupts").finish_non_exhaustive()
    }
}
