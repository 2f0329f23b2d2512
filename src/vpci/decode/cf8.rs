//! The two I/O ports of conventional configuration access (PCI 3.0 §3.2.2.3.2): an address at CF8, data at CFC.

use crate::address::{Bus, DevFn, Sbdf, Segment};
use crate::platform::Width;

/// The address port.
pub const ADDRESS_PORT: u16 = 0xcf8;
/// The data port, 4 bytes.
pub const DATA_PORT: u16 = 0xcfc;

const ENABLE: u32 = 1 << 31;

/// Whether bits 27:24 of the address are bits 11:8 of the register number, as some chipsets have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExtendedRegisters {
    /// They are reserved: 256 bytes can be reached.
    #[default]
    Absent,
    /// All 4096 bytes can be reached.
    Present,
}

/// The address port of one vCPU's guest, as it was written last.
///
/// The embedder keeps it: a guest has one, and its vCPUs take turns by its own lock. It is data, so it can be saved.
///
/// ```
/// use pcidevs::platform::Width;
/// use pcidevs::vpci::AddressPort;
/// let mut port = AddressPort::default();
/// port.write(0, Width::Dword, 0x8001_0810);
/// let (function, offset, width) = port.locate(2, 2).ok_or("a configuration cycle")?;
/// assert_eq!((function.to_string().as_str(), offset, width), ("0000:01:01.0", 0x12, Width::Word));
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressPort {
    address: u32,
    extended: ExtendedRegisters,
}

impl AddressPort {
    /// A port that was not written yet.
    pub const fn new(extended: ExtendedRegisters) -> Self {
        Self { address: 0, extended }
    }

    /// A port that was written with this last.
    pub const fn holding(address: u32, extended: ExtendedRegisters) -> Self {
        Self { address, extended }
    }

    /// A write to ports `CF8 + offset`. Only one of 4 bytes at CF8 itself is for this port; `false` for others, which
    /// are for whoever has these ports besides (the reset port, at CF9).
    pub const fn write(&mut self, offset: u16, width: Width, value: u32) -> bool {
        let is_ours = offset == 0 && matches!(width, Width::Dword);
        if is_ours {
            self.address = value;
        }
        is_ours
    }

    /// A read of ports `CF8 + offset`; `None` if it is not for this port.
    pub const fn read(&self, offset: u16, width: Width) -> Option<u32> {
        if offset == 0 && matches!(width, Width::Dword) { Some(self.address) } else { None }
    }

    /// Which function, offset and width an access to ports `CFC + offset` is. `None` if it is no configuration cycle:
    /// it is not enabled, not aligned, or goes beyond the 4 bytes. It reads as ones and writes nothing.
    #[inline]
    pub const fn locate(&self, offset: u16, length: usize) -> Option<(Sbdf, u16, Width)> {
        let width = match length {
            1 => Width::Byte,
            2 => Width::Word,
            4 => Width::Dword,
            _ => return None,
        };
        if self.address & ENABLE == 0 || offset > 3 || !(offset as usize).is_multiple_of(length) {
            return None;
        }
        let [register, devfn, bus, high] = self.address.to_le_bytes();
        let high = match self.extended {
            ExtendedRegisters::Absent => 0,
            ExtendedRegisters::Present => high & 0xf,
        };
        let function = Sbdf::new(Segment::new(0), Bus::new(bus), DevFn::from_bits(devfn));
        // The address names a dword.
        Some((function, u16::from_le_bytes([register & !3, high]) + offset, width))
    }
}
