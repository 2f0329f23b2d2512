//! Devices that are all software: a description that becomes a correct function, or a reason why it cannot.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::backing::Backing;
use super::capability::{MsixPlace, chain, express, features, msi, msix, power, vendor};
use super::function::{self, Bar, BarFault, Effects, Function, Identity, Model, Placed, ROM, Rest, Viewer};
use super::registers::{RegisterError, Space};
use crate::device::{PortType, SubsystemId};
use crate::errno::Errno;
use crate::memory::{NoMemory, try_box};

/// Capabilities are between the header and the end of conventional space.
const FIRST: u16 = 0x40;
const END: u16 = 0x100;
/// Slots of a type 0 header.
const SLOTS: u8 = 6;
const ALL: usize = 7;

/// A device that is all software, described: what a guest finds in its configuration space.
///
/// Every mistake is kept until [`build`](Self::build), which says which rule is broken; so a description is one
/// expression.
///
/// ```
/// use pcidevs::vpci::{Backing, Bar, Endpoint, MsixPlace, Signals};
/// # struct Nic;
/// # impl Backing for Nic {
/// #     fn bar_read(&mut self, _: u8, _: u64, _: &mut [u8]) {}
/// #     fn bar_write(&mut self, _: u8, _: u64, _: &[u8], _: &mut Signals<'_>) {}
/// # }
/// let nic = Endpoint::new(0x1af4, 0x1041)
///     .class(0x02_0000)
///     .bar(0, Bar::memory64(0x4000))
///     .msix(3, MsixPlace { table_bar: 0, table: 0x2000, pending_bar: 0, pending: 0x3000 })
///     .function_level_reset()
///     .build(Nic)?;
/// # let _ = nic;
/// # Ok::<(), pcidevs::vpci::EndpointError>(())
/// ```
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says one thing of the device, and they are independent"
)]
pub struct Endpoint {
    identity: Identity,
    bars: [Option<Bar>; ALL],
    pin: u8,
    is_multifunction: bool,
    is_bridge: bool,
    msi: Option<(u8, bool)>,
    msix: Option<(u16, MsixPlace)>,
    express: Option<PortType>,
    resets: bool,
    has_power: bool,
    vendor: Vec<u8>,
    first_error: Option<EndpointError>,
}

impl Endpoint {
    /// A device with these IDs: a base peripheral without BARs or capabilities.
    pub const fn new(vendor: u16, device: u16) -> Self {
        let identity = Identity { vendor, device, class: 0x08_8000, revision: 0, subsystem: None };
        Self {
            identity,
            bars: [None; ALL],
            pin: 0,
            is_multifunction: false,
            is_bridge: false,
            msi: None,
            msix: None,
            express: None,
            resets: false,
            has_power: false,
            vendor: Vec::new(),
            first_error: None,
        }
    }

    /// An emulated root port, or a port of a switch: a type 1 header, whose bus numbers say what is behind it. See
    /// [`Bus::add_port`](super::Bus::add_port).
    pub const fn port(vendor: u16, device: u16, port: PortType) -> Self {
        let mut described = Self::new(vendor, device);
        described.identity.class = 0x06_0400;
        described.express = Some(port);
        described.is_bridge = true;
        described
    }

    /// Its class code: base class, sub-class and programming interface, 24 bits.
    #[must_use]
    pub fn class(mut self, class: u32) -> Self {
        self.refuse_if(class > 0xff_ffff, EndpointError::Class(class));
        self.identity.class = class;
        self
    }

    /// Its revision.
    #[must_use]
    pub const fn revision(mut self, revision: u8) -> Self {
        self.identity.revision = revision;
        self
    }

    /// Who built the board.
    #[must_use]
    pub const fn subsystem(mut self, vendor: u16, device: u16) -> Self {
        self.identity.subsystem = SubsystemId::new(vendor, device);
        self
    }

    /// It says that there are further functions beside it: function 0 of a device that has some.
    #[must_use]
    pub const fn multifunction(mut self) -> Self {
        self.is_multifunction = true;
        self
    }

