//! Devices that are hardware: a real function's configuration space behind the model.
//!
//! | file | what |
//! |---|---|
//! | `snapshot` | reading the configuration space once |
//! | `bars` | which BARs there are, and where |
//! | `capabilities`, `extended` | which capabilities are modelled, shown, or hidden |
//! | `occupied` | which bytes belong to what, so that nothing that is hidden is reached through something else |
//! | `error` | why a function cannot be modelled |
//!
//! A guest sees what is modelled and nothing else: what is between is ones, and nothing it writes there goes anywhere.
//! The host sees its hardware, but for the registers by which BARs, interrupts and virtual functions come and go.
//!
//! The bytes of hardware are not trusted: lists of capabilities that loop, point nowhere or run into each other end
//! where they stop to make sense, and a capability that does is not shown. Only a header that is wrong is an error.

mod bars;
mod capabilities;
mod error;
mod extended;
mod occupied;
mod snapshot;

use alloc::boxed::Box;

pub use error::PassThroughError;

use self::occupied::Occupied;
use super::backing::Backing;
use super::capability::VirtualFunction;
use super::endpoint::add_all;
use super::function::{
    ALL_BARS, Bar, Effects, Function, Identity, Model, Rest, Viewer, command_registers, header_registers,
};
use super::registers::Space;
use crate::device::{ConfigSpace, HEADER_SIZE, Header, HeaderLayout, VF_BAR_SLOTS};
use crate::memory::try_box;
use crate::platform::Width;

const COMMAND: u16 = 0x04;
const DECODE: u32 = 3;
const PIN: usize = 0x3d;

/// A real function, described as far as its configuration space does not say it itself.
///
/// `build` reads the configuration space, through a [`Backing`] that leads to the hardware, and, unless the BARs are
/// [given](Self::bars), finds their sizes out by writing to them, with decoding off. Then the function is the model's:
/// for a guest its decoding is off, MSI and MSI-X are off, and what is reset is the embedder's.
///
/// ```
/// use pcidevs::platform::Width;
/// use pcidevs::vpci::{Backing, Bar, PassThrough, Signals, Viewer};
/// # struct Nic([u8; 64]);
/// # impl Nic {
/// #     fn recorded() -> Self { let mut bytes = [0; 64]; bytes[..4].copy_from_slice(&[0x86, 0x80, 1, 2]); Self(bytes) }
/// # }
/// impl Backing for Nic {
/// #     fn bar_read(&mut self, _: u8, _: u64, _: &mut [u8]) {}
/// #     fn bar_write(&mut self, _: u8, _: u64, _: &[u8], _: &mut Signals<'_>) {}
///     fn config_read(&mut self, offset: u16, width: Width) -> u32 {
///         // Asks the platform.
/// #       let byte = |byte: u16| u32::from(self.0.get(usize::from(byte)).copied().unwrap_or(0xff));
/// #       (0..width as u16).map(|index| byte(offset + index) << (8 * index)).sum()
///     }
/// }
/// let bars = [Some(Bar::memory32(0x2_0000).direct()), None, None, None, None, None, None];
/// let mut function = PassThrough::new(Viewer::Guest).bars(bars).build(Nic::recorded())?;
/// assert_eq!(function.config_read(0, Width::Dword), 0x0201_8086);
/// # Ok::<(), pcidevs::vpci::PassThroughError>(())
/// ```
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a choice of the embedder's, and they are independent"
)]
pub struct PassThrough {
    viewer: Viewer,
    bars: Option<[Option<Bar>; ALL_BARS]>,
    virtual_bars: Option<[Option<Bar>; VF_BAR_SLOTS]>,
    virtual_function: Option<VirtualFunction>,
    maps_io: bool,
    is_read_only: bool,
    is_trapped: bool,
    is_multifunction: bool,
    resizes: bool,
}

impl PassThrough {
    /// A function for this viewer.
    pub const fn new(viewer: Viewer) -> Self {
        Self {
            viewer,
            bars: None,
            virtual_bars: None,
            virtual_function: None,
            maps_io: true,
            is_read_only: false,
            is_trapped: false,
            is_multifunction: false,
            resizes: false,
        }
    }

    /// Its BARs by slot, the expansion ROM last ([`ROM`](super::ROM)), from somebody who knows them: then nothing is
    /// written to find them out.
    #[must_use]
    pub const fn bars(self, bars: [Option<Bar>; 7]) -> Self {
        Self { bars: Some(bars), ..self }
    }

    /// What BARs its virtual functions have, from somebody who knows it. Without, they are found out, if no virtual
    /// function is enabled; if some are, the host does not see that it has virtual functions.
    #[must_use]
    pub const fn virtual_bars(self, bars: [Option<Bar>; 6]) -> Self {
        Self { virtual_bars: Some(bars), ..self }
    }

    /// It is a virtual function: who it is, and its BARs, its physical function knows.
    #[must_use]
    pub const fn virtual_function(self, function: VirtualFunction) -> Self {
        Self { virtual_function: Some(function), ..self }
    }

    /// The platform maps no I/O BARs: a guest does not see them, nor can it switch I/O decoding on.
    #[must_use]
    pub const fn without_io(self) -> Self {
        Self { maps_io: false, ..self }
    }

