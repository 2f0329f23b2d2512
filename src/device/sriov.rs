//! SR-IOV: one physical function (PF) that shows many virtual ones (VFs) (PCIe 6.0 §9.3.3).
//!
//! A VF has no vendor and device of its own (both read `ffff`) and no BARs; its PF's capability says what it is,
//! where it is and how large its BARs are. Offset and stride hold for the current `NumVFs` and ARI setting only,
//! so an [`SrIov`] is a snapshot, read again after either changes.

use super::config::ConfigSpace;
use super::extended;
use crate::address::Sbdf;

/// The extended capability's ID.
pub const SRIOV_CAPABILITY: u16 = 0x0010;

const CONTROL: usize = 0x08;
const INITIAL_VFS: usize = 0x0c;
const TOTAL_VFS: usize = 0x0e;
const NUM_VFS: usize = 0x10;
const FIRST_OFFSET: usize = 0x14;
const STRIDE: usize = 0x16;
const VF_DEVICE: usize = 0x1a;
const VF_BARS: usize = 0x24;
const CONTROL_VF_ENABLE: u16 = 1 << 0;
const CONTROL_VF_MEMORY: u16 = 1 << 3;
const CONTROL_ARI_HIERARCHY: u16 = 1 << 4;

/// How many BAR slots a VF has.
pub const VF_BAR_SLOTS: usize = 6;

/// A PF's SR-IOV capability as it reads now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SrIov {
    /// Where the capability stands, in bytes.
    pub offset: u16,
    /// VF Enable: the VFs exist.
    pub vf_enable: bool,
    /// VF MSE: the VFs answer memory accesses.
    pub vf_memory: bool,
    /// ARI Capable Hierarchy: VFs may use function numbers above 7. Meaningful in the lowest-numbered PF.
    pub ari_hierarchy: bool,
    /// `InitialVFs`.
    pub initial_vfs: u16,
    /// `TotalVFs`: the most the device can have.
    pub total_vfs: u16,
    /// `NumVFs`: how many software asked for.
    pub num_vfs: u16,
    /// First VF Offset: from the PF's requester ID to the first VF's.
    pub first_offset: u16,
    /// VF Stride: from one VF's requester ID to the next one's.
    pub stride: u16,
    /// The VFs' device ID; their vendor is the PF's.
    pub vf_device: u16,
    /// The six VF BAR slots.
    pub vf_bars: [VfBar; VF_BAR_SLOTS],
}

/// What a VF BAR slot holds (PCIe 6.0 §9.3.3.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VfBar {
    /// A 32-bit memory BAR. An unused slot reads the same; only sizing tells them apart.
    Memory32 {
        /// Whether reads have no side effects.
        prefetchable: bool,
    },
    /// The lower half of a 64-bit memory BAR; the next slot is its upper half.
    Memory64 {
        /// Whether reads have no side effects.
        prefetchable: bool,
    },
    /// The upper half of the BAR before.
    UpperHalf,
    /// Malformed: a 64-bit BAR in the last slot has no room for its upper half.
    NoUpperHalf,
    /// Malformed: an I/O BAR, which a VF cannot have.
    Io,
    /// Malformed: a reserved type.
    Reserved,
}

impl VfBar {
    /// Whether the slot breaks the standard and must not be sized or mapped.
    pub const fn is_malformed(self) -> bool {
        matches!(self, Self::NoUpperHalf | Self::Io | Self::Reserved)
    }
}

/// Why a VF has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VfAddressError {
    /// The index is not below `NumVFs`.
    #[error("{pf} has {num_vfs} virtual functions, none with index {index}")]
    NoSuchVf {
        /// The physical function.
        pf: Sbdf,
        /// The index asked for, from 0.
        index: u16,
        /// `NumVFs`.
        num_vfs: u16,
    },
    /// The address would lie past bus ff, the last of the segment.
    #[error("virtual function {index} of {pf} would lie past bus ff")]
    PastLastBus {
        /// The physical function.
        pf: Sbdf,
        /// The index asked for, from 0.
        index: u16,
    },
    /// First VF Offset is 0, or VF Stride is 0 with several VFs: the address is another function's.
    #[error("virtual function {index} of {pf} has another function's address: offset or stride is 0")]
    NotUnique {
        /// The physical function.
        pf: Sbdf,
        /// The index asked for, from 0.
        index: u16,
    },
}