    /// A BAR, in slot 0 to 5.
    #[must_use]
    pub fn bar(mut self, slot: u8, bar: Bar) -> Self {
        let is_taken = |slot: u8| {
            let own = self.bars.get(usize::from(slot)).is_some_and(Option::is_some);
            let before =
                slot.checked_sub(1).and_then(|before| self.bars.get(usize::from(before)).copied().flatten());
            own || before.is_some_and(|bar| bar.kind() == function::BarKind::Memory64)
        };
        let upper = (bar.kind() == function::BarKind::Memory64).then(|| slot.saturating_add(1));
        let fault = bar.fault(slot, self.slots()).or_else(|| {
            let taken = is_taken(slot) || upper.is_some_and(is_taken);
            taken.then_some(BarFault::SlotTaken)
        });
        match (fault, self.bars.get_mut(usize::from(slot))) {
            (None, Some(place)) => *place = Some(bar),
            (fault, _) => {
                let fault = fault.unwrap_or(BarFault::NoSuchSlot);
                self.refuse_if(true, EndpointError::Bar { bar: slot, fault });
            }
        }
        self
    }

    /// An expansion ROM of so many bytes: a power of two from 2 KiB to 16 MiB.
    #[must_use]
    pub fn rom(mut self, size: u32) -> Self {
        let rom = Bar::memory32(size);
        match rom.rom_fault() {
            None => self.bars[usize::from(ROM)] = Some(rom),
            Some(fault) => self.refuse_if(true, EndpointError::Bar { bar: ROM, fault }),
        }
        self
    }

    /// An interrupt pin: 1 to 4 for INTA to INTD.
    #[must_use]
    pub fn pin(mut self, pin: u8) -> Self {
        self.refuse_if(!(1..=4).contains(&pin), EndpointError::Pin(pin));
        self.pin = pin;
        self
    }

    /// MSI with up to `vectors` (1, 2, 4, 8, 16 or 32), each with a mask.
    #[must_use]
    pub fn msi(mut self, vectors: u8) -> Self {
        let is_possible = vectors.is_power_of_two() && vectors <= 32;
        self.refuse_if(!is_possible, EndpointError::MsiVectors(vectors));
        self.msi = Some((vectors, true));
        self
    }

    /// MSI-X with `vectors` (1 to 2048).
    #[must_use]
    pub fn msix(mut self, vectors: u16, place: MsixPlace) -> Self {
        self.msix = Some((vectors, place));
        self
    }

    /// It can be reset by itself: through the PCI Express capability if it has one, else through Advanced Features.
    #[must_use]
    pub const fn function_level_reset(mut self) -> Self {
        self.resets = true;
        self
    }

    /// It is a PCI Express device.
    #[must_use]
    pub const fn express(mut self, port: PortType) -> Self {
        self.express = Some(port);
        self
    }

    /// It can be put to D3hot, and keeps its state there.
    #[must_use]
    pub const fn power_management(mut self) -> Self {
        self.has_power = true;
        self
    }

    /// A vendor-specific capability of `length` bytes in all (from 3). What follows the third the device answers for in
    /// [`Backing::config_read`] and [`Backing::config_write`]. There may be several.
    #[must_use]
    pub fn vendor_capability(mut self, length: u8) -> Self {
        self.refuse_if(length < 3, EndpointError::VendorCapability(length));
        if self.vendor.try_reserve(1).is_ok() {
            self.vendor.push(length);
        } else {
            self.refuse_if(true, NoMemory.into());
        }
        self
    }

    /// Where the capabilities will be: their IDs and offsets, in the order in which they are listed. A device needs to
    /// know where its own are.
    pub fn capabilities(&self) -> impl Iterator<Item = (u8, u16)> {
        let mut next = FIRST;
        self.parts().map(move |(id, length)| {
            let at = next;
            next = after(next, length);
            (id, at)
        })
    }

