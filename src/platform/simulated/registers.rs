//! The configuration space of one function, as dwords that threads may read and write without a lock.
//!
//! Every access is naturally aligned and at most a dword wide, so it is one access of one atomic. A register keeps
//! what was written to it, apart from those that a device's identity hangs on.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use super::bar::{BARS, BarBits};
use super::places::{or_new, try_fill};
use crate::device::{
    ConfigSpace, EXTENDED_START, FULL_SIZE, SRIOV_CAPABILITY, find_capability, find_extended_capability,
};
use crate::memory::{NoMemory, try_box};
use crate::platform::{Switch, Width};

const LOW_DWORDS: usize = EXTENDED_START / 4;
const EXTENDED_DWORDS: usize = (FULL_SIZE - EXTENDED_START) / 4;

const COMMAND_STATUS: usize = 1;
const COMMAND: u32 = 0xffff;
const BUS_MASTER: u32 = 1 << 2;

const FIRST_BAR: u16 = 0x10;
const FIRST_EXTENDED: u16 = 0x100;
/// From the SR-IOV capability to its VF BARs (PCIe 6.0 §9.3.3.14).
const VF_BARS: u16 = 0x24;

const MSI: u8 = 0x05;
const MSIX: u8 = 0x11;
const ATS: u16 = 0x000f;
/// The enable bit of MSI and that of MSI-X, each in the upper half of the capability's first dword.
const MSI_ENABLE: u32 = 1 << 16;
const MSIX_ENABLE: u32 = 1 << 31;
/// The enable bit of ATS, in the upper half of the capability's second dword (PCIe 6.0 §10.5.1.3).
const ATS_ENABLE: u32 = 1 << 31;

/// What a configuration space holds. An offset of 0 stands for a capability the function does not have.
#[derive(Debug)]
pub(super) struct Registers {
    low: [AtomicU32; LOW_DWORDS],
    extended: OnceLock<Box<[AtomicU32]>>,
    length: AtomicU16,
    msi: AtomicU16,
    msix: AtomicU16,
    ats: AtomicU16,
    sriov: AtomicU16,
    /// The bits of the BARs, and of the VF BARs, that a write does not change: what tells their size.
    bars: [AtomicU32; BARS],
    vf_bars: [AtomicU32; BARS],
}

impl Registers {
    pub(super) fn try_new() -> Result<Box<Self>, NoMemory> {
        try_box(Self {
            low: [const { AtomicU32::new(u32::MAX) }; LOW_DWORDS],
            extended: OnceLock::new(),
            length: AtomicU16::new(0),
            msi: AtomicU16::new(0),
            msix: AtomicU16::new(0),
            ats: AtomicU16::new(0),
            sriov: AtomicU16::new(0),
            bars: [const { AtomicU32::new(0) }; BARS],
            vf_bars: [const { AtomicU32::new(0) }; BARS],
        })
    }

    /// Takes over these bytes, at most 4096, and which bits of the BARs and VF BARs are fixed; whatever was here before is gone. The caller publishes the registers
    /// afterwards, or keeps others away.
    pub(super) fn fill(&self, bytes: &[u8], fixed: (&BarBits, &BarBits)) -> Result<(), NoMemory> {
        let config = ConfigSpace::new(bytes);
        let length = config.len().next_multiple_of(4);
        if length > EXTENDED_START {
            or_new(&self.extended, || try_fill(EXTENDED_DWORDS, || AtomicU32::new(u32::MAX)))?;
        }
        for (index, chunk) in config.bytes().chunks(4).enumerate() {
            let mut dword = [0xff; 4];
            dword[..chunk.len()].copy_from_slice(chunk);
            if let Some(register) = self.dword(index) {
                register.store(u32::from_le_bytes(dword), Ordering::Relaxed);
            }
        }
        self.length.store(u16::try_from(length).unwrap_or(u16::MAX), Ordering::Relaxed);
        self.find_capabilities(config);
        let places = self.bars.iter().chain(&self.vf_bars);
        let bits = fixed.0.iter().chain(fixed.1);
        places.zip(bits).for_each(|(place, bits)| place.store(*bits, Ordering::Relaxed));
        Ok(())
    }

    fn find_capabilities(&self, config: ConfigSpace<'_>) {
        let low = |id| find_capability(config, id).map_or(0, u16::from);
        let extended = |id| find_extended_capability(config, id).unwrap_or_default();
        self.msi.store(low(MSI), Ordering::Relaxed);
        self.msix.store(low(MSIX), Ordering::Relaxed);
        self.ats.store(extended(ATS), Ordering::Relaxed);
        self.sriov.store(extended(SRIOV_CAPABILITY), Ordering::Relaxed);
    }