    /// Hidden: the host may look at it, and what it writes goes nowhere. A guest's cannot be.
    #[must_use]
    pub const fn read_only(self) -> Self {
        Self { is_read_only: true, ..self }
    }

    /// Every access to a BAR whose size was found out comes to [`Backing::bar_read`] and [`Backing::bar_write`]. Without,
    /// such BARs are mapped [directly](Bar::direct), but for the table of MSI-X and its pending bits.
    #[must_use]
    pub const fn trapped(self) -> Self {
        Self { is_trapped: true, ..self }
    }

    /// A guest sees it as function 0 of a device with several. Without it is told of none: what else the hardware's
    /// device has need not be the guest's.
    #[must_use]
    pub const fn multifunction(self) -> Self {
        Self { is_multifunction: true, ..self }
    }

    /// A guest may choose the sizes of its BARs, where the hardware offers some. [`Backing::config_write`] is
    /// asked to change them, and has to see to it that the host's address fits.
    #[must_use]
    pub const fn resizable(self) -> Self {
        Self { resizes: true, ..self }
    }

    /// The function. On an error decoding and BARs of the hardware are as they were.
    pub fn build(self, hardware: impl Backing + 'static) -> Result<Function, PassThroughError> {
        if self.is_read_only && self.viewer == Viewer::Guest {
            return Err(PassThroughError::ReadOnlyGuest);
        }
        let mut backing: Box<dyn Backing> = try_box(hardware)?;
        let bytes = snapshot::read(&mut *backing)?;
        let config = ConfigSpace::new(&bytes);
        let header = self.header(config)?;
        let mut model = try_box(Model::new(backing, self.viewer))?;
        model.is_hardware = true;
        model.is_read_only = self.is_read_only;
        model.is_vf = self.virtual_function.is_some();
        model.maps_io = self.maps_io;
        // The host programs its hardware itself.
        model.is_bridge = self.viewer == Viewer::Guest && header.layout == HeaderLayout::Bridge;
        let mut build =
            Build { config, model: &mut model, space: Space::new()?, occupied: Occupied::header() };
        if !self.is_read_only {
            self.add_all(&mut build, &header)?;
        }
        let space = build.space;
        let mut function = Function::new(space, model);
        if self.viewer == Viewer::Host && !self.is_read_only {
            // Whoever puts it behind a bus carries it out.
            let _asked = function.start();
        }
        Ok(function)
    }

    fn header(&self, config: ConfigSpace<'_>) -> Result<Header, PassThroughError> {
        let header = Header::read(config).ok_or(PassThroughError::Absent)?;
        if config.len() < HEADER_SIZE || header.vendor == 0xffff && self.virtual_function.is_none() {
            return Err(PassThroughError::Absent);
        }
        match (header.layout, self.virtual_function) {
            (HeaderLayout::Endpoint, _) | (HeaderLayout::Bridge, None) => Ok(header),
            (other, _) => Err(PassThroughError::HeaderType(other.bits())),
        }
    }

    fn add_all(&self, build: &mut Build<'_>, header: &Header) -> Result<(), PassThroughError> {
        let is_bridge = header.layout == HeaderLayout::Bridge;
        let command = build.config.u16(COMMAND.into()).unwrap_or_default();
        let found = self.find_bars(build, is_bridge, command)?;
        build.model.command.take_over(command, self.viewer);
        if self.viewer == Viewer::Guest {
            let (vendor, device) = match self.virtual_function {
                Some(function) => (function.vendor, function.device),
                None => (header.vendor, header.device),
            };
            let subsystem = header.subsystem.filter(|_| !is_bridge);
            build.add_header(
                &Identity { vendor, device, class: header.class, revision: header.revision, subsystem },
                Rest { is_multifunction: self.is_multifunction, is_bridge, pin: self.pin(build.config) },
            )?;
        }
        self.place_bars(build, is_bridge, found)?;
        let has_capabilities = capabilities::add(build)?;
        add_all(&mut build.space, command_registers(has_capabilities))?;
        extended::add(build, self)?;
        if self.viewer == Viewer::Guest {
            // A guest begins with everything off.
            build.model.write_command();
        }
        Ok(())
    }

    /// A virtual function has no pin.
    fn pin(&self, config: ConfigSpace<'_>) -> u8 {
        let pin = config.u8(PIN).filter(|pin| (1..=4).contains(pin) && self.virtual_function.is_none());
        pin.unwrap_or_default()
    }
}

/// A function in the making.
struct Build<'a> {
    config: ConfigSpace<'a>,
    model: &'a mut Model,
    space: Space<Model, Effects>,
    occupied: Occupied,
}

impl Build<'_> {
    fn is_for_guest(&self) -> bool {
        self.model.viewer == Viewer::Guest
    }

    fn add_header(&mut self, identity: &Identity, rest: Rest) -> Result<(), PassThroughError> {
        add_all(&mut self.space, header_registers(identity, rest))?;
        Ok(())
    }

    /// Switches something off in hardware that somebody has left on.
    fn clear(&mut self, offset: u16, bit: u32) {
        let register = u32::from(self.config.u16(offset.into()).unwrap_or_default());
        if register & bit != 0 {
            self.model.write_hardware(offset, Width::Word, register & !bit);
        }
    }
}
