//! A function's state as bytes: for snapshots and migration.
//!
//! Only what a guest or a device can change is in it, not the shape: it goes back into a function built as the first
//! one was. So it says what shape it is of, and another one refuses it.
//!
//! | bytes | |
//! |---|---|
//! | 4 | `pciv` |
//! | 2 | the version of this table, 1 |
//! | 4 | a digest of the shape |
//! | | the state, field by field, numbers in little endian |
//! | 4 + n | what the device itself has added, and its length before it |

use alloc::vec::Vec;

use super::{ALL_BARS, Asked, Effect, Effects, Function, Model, State};
use crate::errno::Errno;
use crate::memory::NoMemory;
use crate::vpci::capability::Message;
use crate::vpci::capability::PowerState;

const MAGIC: [u8; 4] = *b"pciv";
const VERSION: u16 = 1;

/// A saved state does not fit. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// These bytes are no saved state, or not all of one (EINVAL).
    #[error("these bytes are not the whole state of a function")]
    Malformed,
    /// It was saved by a newer version of this crate (EOPNOTSUPP).
    #[error("the state is of version {0}, which is newer than this crate")]
    Version(u16),
    /// The function has other registers, BARs or vectors than the one that was saved (EINVAL).
    #[error("the state is of a function of another shape")]
    Shape,
    /// The device behind the model refused its part (EINVAL).
    #[error("the device behind the model refused its part of the state")]
    Device,
    /// BARs of it are mapped, so their addresses cannot change: restore into a function that nobody has used (EBUSY).
    #[error("BARs of the function are mapped")]
    Mapped,
    /// The function does not answer: its binding is at its end, or a handler of it has panicked (EIO).
    #[error("the function does not answer")]
    Silent,
}

impl RestoreError {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Malformed | Self::Shape | Self::Device => Errno::EINVAL,
            Self::Version(_) => Errno::EOPNOTSUPP,
            Self::Mapped => Errno::EBUSY,
            Self::Silent => Errno::EIO,
        }
    }
}

impl Function {
    /// Its state at this moment, as bytes. Effects that were asked for and not carried out are not lost: what they bring
    /// about follows from the state, but for a reset, which is in it.
    ///
    /// ```
    /// use pcidevs::platform::Width;
    /// # use pcidevs::vpci::{Backing, Bar, Endpoint, Function, Signals};
    /// # struct Nic;
    /// # impl Backing for Nic {
    /// #     fn bar_read(&mut self, _: u8, _: u64, _: &mut [u8]) {}
    /// #     fn bar_write(&mut self, _: u8, _: u64, _: &[u8], _: &mut Signals<'_>) {}
    /// # }
    /// let build = || Endpoint::new(0x1af4, 0x1041).bar(0, Bar::memory32(0x1000)).build(Nic);
    /// let (mut old, mut new) = (build()?, build()?);
    /// let _ = old.config_write(0x10, Width::Dword, 0xc000_0000);
    /// let asked = new.restore(&old.save()?)?;
    /// assert_eq!(new.config_read(0x10, Width::Dword), 0xc000_0000);
    /// # let _ = asked;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&self) -> Result<Vec<u8>, NoMemory> {
        let mut state = Vec::new();
        state.try_reserve(self.saved_length()).map_err(NoMemory::from)?;
        state.extend(MAGIC);
        state.extend(VERSION.to_le_bytes());
        state.extend(self.shape().to_le_bytes());
        self.space.values().for_each(|value| state.extend(value.to_le_bytes()));
        self.model.save(&mut state, self.queue.has(Effect::Reset));
        let mut own = Vec::new();
        self.model.backing.save(&mut own);
        let length = u32::try_from(own.len()).map_err(|_| NoMemory)?;
        state.try_reserve(own.len() + 4).map_err(NoMemory::from)?;
        state.extend(length.to_le_bytes());
        state.extend(own);
        Ok(state)
    }

    /// Takes a saved state, and asks for what brings the outside to it: see [`Bus::restore`](crate::vpci::Bus::restore).
    pub fn restore(&mut self, state: &[u8]) -> Result<Asked, RestoreError> {
        if self.state != State::ANSWERS {
            return Err(RestoreError::Silent);
        }
        if self.model.bars.mapped | self.model.bars.coming != 0 {
            return Err(RestoreError::Mapped);
        }
        let mut from = Reader(state);
        if from.take()? != MAGIC {
            return Err(RestoreError::Malformed);
        }
        let version = u16::from_le_bytes(from.take()?);
        if version > VERSION {
            return Err(RestoreError::Version(version));
        }
        if version == 0 {
            return Err(RestoreError::Malformed);
        }
        if u32::from_le_bytes(from.take()?) != self.shape() {
            return Err(RestoreError::Shape);
        }
        // The shape says how long each part is. All of them are there before the first is taken.
        let mut values = Reader(from.bytes(4 * self.space.values().count())?);
        let mut model = Reader(from.bytes(self.model.saved_length())?);
        let length = u32::from_le_bytes(from.take()?);
        let own = from.bytes(usize::try_from(length).map_err(|_| RestoreError::Malformed)?)?;
        if !from.0.is_empty() {
            return Err(RestoreError::Malformed);
        }
        let backing = &mut self.model.backing;
        match super::shielded(&mut self.state, || backing.restore(own)) {
            Some(true) => {}
            Some(false) => return Err(RestoreError::Device),
            None => return Err(RestoreError::Silent),
        }
        self.space.set_values(|| values.take().map(u32::from_le_bytes))?;
        let own = &mut *self.model;
        let was_master = own.command.is_master();
        // Hardware takes part in it.
        let restored = super::shielded(&mut self.state, || own.restore(&mut model));
        let is_to_be_reset = restored.ok_or(RestoreError::Silent)??;
        let all = Effects::from(Effect::Power).and(Effect::Decode).and(Effect::Vectors).and(Effect::Intx);
        let all = all.and_if(was_master || self.model.command.is_master(), Effect::BusMaster);
        let all = all.and_if(self.model.wishes != 0, Effect::Device).and_if(is_to_be_reset, Effect::Reset);
        Ok(self.queue.ask(Asked::NOTHING, all.and_if(self.model.is_bridge, Effect::Buses)))
    }

    fn saved_length(&self) -> usize {
        10 + 4 * self.space.values().count() + self.model.saved_length() + 4
    }

    /// A number that functions of another shape hardly have: FNV-1a over what is fixed.
    fn shape(&self) -> u32 {
        let mut digest = 0x811c_9dc5_u32;
        let mut add = |number: u64| {
            for byte in number.to_le_bytes() {
                digest = (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193);
            }
        };
        add(self.space.values().count() as u64);
        for (number, placed) in (1_u64..).zip(&self.model.bars.all) {
            let Some(placed) = placed else { continue };
            add(number);
            add(placed.bar.kind() as u64);
        }
        let (msi, msix) = self.model.interrupts.counts();
        add(msi as u64);
        add(msix as u64);
        digest
    }
}