impl SrIov {
    /// Reads the capability; `None` if the function has none or the record ends inside it. Does not allocate.
    pub fn read(config: ConfigSpace<'_>) -> Option<Self> {
        let offset = extended::find(config, SRIOV_CAPABILITY)?;
        let at = usize::from(offset);
        let control = config.u16(at + CONTROL)?;
        Some(Self {
            offset,
            vf_enable: control & CONTROL_VF_ENABLE != 0,
            vf_memory: control & CONTROL_VF_MEMORY != 0,
            ari_hierarchy: control & CONTROL_ARI_HIERARCHY != 0,
            initial_vfs: config.u16(at + INITIAL_VFS)?,
            total_vfs: config.u16(at + TOTAL_VFS)?,
            num_vfs: config.u16(at + NUM_VFS)?,
            first_offset: config.u16(at + FIRST_OFFSET)?,
            stride: config.u16(at + STRIDE)?,
            vf_device: config.u16(at + VF_DEVICE)?,
            vf_bars: read_bars(config, at + VF_BARS)?,
        })
    }

    /// How many VFs exist now: `NumVFs` while VF Enable is set, else none.
    pub const fn enabled_vfs(&self) -> u16 {
        if self.vf_enable { self.num_vfs } else { 0 }
    }

    /// Whether the VF BARs may be sized: only while VF Enable and VF MSE are both clear, since sizing writes them.
    pub const fn may_size_bars(&self) -> bool {
        !self.vf_enable && !self.vf_memory
    }

    /// The address of the VF with this index, counted from 0: PF + First VF Offset + index × VF Stride
    /// (PCIe 6.0 §9.2.1.2). It may lie on a later bus than the PF.
    pub const fn vf_address(&self, pf: Sbdf, index: u16) -> Result<Sbdf, VfAddressError> {
        if index >= self.num_vfs {
            return Err(VfAddressError::NoSuchVf { pf, index, num_vfs: self.num_vfs });
        }
        if self.first_offset == 0 || (self.stride == 0 && self.num_vfs > 1) {
            return Err(VfAddressError::NotUnique { pf, index });
        }
        // At most ffff + ffff + ffff × ffff, which is exactly 32 bits.
        let id = pf.bdf() as u32 + self.first_offset as u32 + index as u32 * self.stride as u32;
        if id > 0xffff {
            return Err(VfAddressError::PastLastBus { pf, index });
        }
        let [_, _, bus, devfn] = id.to_be_bytes();
        Ok(Sbdf::from_bdf(pf.segment(), u16::from_be_bytes([bus, devfn])))
    }

    /// The addresses of all `NumVFs` virtual functions, in index order.
    pub fn vf_addresses(&self, pf: Sbdf) -> impl Iterator<Item = Result<Sbdf, VfAddressError>> {
        let this = *self;
        (0..self.num_vfs).map(move |index| this.vf_address(pf, index))
    }
}

fn read_bars(config: ConfigSpace<'_>, at: usize) -> Option<[VfBar; VF_BAR_SLOTS]> {
    let mut bars = [VfBar::UpperHalf; VF_BAR_SLOTS];
    let mut slot = 0;
    while slot < VF_BAR_SLOTS {
        let register = config.u32(at + 4 * slot)?;
        let prefetchable = register & 8 != 0;
        bars[slot] = match (register & 1, register >> 1 & 3) {
            (1, _) => VfBar::Io,
            (_, 0) => VfBar::Memory32 { prefetchable },
            (_, 2) if slot + 1 == VF_BAR_SLOTS => VfBar::NoUpperHalf,
            (_, 2) => VfBar::Memory64 { prefetchable },
            _ => VfBar::Reserved,
        };
        slot += if matches!(bars[slot], VfBar::Memory64 { .. }) { 2 } else { 1 };
    }
    config.u32(at + 4 * (VF_BAR_SLOTS - 1))?;
    Some(bars)
}