    /// The bytes as they are now.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let dwords = usize::from(self.length.load(Ordering::Relaxed)) / 4;
        let dwords = (0..dwords).filter_map(|index| self.dword(index));
        dwords.flat_map(|register| register.load(Ordering::Relaxed).to_le_bytes()).collect()
    }

    /// Reads; all ones past the end.
    pub(super) fn read(&self, offset: u16, width: Width) -> u32 {
        let (shift, mask) = lane(offset, width);
        let value = self.at(offset).map_or(u32::MAX, |register| register.load(Ordering::Relaxed));
        value >> shift & mask
    }

    /// Writes; nothing past the end, and nothing where a register is read-only.
    pub(super) fn write(&self, offset: u16, width: Width, value: u32) {
        let (shift, mask) = lane(offset, width);
        let Some(register) = self.at(offset) else { return };
        let change = mask << shift & self.writable(offset);
        set(register, change, value << shift);
    }

    /// Whether bus mastering is on.
    pub(super) fn masters(&self) -> bool {
        self.low[COMMAND_STATUS].load(Ordering::Relaxed) & BUS_MASTER != 0
    }

    /// What a reset does to the registers a transition depends on: the command register is 0; MSI, MSI-X and ATS
    /// are off.
    pub(super) fn reset(&self) {
        set(&self.low[COMMAND_STATUS], COMMAND, 0);
        self.switch(&self.msi, 0, MSI_ENABLE, Switch::Off);
        self.switch(&self.msix, 0, MSIX_ENABLE, Switch::Off);
        self.set_ats(Switch::Off);
    }

    /// Whether the function has ATS.
    pub(super) fn has_ats(&self) -> bool {
        self.ats.load(Ordering::Relaxed) != 0
    }

    /// Whether ATS is on; `Off` for a function without.
    pub(super) fn ats(&self) -> Switch {
        let at = self.ats.load(Ordering::Relaxed);
        let control = if at == 0 { 0 } else { self.read(at + 4, Width::Dword) };
        if control & ATS_ENABLE == 0 { Switch::Off } else { Switch::On }
    }

    /// Switches ATS, if the function has it.
    pub(super) fn set_ats(&self, ats: Switch) {
        self.switch(&self.ats, 4, ATS_ENABLE, ats);
    }

    /// Sets or clears `bit` of the dword at `distance` from the capability at `place`, if there is one.
    fn switch(&self, place: &AtomicU16, distance: u16, bit: u32, to: Switch) {
        let at = place.load(Ordering::Relaxed);
        if at == 0 {
            return;
        }
        if let Some(register) = self.at(at + distance) {
            set(register, bit, if to == Switch::On { bit } else { 0 });
        }
    }

    /// The bits of the dword at `offset` that a write changes: not vendor, device, status, revision, class, header
    /// type, the capability pointer, and not what tells a BAR's size.
    fn writable(&self, offset: u16) -> u32 {
        match offset & !3 {
            0x00 | 0x08 | 0x34 => 0,
            0x04 => COMMAND,
            0x0c => 0xff00_ffff,
            other => !self.fixed_bar_bits(other),
        }
    }

    fn fixed_bar_bits(&self, offset: u16) -> u32 {
        let sriov = self.sriov.load(Ordering::Relaxed);
        let (bars, first) =
            if offset < FIRST_EXTENDED { (&self.bars, FIRST_BAR) } else { (&self.vf_bars, sriov + VF_BARS) };
        let bar = offset.checked_sub(first).and_then(|distance| bars.get(usize::from(distance / 4)));
        bar.map_or(0, |bits| bits.load(Ordering::Relaxed))
    }

    /// The dword at this offset, if the configuration space reaches that far.
    fn at(&self, offset: u16) -> Option<&AtomicU32> {
        if offset < self.length.load(Ordering::Relaxed) { self.dword(usize::from(offset) / 4) } else { None }
    }

    fn dword(&self, index: usize) -> Option<&AtomicU32> {
        match index.checked_sub(LOW_DWORDS) {
            None => self.low.get(index),
            Some(index) => self.extended.get()?.get(index),
        }
    }
}

/// Replaces the bits of `mask`.
fn set(register: &AtomicU32, mask: u32, value: u32) {
    let merged = |old: u32| old & !mask | value & mask;
    let mut old = register.load(Ordering::Relaxed);
    // A transition mostly writes what is there; then no other processor's copy of the line need go.
    while merged(old) != old {
        match register.compare_exchange_weak(old, merged(old), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => old = now,
        }
    }
}

/// Where an access lies in its dword: how far from bit 0, and which bits.
const fn lane(offset: u16, width: Width) -> (u32, u32) {
    let mask = match width {
        Width::Byte => 0xff,
        Width::Word => 0xffff,
        Width::Dword => u32::MAX,
    };
    (8 * (offset as u32 & 3), mask)
}
