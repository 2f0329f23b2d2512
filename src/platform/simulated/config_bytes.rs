//! Builds plausible configuration spaces.

use super::bar::{Bar, BarBits, NO_BARS};
use crate::address::Bus;
use crate::device::{BusRange, EXTENDED_START, FULL_SIZE, HEADER_SIZE, PortType};
use crate::platform::Switch;

const STATUS: usize = 0x06;
const CLASS: usize = 0x08;
const HEADER_TYPE: usize = 0x0e;
const BUS_NUMBERS: usize = 0x18;
const FIRST_BAR: usize = 0x10;
const POINTER: usize = 0x34;
/// From the SR-IOV capability to its VF BARs (PCIe 6.0 §9.3.3.14).
const VF_BARS: usize = 0x24;

const MSI: u8 = 0x05;
const EXPRESS: u8 = 0x10;
const MSIX: u8 = 0x11;
const ATS: u16 = 0x000f;
const SRIOV: u16 = 0x0010;

const DEVICE_CAPABILITIES: usize = 0x04;
const FLR: u32 = 1 << 28;

/// The bytes of a configuration space, under construction.
///
/// ```
/// use pcidevs::device::{Capabilities, ConfigSpace, Express};
/// use pcidevs::platform::ConfigBytes;
/// let nic = ConfigBytes::endpoint(0x8086, 0x10fb).express().flr().msix(64);
/// let config = ConfigSpace::new(nic.bytes());
/// assert_eq!(Capabilities::read(config).found.len(), 2);
/// assert!(Express::read(config).is_some());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigBytes {
    bytes: Vec<u8>,
    /// The capabilities so far, in chain order: ID and offset. None comes twice, so there is room for all.
    capabilities: Vec<(u8, usize)>,
    /// Where the next one goes.
    next: usize,
    /// The same for extended capabilities.
    extended: Vec<(u16, usize)>,
    next_extended: usize,
    /// The bits of each BAR that cannot be written.
    bars: BarBits,
    vf_bars: BarBits,
}

/// The virtual functions a physical one shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualFunctions {
    /// How many: `InitialVFs`, `TotalVFs` and `NumVFs`.
    pub count: u16,
    /// From the physical function's requester ID to the first one's.
    pub first_offset: u16,
    /// From one requester ID to the next one's.
    pub stride: u16,
    /// Their device ID.
    pub device: u16,
    /// VF Enable and VF MSE.
    pub enabled: Switch,
}

impl ConfigBytes {
    /// A function of class 020000 (Ethernet) with a type 0 header and nothing else: 256 bytes. Its BARs are unused:
    /// they read 0 whatever is written.
    pub fn endpoint(vendor: u16, device: u16) -> Self {
        let mut this = Self {
            bytes: vec![0; EXTENDED_START],
            capabilities: Vec::new(),
            next: HEADER_SIZE,
            extended: Vec::new(),
            next_extended: EXTENDED_START,
            bars: NO_BARS,
            vf_bars: NO_BARS,
        };
        this.set16(0x00, vendor);
        this.set16(0x02, device);
        this.class(0x02_00_00)
    }

    /// A virtual function: vendor and device read `ffff`; PCI Express with FLR.
    pub fn virtual_function() -> Self {
        Self::endpoint(0xffff, 0xffff).express().flr()
    }

    /// A conventional PCI-to-PCI bridge (class 060400) between these buses: `primary` above, `secondary` to
    /// `subordinate` below.
    pub fn bridge(vendor: u16, device: u16, buses: BusRange) -> Self {
        let mut this = Self::endpoint(vendor, device).class(0x06_04_00);
        this.bytes[HEADER_TYPE] = 1;
        // Two BARs; the bus numbers take the place of the others.
        this.bars[2..].fill(0);
        let numbers = [buses.primary, buses.secondary, buses.subordinate].map(Bus::number);
        this.bytes[BUS_NUMBERS..BUS_NUMBERS + 3].copy_from_slice(&numbers);
        this
    }

    /// A PCI Express root port between these buses.
    pub fn root_port(vendor: u16, device: u16, buses: BusRange) -> Self {
        Self::bridge(vendor, device, buses).express_port(PortType::RootPort)
    }

    /// Another class: base class, sub-class and programming interface in 24 bits.
    #[must_use]
    pub fn class(mut self, class: u32) -> Self {
        let revision = self.bytes[CLASS];
        self.set32(CLASS, class << 8 | u32::from(revision));
        self
    }

    /// Says that the device has further functions.
    #[must_use]
    pub fn multifunction(mut self) -> Self {
        self.bytes[HEADER_TYPE] |= 0x80;
        self
    }

    /// Another header type, for instance one that nobody knows; the multi-function bit stays.
    #[must_use]
    pub fn header_type(mut self, layout: u8) -> Self {
        self.bytes[HEADER_TYPE] = self.bytes[HEADER_TYPE] & 0x80 | layout & 0x7f;
        self
    }

    /// A PCI Express endpoint's capability; the space is 4096 bytes from then on.
    #[must_use]
    pub fn express(self) -> Self {
        self.express_port(PortType::Endpoint)
    }

    /// A PCI Express capability of this port type; the space is 4096 bytes from then on.
    #[must_use]
    pub fn express_port(mut self, port: PortType) -> Self {
        self.bytes.resize(FULL_SIZE, 0);
        let at = self.capability(EXPRESS, 0x3c);
        self.set16(at + 2, port_number(port) << 4 | 2);
        self
    }

