//! SR-IOV, of which the host's writes go to the hardware and are noticed (PCIe 6.0 §9.3.3).
//!
//! Switching virtual functions on or off is an effect. They answer 100 ms later at the earliest, so adding them is the
//! wiring's; who and where they are the physical function says: [`Function::virtual_function`].
//!
//! [`Function::virtual_function`]: crate::vpci::Function::virtual_function

use alloc::boxed::Box;

use crate::device::{ConfigSpace, SrIov, VF_BAR_SLOTS};
use crate::memory::{NoMemory, try_box};
use crate::platform::Width;
use crate::vpci::function::{Bar, Effect, Effects, Model, join, size_bars};
use crate::vpci::registers::{At, Read, Register, Write};

pub(in crate::vpci) const ID: u16 = crate::device::SRIOV_CAPABILITY;
/// In bytes.
pub(in crate::vpci) const LENGTH: u16 = 0x40;

const CONTROL: u16 = 0x08;
const NUM_VFS: u16 = 0x10;
const PAGE_SIZE: u16 = 0x20;
const BARS: u16 = 0x24;

const ENABLE: u32 = 1 << 0;
const MEMORY: u32 = 1 << 3;
/// Below an address of a memory BAR.
const FLAGS: u64 = 0xf;

/// A virtual function, as its physical function describes it: what it cannot say itself, since its own IDs read `ffff`
/// and its BARs 0.
///
/// [`Function::virtual_function`](crate::vpci::Function::virtual_function) makes one; whoever knows the physical
/// function otherwise puts one together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualFunction {
    pub(in crate::vpci) vendor: u16,
    pub(in crate::vpci) device: u16,
    pub(in crate::vpci) bars: [Option<(Bar, u64)>; VF_BAR_SLOTS],
}

impl VirtualFunction {
    /// Without BARs. The vendor is the physical function's, the device is in its SR-IOV capability.
    pub const fn new(vendor: u16, device: u16) -> Self {
        Self { vendor, device, bars: [None; VF_BAR_SLOTS] }
    }

    /// A BAR in this slot, at this address of the host. A slot beyond 5 is none.
    #[must_use]
    pub fn bar(mut self, slot: u8, bar: Bar, address: u64) -> Self {
        if let Some(place) = self.bars.get_mut(usize::from(slot)) {
            *place = Some((bar, address));
        }
        self
    }

    /// Its vendor ID.
    pub const fn vendor(&self) -> u16 {
        self.vendor
    }

    /// Its device ID.
    pub const fn device(&self) -> u16 {
        self.device
    }

    /// Its BARs and their addresses, by slot.
    pub const fn bars(&self) -> &[Option<(Bar, u64)>; VF_BAR_SLOTS] {
        &self.bars
    }
}

/// A physical function's virtual ones.
#[derive(Clone, Copy, Debug)]
pub(in crate::vpci) struct Sriov {
    at: u16,
    vendor: u16,
    device: u16,
    total: u16,
    bars: [Option<Bar>; VF_BAR_SLOTS],
    /// The embedder has said what the BARs are; else they are sized.
    is_given: bool,
}

impl Sriov {
    /// The capability at this place, of a function of this vendor. `None` if it cannot be modelled: it breaks the
    /// standard, or virtual functions are enabled and nobody has said how large their BARs are.
    pub(in crate::vpci) fn new(
        config: ConfigSpace<'_>,
        at: u16,
        model: &mut Model,
        given: Option<[Option<Bar>; VF_BAR_SLOTS]>,
    ) -> Result<Option<Box<Self>>, NoMemory> {
        let is_right =
            |sriov: &SrIov| sriov.offset == at && !sriov.vf_bars.iter().any(|bar| bar.is_malformed());
        let (Some(sriov), Some(vendor)) = (SrIov::read(config).filter(is_right), config.u16(0)) else {
            return Ok(None);
        };
        let bars = match given {
            Some(given) => given,
            None if sriov.may_size_bars() => size_vf_bars(model, at),
            None => return Ok(None),
        };
        model.virtual_functions = sriov.enabled_vfs();
        let (device, total) = (sriov.vf_device, sriov.total_vfs);
        try_box(Self { at, vendor, device, total, bars, is_given: given.is_some() }).map(Some)
    }
}

