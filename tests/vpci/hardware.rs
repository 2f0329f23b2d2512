//! A function of hardware that never was: its configuration space with the bits that can be written, its BARs, and notes
//! of what was done to it.

use std::sync::{Arc, Mutex};

use pcidevs::platform::Width;
use pcidevs::vpci::{Backing, Signals};

use crate::recordings::Config;

pub(crate) const COMMAND: u16 = 4;
pub(crate) const BAR0: u16 = 0x10;

/// A way to the hardware; the test keeps another.
#[derive(Clone)]
pub(crate) struct Hardware(Arc<Mutex<Registers>>);

struct Registers {
    bytes: Vec<u8>,
    /// The bits that can be written.
    writable: Vec<u8>,
    /// Control registers of resizable BARs, and the registers of those BARs.
    resizable: Vec<(u16, u16)>,
    story: Vec<String>,
    panics: bool,
}

impl Hardware {
    pub(crate) fn new(config: &Config) -> Self {
        let bytes = config.0.clone();
        let writable = vec![0; bytes.len()];
        let registers =
            Registers { bytes, writable, resizable: Vec::new(), story: Vec::new(), panics: false };
        Self(Arc::new(Mutex::new(registers))).writable(COMMAND, Width::Word, 0x0547)
    }

    /// These bits can be written.
    pub(crate) fn writable(self, offset: u16, width: Width, bits: u32) -> Self {
        let at = usize::from(offset);
        self.0.lock().unwrap().writable[at..at + width as usize]
            .copy_from_slice(&bits.to_le_bytes()[..width as usize]);
        self
    }

    /// The BAR whose register is here has this size; two registers if it is a 64-bit one.
    pub(crate) fn bar(self, register: u16, size: u64) -> Self {
        let is_64 = self.peek(register, Width::Dword) & 7 == 4;
        let low = if self.peek(register, Width::Dword) & 1 == 1 { !3 } else { !0xf };
        let mask = !(size - 1);
        let hardware = self.writable(register, Width::Dword, low_half(mask) & low);
        if is_64 { hardware.writable(register + 4, Width::Dword, low_half(mask >> 32)) } else { hardware }
    }

    /// The expansion ROM has this size.
    pub(crate) fn rom(self, register: u16, size: u32) -> Self {
        self.writable(register, Width::Dword, !(size - 1) | 1)
    }

    /// The control register of the resizable BAR whose register is there.
    pub(crate) fn resizes(self, control: u16, register: u16) -> Self {
        self.0.lock().unwrap().resizable.push((control, register));
        self.writable(control, Width::Dword, 0x3f00)
    }

    /// From now on every access panics.
    pub(crate) fn panics(&self) {
        self.0.lock().unwrap().panics = true;
    }

    /// What hardware holds, without a trace.
    pub(crate) fn peek(&self, offset: u16, width: Width) -> u32 {
        self.0.lock().unwrap().read(offset, width)
    }

    pub(crate) fn poke(&self, offset: u16, width: Width, value: u32) {
        let at = usize::from(offset);
        self.0.lock().unwrap().bytes[at..at + width as usize]
            .copy_from_slice(&value.to_le_bytes()[..width as usize]);
    }

    /// What was written, and done to its BARs, since this was last asked.
    pub(crate) fn story(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().story)
    }
}

impl Registers {
    fn read(&self, offset: u16, width: Width) -> u32 {
        let byte = |offset: u16| u32::from(self.bytes.get(usize::from(offset)).copied().unwrap_or(0xff));
        (0..width as u16).map(|index| byte(offset + index) << (8 * index)).sum()
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        self.story.push(format!("write {} at {offset:#x} = {value:#x}", width as u16));
        let places = self.bytes.iter_mut().zip(&self.writable).skip(offset.into());
        for ((byte, writable), value) in places.zip(value.to_le_bytes()).take(width as usize) {
            *byte = *byte & !writable | value & writable;
        }
        let resized = self.resizable.iter().find(|(control, _)| *control == offset).copied();
        if let Some((control, register)) = resized {
            self.resize(control, register.into());
        }
    }

    fn resize(&mut self, control: u16, register: usize) {
        let size = 1_u64 << (20 + (self.read(control, Width::Dword) >> 8 & 0x3f));
        let mask = (!(size - 1)).to_le_bytes();
        let is_64 = self.bytes[register] & 7 == 4;
        for (index, mask) in mask.into_iter().take(if is_64 { 8 } else { 4 }).enumerate() {
            let flags = if index == 0 { 0xf } else { 0 };
            self.writable[register + index] = mask & !flags;
            self.bytes[register + index] &= mask | flags;
        }
    }
}

impl Backing for Hardware {
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        let mut registers = self.0.lock().unwrap();
        registers.story.push(format!("read {} of BAR {bar} at {offset:#x}", data.len()));
        data.fill(0x5a);
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], _: &mut Signals<'_>) {
        let mut registers = self.0.lock().unwrap();
        registers.story.push(format!("write {} of BAR {bar} at {offset:#x}", data.len()));
    }

    fn config_read(&mut self, offset: u16, width: Width) -> u32 {
        let panics = self.0.lock().unwrap().panics;
        assert!(!panics, "hardware that panics");
        assert!(offset.is_multiple_of(width as u16) && offset < 4096, "{offset:#x}");
        self.peek(offset, width)
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) {
        assert!(offset.is_multiple_of(width as u16) && offset < 4096, "{offset:#x}");
        self.0.lock().unwrap().write(offset, width, value);
    }
}

fn low_half(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap()
}