/// Bytes of one BAR, of the fixed fields, and of one vector.
const BAR: usize = 16;
const FIXED: usize = 18;
const MSI: usize = 18;
const MSIX: usize = 2;
const VECTOR: usize = 13;

impl Model {
    fn saved_length(&self) -> usize {
        let (msi, msix) = self.interrupts.counts();
        let bars = self.bars.all.iter().flatten().count();
        let vectors = (msi + msix) * VECTOR;
        let of = |count: usize, length: usize| if count > 0 { length } else { 0 };
        FIXED + bars * BAR + of(msi, MSI) + of(msix, MSIX) + vectors
    }

    /// Appends the fields. There is room.
    fn save(&self, state: &mut Vec<u8>, is_to_be_reset: bool) {
        let flags = u8::from(self.bars.rom_enabled)
            | u8::from(self.power.state() == PowerState::D3hot) << 1
            | u8::from(self.interrupts.intx.is_pending) << 2
            | u8::from(is_to_be_reset) << 3;
        state.extend([self.command.lower, self.command.upper, flags]);
        state.extend(self.buses);
        state.extend(self.status.to_le_bytes());
        state.extend(self.device_control.to_le_bytes());
        state.extend(self.wishes.to_le_bytes());
        for placed in self.bars.all.iter().flatten() {
            state.extend(placed.address.to_le_bytes());
            state.extend(placed.bar.size().to_le_bytes());
        }
        self.interrupts.save(state);
    }

    /// Takes the fields, of which there are as many as there have to be. Whether the guest has asked for a reset.
    fn restore(&mut self, from: &mut Reader<'_>) -> Result<bool, RestoreError> {
        let [lower, upper, flags] = from.take()?;
        self.put_command(lower, upper);
        self.bars.rom_enabled = flags & 1 != 0;
        self.power.set(if flags & 2 != 0 { PowerState::D3hot } else { PowerState::D0 });
        self.interrupts.intx.is_pending = flags & 4 != 0;
        self.buses = from.take()?;
        self.status = u16::from_le_bytes(from.take()?);
        // The bit that asks for a reset always reads 0.
        self.device_control = u16::from_le_bytes(from.take()?) & 0x7fff;
        self.wishes = u64::from_le_bytes(from.take()?);
        for slot in 0..ALL_BARS {
            if self.bars.all[slot].is_none() {
                continue;
            }
            let (address, size) = (u64::from_le_bytes(from.take()?), u64::from_le_bytes(from.take()?));
            // Of a resizable BAR the size is state, as far as it is offered.
            self.resize(slot, size);
            if let Some(placed) = &mut self.bars.all[slot] {
                // Whatever the bytes say, a BAR lies at a multiple of its size.
                placed.address = address & !(placed.bar.size - 1);
            }
        }
        self.interrupts.restore(from)?;
        Ok(flags & 8 != 0)
    }
}

/// Bytes that are taken from the front.
pub(in crate::vpci) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], RestoreError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(RestoreError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub(in crate::vpci) fn take<const N: usize>(&mut self) -> Result<[u8; N], RestoreError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(RestoreError::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A message, as [`save_message`] wrote it.
    pub(in crate::vpci) fn message(&mut self) -> Result<Message, RestoreError> {
        Ok(Message { address: u64::from_le_bytes(self.take()?), data: u32::from_le_bytes(self.take()?) })
    }
}

/// Appends a message: 12 bytes.
pub(in crate::vpci) fn save_message(state: &mut Vec<u8>, message: Message) {
    state.extend(message.address.to_le_bytes());
    state.extend(message.data.to_le_bytes());
}
