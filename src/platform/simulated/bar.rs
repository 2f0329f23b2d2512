//! Base address registers: what tells their size.
//!
//! Software writes ones to a BAR and reads which stick. Those that do not are the type, and the address bits below
//! the size (PCIe 6.0 §7.5.1.2.1); an unused BAR keeps none.

/// How many BAR slots a function has, and a virtual one.
pub(super) const BARS: usize = 6;

/// For each BAR slot, the bits that cannot be written.
pub(super) type BarBits = [u32; BARS];

/// No slot is used.
pub(super) const NO_BARS: BarBits = [u32::MAX; BARS];

/// A base address register, by kind and size in bytes. Sizes are rounded up to a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// Memory below 4 GiB.
    Memory32(u32),
    /// Memory anywhere; takes two slots.
    Memory64(u64),
    /// I/O ports.
    Io(u32),
}

impl Bar {
    /// Puts it into a slot: its fixed bits into `bits`, and what each slot it takes reads at first into the answer.
    /// Nothing where there is no room.
    pub(super) fn put(self, slot: u8, bits: &mut BarBits) -> impl Iterator<Item = (usize, u32)> + use<> {
        let (slot, (first, second)) = (usize::from(slot), self.slots());
        let room = slot + usize::from(second.is_some()) < BARS;
        let taken = [Some(first), second].into_iter().flatten().filter(move |_| room);
        let taken = (slot..).zip(taken);
        for (slot, (_, fixed)) in taken.clone() {
            bits[slot] = fixed;
        }
        taken.map(|(slot, (value, _))| (slot, value))
    }

    /// What its one or two slots read at first, and which bits of them cannot be written.
    const fn slots(self) -> ((u32, u32), Option<(u32, u32)>) {
        match self {
            Self::Memory32(size) => ((0, below(size as u64, 16).0), None),
            Self::Memory64(size) => {
                let (low, high) = below(size, 16);
                ((4, low), Some((0, high)))
            }
            Self::Io(size) => ((1, below(size as u64, 4).0), None),
        }
    }
}

/// The bits below a size, at least `least`, as the lower and the upper half of a 64-bit register.
const fn below(size: u64, least: u64) -> (u32, u32) {
    let size = if size < least { least } else { size };
    let bits = match size.checked_next_power_of_two() {
        Some(size) => size - 1,
        None => u64::MAX,
    };
    let [b0, b1, b2, b3, b4, b5, b6, b7] = bits.to_le_bytes();
    (u32::from_le_bytes([b0, b1, b2, b3]), u32::from_le_bytes([b4, b5, b6, b7]))
}