    /// The function, for a guest.
    pub fn build(self, device: impl Backing + 'static) -> Result<Function, EndpointError> {
        if let Some(error) = self.first_error {
            return Err(error);
        }
        self.check_msix()?;
        let end = self.parts().fold(FIRST, |at, (_, length)| after(at, length));
        if end > END {
            return Err(EndpointError::NoRoom { needed: end - FIRST });
        }
        let backing: Box<dyn Backing> = try_box(device)?;
        let mut model = try_box(Model::new(backing, Viewer::Guest))?;
        let mut space = Space::new()?;
        let rest = Rest { is_multifunction: self.is_multifunction, is_bridge: self.is_bridge, pin: self.pin };
        let has_capabilities = self.parts().next().is_some();
        add_all(&mut space, function::header_registers(&self.identity, rest))?;
        add_all(&mut space, function::command_registers(has_capabilities))?;
        self.add_bars(&mut space, &mut model)?;
        self.add_capabilities(&mut space, &mut model)?;
        chain::link_extended(&mut space, &[])?;
        // What is between the registers of a device that is all software is reserved, and reads 0.
        model.has_zero_gaps = true;
        model.is_bridge = self.is_bridge;
        Ok(Function::new(space, model))
    }

    /// Slots for BARs.
    const fn slots(&self) -> u8 {
        if self.is_bridge { 2 } else { SLOTS }
    }

    fn add_bars(&self, space: &mut Space<Model, Effects>, model: &mut Model) -> Result<(), EndpointError> {
        let mut slot = 0;
        while slot < self.slots() {
            let Some(bar) = self.bars[usize::from(slot)] else {
                space.add(function::unused_bar(slot))?;
                slot += 1;
                continue;
            };
            for register in function::bar_registers(slot, bar) {
                space.add(register)?;
                slot += 1;
            }
        }
        space.add(function::rom_register(self.is_bridge, self.bars[usize::from(ROM)]))?;
        for (place, bar) in model.bars.all.iter_mut().zip(self.bars) {
            *place = bar.map(|bar| Placed::at(bar, 0));
        }
        Ok(())
    }

    fn add_capabilities(
        &self,
        space: &mut Space<Model, Effects>,
        model: &mut Model,
    ) -> Result<(), EndpointError> {
        let mut shown = Vec::new();
        shown.try_reserve_exact(self.parts().count()).map_err(NoMemory::from)?;
        let mut vendor = self.vendor.iter();
        for (id, at) in self.capabilities() {
            let low = u8::try_from(at).map_err(|_| EndpointError::NoRoom { needed: at })?;
            shown.push(chain::Shown { at: low, id });
            match (id, self.msi, self.msix, self.express) {
                (power::ID, ..) => add_all(space, power::registers(at))?,
                (msi::ID, Some((vectors, masks)), ..) => {
                    let msi = msi::Msi::new(vectors, true, masks)?;
                    add_all(space, msi.registers(at))?;
                    model.interrupts.msi = Some(msi);
                }
                (msix::ID, _, Some((vectors, place)), _) => {
                    let msix = try_box(msix::Msix::new(vectors, place)?)?;
                    add_all(space, msix.registers(at))?;
                    model.interrupts.msix = Some(msix);
                }
                (express::ID, .., Some(port)) => {
                    add_all(
                        space,
                        express::registers(at, express::Shape::of(port, self.resets), express::LENGTH),
                    )?;
                }
                (features::ID, ..) => add_all(space, features::registers(at))?,
                (vendor::ID, ..) => {
                    let length = vendor.next().copied().unwrap_or_default();
                    add_all(space, vendor::registers(at, length))?;
                }
                _ => {}
            }
        }
        Ok(chain::link(space, &shown)?)
    }

    /// The capabilities in order, with their lengths.
    fn parts(&self) -> impl Iterator<Item = (u8, u16)> {
        let has_features = self.resets && self.express.is_none();
        [
            self.has_power.then_some((power::ID, power::LENGTH)),
            self.express.map(|_| (express::ID, express::LENGTH)),
            self.msi.map(|(_, masks)| (msi::ID, msi::Msi::length(true, masks))),
            self.msix.map(|_| (msix::ID, msix::LENGTH)),
            has_features.then_some((features::ID, features::LENGTH)),
        ]
        .into_iter()
        .flatten()
        .chain(self.vendor.iter().map(|length| (vendor::ID, u16::from(*length))))
    }

    fn check_msix(&self) -> Result<(), EndpointError> {
        let Some((vectors, place)) = self.msix else { return Ok(()) };
        check_msix(vectors, &place, |bar| {
            self.bars.get(usize::from(bar)).copied().flatten().filter(|_| bar < SLOTS)
        })
    }

    fn refuse_if(&mut self, is_so: bool, error: EndpointError) {
        if is_so {
            self.first_error.get_or_insert(error);
        }
    }
}

