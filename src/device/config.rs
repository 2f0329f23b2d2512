//! Checked reads of a function's configuration space.

/// The size of a PCI Express function's configuration space, in bytes (PCIe 6.0 §7.2).
pub const FULL_SIZE: usize = 4096;

/// Where the extended configuration space begins, in bytes (PCIe 6.0 §7.2.2).
pub const EXTENDED_START: usize = 0x100;

/// The size of the header every function has, in bytes (PCIe 6.0 §7.5.1).
pub const HEADER_SIZE: usize = 0x40;

/// A recorded configuration space: as many bytes as could be read, from offset 0.
///
/// 64 bytes is what an unprivileged process gets, 256 what conventional PCI has, 4096 what PCI Express has. Any
/// length is valid; bytes beyond 4096 are ignored. Numbers are little-endian, as on the bus.
///
/// ```
/// use pcidevs::device::ConfigSpace;
/// let config = ConfigSpace::new(&[0x86, 0x80, 0xc0, 0x29]);
/// assert_eq!(config.u16(0), Some(0x8086));
/// assert_eq!(config.u16(3), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigSpace<'a>(&'a [u8]);

impl<'a> ConfigSpace<'a> {
    /// Wraps the bytes read, at most the first 4096 of them.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.get(..FULL_SIZE).unwrap_or(bytes))
    }

    /// The bytes that are known.
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// How many bytes are known, at most 4096.
    pub const fn len(self) -> usize {
        self.0.len()
    }

    /// Whether nothing at all is known.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The byte at `offset`, `None` past the end.
    pub fn u8(self, offset: usize) -> Option<u8> {
        self.0.get(offset).copied()
    }

    /// The 16-bit number at `offset`, `None` if any of it lies past the end. No alignment is required.
    pub fn u16(self, offset: usize) -> Option<u16> {
        self.array(offset).map(u16::from_le_bytes)
    }

    /// The 32-bit number at `offset`, `None` if any of it lies past the end. No alignment is required.
    pub fn u32(self, offset: usize) -> Option<u32> {
        self.array(offset).map(u32::from_le_bytes)
    }

    fn array<const N: usize>(self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk().copied()
    }

    /// Whether every known byte is ones: what the bus answers for a function that is absent or dead.
    ///
    /// A virtual function is not dead: only its vendor and device read `ffff`. An empty record is not dead either.
    pub fn is_dead(self) -> bool {
        !self.is_empty() && self.0.iter().all(|byte| *byte == 0xff)
    }

    /// Whether there is an extended configuration space behind the first 256 bytes.
    ///
    /// There is none if the record ends before its first header, if that header reads all ones, or if the space
    /// aliases: behind some bridges every 256 bytes repeat the first 256. As in Linux and Xen an alias is told by
    /// the first register alone, since others may change between two reads.
    pub fn has_extended(self) -> bool {
        let (Some(first), Some(extended)) = (self.u32(0), self.u32(EXTENDED_START)) else { return false };
        let aliases =
            || (EXTENDED_START..FULL_SIZE).step_by(0x100).map_while(|at| self.u32(at)).all(|it| it == first);
        extended != u32::MAX && !aliases()
    }
}