    /// Function level reset. Makes the function PCI Express if it is not.
    #[must_use]
    pub fn flr(self) -> Self {
        self.device_capability(FLR, FLR)
    }

    /// The phantom functions bits of the Device Capabilities: 0 to 3. Makes the function PCI Express if it is not.
    #[must_use]
    pub fn phantom_bits(self, bits: u8) -> Self {
        self.device_capability(3 << 3, u32::from(bits & 3) << 3)
    }

    /// A 64-bit MSI capability.
    #[must_use]
    pub fn msi(mut self) -> Self {
        let at = self.capability(MSI, 0x10);
        self.set16(at + 2, 1 << 7);
        self
    }

    /// An MSI-X capability with a table of 1 to 2048 vectors at the start of BAR 0.
    #[must_use]
    pub fn msix(mut self, vectors: u16) -> Self {
        let at = self.capability(MSIX, 0x0c);
        self.set16(at + 2, vectors.saturating_sub(1) & 0x7ff);
        self.set32(at + 8, 0x8000);
        self
    }

    /// An ATS capability. Makes the function PCI Express if it is not.
    #[must_use]
    pub fn ats(mut self) -> Self {
        self = self.ensure_express();
        self.extended_capability(ATS, 0x08);
        self
    }

    /// A base address register in this slot, 0 to 5. Nothing if there is no such slot, or none for its upper half.
    #[must_use]
    pub fn bar(mut self, slot: u8, bar: Bar) -> Self {
        for (slot, value) in bar.put(slot, &mut self.bars) {
            self.set32(FIRST_BAR + 4 * slot, value);
        }
        self
    }

    /// The same for the virtual functions of a function with [`sriov`](Self::sriov).
    #[must_use]
    pub fn vf_bar(mut self, slot: u8, bar: Bar) -> Self {
        if let Some((_, at)) = self.extended.iter().find(|(id, _)| *id == SRIOV).copied() {
            for (slot, value) in bar.put(slot, &mut self.vf_bars) {
                self.set32(at + VF_BARS + 4 * slot, value);
            }
        }
        self
    }

    /// An SR-IOV capability, its VF BARs unused. Makes the function PCI Express if it is not.
    #[must_use]
    pub fn sriov(mut self, functions: VirtualFunctions) -> Self {
        self = self.ensure_express();
        let at = self.extended_capability(SRIOV, 0x40);
        self.set16(at + 0x08, if functions.enabled == Switch::On { 1 << 3 | 1 } else { 0 });
        for counter in [0x0c, 0x0e, 0x10] {
            self.set16(at + counter, functions.count);
        }
        self.set16(at + 0x14, functions.first_offset);
        self.set16(at + 0x16, functions.stride);
        self.set16(at + 0x1a, functions.device);
        self
    }

    /// The bytes: 256, or 4096 with PCI Express.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bits of the BARs and of the VF BARs that cannot be written.
    pub(super) const fn fixed_bits(&self) -> (&BarBits, &BarBits) {
        (&self.bars, &self.vf_bars)
    }

    fn ensure_express(self) -> Self {
        if self.bytes.len() == FULL_SIZE { self } else { self.express() }
    }

    fn device_capability(self, mask: u32, value: u32) -> Self {
        let mut this = self.ensure_express();
        let at = this.capability(EXPRESS, 0) + DEVICE_CAPABILITIES;
        this.set32(at, this.get32(at) & !mask | value);
        this
    }

    /// Where the capability stands; if there is none yet, one of this many bytes is appended to the list.
    fn capability(&mut self, id: u8, size: usize) -> usize {
        if let Some((_, at)) = self.capabilities.iter().find(|(known, _)| *known == id) {
            return *at;
        }
        let at = self.next;
        let link = self.capabilities.last().map_or(POINTER, |(_, last)| last + 1);
        self.bytes[link] = at.to_le_bytes()[0];
        self.bytes[STATUS] |= 1 << 4;
        self.bytes[at] = id;
        self.capabilities.push((id, at));
        self.next = (at + size).next_multiple_of(4);
        at
    }

    /// The same for an extended capability.
    fn extended_capability(&mut self, id: u16, size: usize) -> usize {
        if let Some((_, at)) = self.extended.iter().find(|(known, _)| *known == id) {
            return *at;
        }
        let at = self.next_extended;
        if let Some((_, last)) = self.extended.last().copied() {
            let [low, high, ..] = at.to_le_bytes();
            self.set16(last + 2, u16::from_le_bytes([low, high]) << 4 | 1);
        }
        self.set32(at, 1 << 16 | u32::from(id));
        self.extended.push((id, at));
        self.next_extended = (at + size).next_multiple_of(4);
        at
    }

    fn get32(&self, at: usize) -> u32 {
        self.bytes[at..].first_chunk().copied().map_or(0, u32::from_le_bytes)
    }

    fn set16(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn set32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// The number of a port type in the PCI Express Capabilities register (PCIe 6.0 §7.5.3.2).
const fn port_number(port: PortType) -> u16 {
    match port {
        PortType::Endpoint => 0,
        PortType::LegacyEndpoint => 1,
        PortType::RootPort => 4,
        PortType::SwitchUpstream => 5,
        PortType::SwitchDownstream => 6,
        PortType::PcieToPci => 7,
        PortType::PciToPcie => 8,
        PortType::RootComplexEndpoint => 9,
        PortType::EventCollector => 10,
        PortType::Other(number) => number as u16 & 0xf,
    }
}