/// The registers of a capability at this place that are seen to; the others are the hardware's.
pub(in crate::vpci) fn registers(at: u16) -> impl Iterator<Item = Register<Model, Effects>> {
    let register = move |offset: u16, width, write| {
        Register::new(at + offset, width, Read::Handler(read), Write::Handler(write)).tagged(width as u16)
    };
    let bars = (BARS..).step_by(4).take(VF_BAR_SLOTS);
    [
        register(CONTROL, Width::Word, write_control),
        register(NUM_VFS, Width::Word, write_num_vfs),
        register(PAGE_SIZE, Width::Dword, write_page_size),
    ]
    .into_iter()
    .chain(bars.map(move |offset| register(offset, Width::Dword, write_bar)))
}

/// Registers of one that cannot be modelled by which virtual functions would come.
pub(in crate::vpci) fn controls(at: u16) -> [u16; 2] {
    [at + CONTROL, at + NUM_VFS]
}

fn read(model: &mut Model, at: At) -> u32 {
    let width = if at.tag == Width::Word as u16 { Width::Word } else { Width::Dword };
    model.read_hardware(at.offset, width).unwrap_or(0)
}

fn write_control(model: &mut Model, at: At, value: u32) -> Option<Effects> {
    model.write_hardware(at.offset, Width::Word, value);
    let sriov = model.sriov.as_deref().copied()?;
    // What came of it the hardware says.
    let enabled = if model.sriov_control(&sriov) & ENABLE != 0 {
        model.read_hardware(sriov.at + NUM_VFS, Width::Word).unwrap_or(0)
    } else {
        0
    };
    let enabled = u16::try_from(enabled).unwrap_or_default().min(sriov.total);
    let before = core::mem::replace(&mut model.virtual_functions, enabled);
    Effects::default().and_if(before != enabled, Effect::VirtualFunctions).or_none()
}

fn write_num_vfs(model: &mut Model, at: At, value: u32) -> Option<Effects> {
    let sriov = model.sriov.as_deref().copied()?;
    // Both are undefined by PCIe 6.0 §9.3.3.7.
    if value <= sriov.total.into() && model.sriov_control(&sriov) & ENABLE == 0 {
        model.write_hardware(at.offset, Width::Word, value);
    }
    None
}

fn write_page_size(model: &mut Model, at: At, value: u32) -> Option<Effects> {
    let sriov = model.sriov.as_deref().copied()?;
    if model.sriov_control(&sriov) & (ENABLE | MEMORY) != 0 {
        return None;
    }
    model.write_hardware(at.offset, Width::Dword, value);
    if !sriov.is_given {
        // A BAR has a whole number of pages.
        let bars = size_vf_bars(model, sriov.at);
        model.sriov.as_mut()?.bars = bars;
    }
    None
}

fn write_bar(model: &mut Model, at: At, value: u32) -> Option<Effects> {
    let sriov = model.sriov.as_deref().copied()?;
    // Ignored while the virtual functions' BARs may be mapped.
    if model.sriov_control(&sriov) & (ENABLE | MEMORY) == 0 {
        model.write_hardware(at.offset, Width::Dword, value);
    }
    None
}

fn size_vf_bars(model: &mut Model, at: u16) -> [Option<Bar>; VF_BAR_SLOTS] {
    let [bars @ .., _] = size_bars(&mut *model.backing, at + BARS, 6);
    // A virtual function has no I/O.
    bars.map(|bar| bar.filter(|bar| !bar.is_io()))
}

impl Model {
    fn sriov_control(&mut self, sriov: &Sriov) -> u32 {
        self.read_hardware(sriov.at + CONTROL, Width::Word).unwrap_or(0)
    }

    /// The virtual function with this index, if it is enabled.
    pub(in crate::vpci) fn virtual_function(&mut self, index: u16) -> Option<VirtualFunction> {
        let sriov = self.sriov.as_deref().copied().filter(|_| index < self.virtual_functions)?;
        let mut function = VirtualFunction::new(sriov.vendor, sriov.device);
        let places = function.bars.iter_mut().zip(sriov.bars).zip((sriov.at + BARS..).step_by(4));
        for ((place, bar), register) in places {
            let Some(bar) = bar else { continue };
            let lower = self.read_hardware(register, Width::Dword)?;
            let upper = if bar.kind() == crate::vpci::function::BarKind::Memory64 {
                self.read_hardware(register + 4, Width::Dword)?
            } else {
                0
            };
            // The first one's; the others' follow it (PCIe 6.0 §9.2.1.1.1).
            let first = join(lower, upper) & !FLAGS;
            let address =
                u64::from(index).checked_mul(bar.size()).and_then(|offset| first.checked_add(offset))?;
            *place = Some((bar, address));
        }
        Some(function)
    }
}