/// Where the next capability is. Any number of them may be asked for: beyond what there is room for all ends.
fn after(at: u16, length: u16) -> u16 {
    at.saturating_add(length).min(u16::MAX - 3).next_multiple_of(4)
}

/// Whether MSI-X can be so.
pub(super) fn check_msix(
    vectors: u16,
    place: &MsixPlace,
    bar: impl Fn(u8) -> Option<Bar>,
) -> Result<(), EndpointError> {
    let refused = |fault| Err(EndpointError::Msix(fault));
    if vectors == 0 || vectors > msix::MOST {
        return refused(MsixFault::Vectors);
    }
    if !place.table.is_multiple_of(8) || !place.pending.is_multiple_of(8) {
        return refused(MsixFault::Misaligned);
    }
    let (table, pending) = (msix::Msix::table(vectors, place), msix::Msix::pending(vectors, place));
    for (number, part) in [(place.table_bar, &table), (place.pending_bar, &pending)] {
        match bar(number) {
            Some(bar) if !bar.is_io() && part.end <= bar.size() => {}
            Some(bar) if !bar.is_io() => return refused(MsixFault::Outside),
            _ => return refused(MsixFault::NoMemoryBar),
        }
    }
    if place.table_bar == place.pending_bar && table.start < pending.end && pending.start < table.end {
        return refused(MsixFault::Overlap);
    }
    Ok(())
}

pub(super) fn add_all(
    space: &mut Space<Model, Effects>,
    registers: impl IntoIterator<Item = super::registers::Register<Model, Effects>>,
) -> Result<(), RegisterError> {
    registers.into_iter().try_for_each(|register| space.add(register))
}

/// There can be no such device. Nothing was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// A class code has 24 bits (EINVAL).
    #[error("class {0:#x} has more than 24 bits (PCIe 6.0 §7.5.1.1.6)")]
    Class(u32),
    /// A BAR breaks a rule (EINVAL).
    #[error("BAR {bar}: {fault}")]
    Bar {
        /// Its slot; 6 is the ROM.
        bar: u8,
        /// Which rule.
        fault: BarFault,
    },
    /// Pins are 1 to 4 (EINVAL).
    #[error("there is no interrupt pin {0} (PCIe 6.0 §7.5.1.1.13)")]
    Pin(u8),
    /// MSI has 1, 2, 4, 8, 16 or 32 vectors (EINVAL).
    #[error("MSI cannot have {0} vectors (PCIe 6.0 §7.7.1.2)")]
    MsiVectors(u8),
    /// MSI-X breaks a rule (EINVAL).
    #[error("MSI-X: {0} (PCIe 6.0 §7.7.2)")]
    Msix(MsixFault),
    /// A vendor-specific capability has 3 bytes at least (EINVAL).
    #[error("a vendor-specific capability cannot have {0} bytes (PCIe 6.0 §7.9.4)")]
    VendorCapability(u8),
    /// The capabilities do not fit between 40 and 100 (ENOSPC).
    #[error("the capabilities need {needed} bytes, and there are 192")]
    NoRoom {
        /// In bytes.
        needed: u16,
    },
    /// Registers of its own cannot be (EINVAL, EEXIST).
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// There is no memory for it (ENOMEM).
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

/// Which rule an MSI-X capability breaks (PCIe 6.0 §7.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MsixFault {
    /// It has 1 to 2048 vectors.
    #[error("there are 1 to 2048 vectors")]
    Vectors,
    /// Table and pending bits begin at multiples of 8.
    #[error("the table or the pending bits do not begin at a multiple of 8")]
    Misaligned,
    /// Table and pending bits lie in memory BARs.
    #[error("the table or the pending bits do not lie in a memory BAR")]
    NoMemoryBar,
    /// They end within their BARs.
    #[error("the table or the pending bits end beyond their BAR")]
    Outside,
    /// They do not overlap.
    #[error("the table and the pending bits overlap")]
    Overlap,
}

impl EndpointError {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NoRoom { .. } => Errno::ENOSPC,
            Self::Register(error) => error.errno(),
            Self::NoMemory(_) => Errno::ENOMEM,
            _ => Errno::EINVAL,
        }
    }
}
