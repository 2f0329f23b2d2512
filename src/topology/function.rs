//! One function of a machine, and how its facts come together from its configuration bytes.

use super::warning::{Warning, WarningKind};
use crate::address::Sbdf;
use crate::device::{
    BusRange, Capabilities, ConfigSpace, ExtendedCapabilities, HEADER_SIZE, Header, HeaderLayout, SrIov,
    Stride, SubsystemId,
};

/// What a source says of one PCI function. A fact the source does not give is `None`.
///
/// Where both the operating system and the configuration bytes state a fact, the operating system's statement
/// stands: it names virtual functions and dead devices whose own bytes read `ffff`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// Where it is.
    pub address: Sbdf,
    /// Vendor ID; a virtual function's is its physical function's.
    pub vendor: Option<u16>,
    /// Device ID; a virtual function's is the one its physical function's SR-IOV capability gives.
    pub device: Option<u16>,
    /// Class code, 24 bits. From text without configuration bytes the lowest 8 are 0 unless printed.
    pub class: Option<u32>,
    /// Revision ID.
    pub revision: Option<u8>,
    /// Subsystem vendor and device; `None` also where both are 0.
    pub subsystem: Option<SubsystemId>,
    /// Header type without bit 7.
    pub header_type: Option<u8>,
    /// Bit 7 of the header type.
    pub multifunction: Option<bool>,
    /// The buses behind it, for bridges.
    pub bridge: Option<BusRange>,
    /// The number of its IOMMU group.
    pub group: Option<u32>,
    /// For a virtual function, the physical function it belongs to.
    pub physfn: Option<Sbdf>,
    /// The name of the driver bound to it.
    pub driver: Option<String>,
    /// The NUMA node it is attached to.
    pub numa_node: Option<i32>,
    /// Its configuration space as far as it was recorded: usually 0, 64, 256 or 4096 bytes.
    pub config: Vec<u8>,
    /// Capability IDs in chain order, with repeats.
    pub capabilities: Vec<u8>,
    /// Extended capability IDs in chain order, with repeats.
    pub ext_capabilities: Vec<u16>,
    /// The name of its class, where the source prints one.
    pub class_name: Option<String>,
    /// The names of its vendor and device as one text, where the source prints them.
    pub name: Option<String>,
}

impl Function {
    /// A function of which only the address is known.
    pub fn at(address: Sbdf) -> Self {
        Self { address, ..Self::default() }
    }

    /// Its configuration space, for the readers in [`device`](crate::device).
    pub fn config_space(&self) -> ConfigSpace<'_> {
        ConfigSpace::new(&self.config)
    }

    /// Its header layout, where the source tells.
    pub fn layout(&self) -> Option<HeaderLayout> {
        self.header_type.map(HeaderLayout::from_bits)
    }

    /// Its SR-IOV capability, if it is a physical function with one.
    pub fn sriov(&self) -> Option<SrIov> {
        SrIov::read(self.config_space())
    }

    /// Its phantom-function stride. Virtual functions have none (PCIe 6.0 §9.3.5.3).
    pub fn phantom_stride(&self) -> Option<Stride> {
        if self.physfn.is_some() { None } else { Stride::read(self.config_space(), self.address.devfn()) }
    }

    /// Whether it is a virtual function: its physical function is known.
    pub const fn is_virtual(&self) -> bool {
        self.physfn.is_some()
    }

    /// Fills what the source left open from the configuration bytes, and reports what is wrong with those.
    /// `line` is where the source describes the function.
    pub(super) fn complete_from_config(&mut self, line: Option<u32>, warnings: &mut Vec<Warning>) {
        let bytes = std::mem::take(&mut self.config);
        let config = ConfigSpace::new(&bytes);
        let address = self.address;
        let mut warn = |kind, message| warnings.push(Warning { line, address: Some(address), kind, message });
        if config.is_dead() {
            warn(WarningKind::Dead, "the whole configuration space reads ones: absent or dead".into());
        } else if !config.is_empty() && config.len() < HEADER_SIZE {
            let length = config.len();
            warn(WarningKind::ShortConfig, format!("only {length} of the header's 64 bytes are known"));
        }
        if let Some(header) = Header::read(config) {
            self.take_header(&header);
            if let HeaderLayout::Other(bits) = header.layout {
                warn(WarningKind::HeaderType, format!("header type {bits:02x} is not known"));
            }
        }
        self.bridge = BusRange::read(config).or(self.bridge);
        let standard = Capabilities::read(config);
        let extended = ExtendedCapabilities::read(config);
        for warning in standard.warnings.into_iter().chain(extended.warnings) {
            warn(warning.into(), warning.to_string());
        }
        self.capabilities = standard.found.iter().map(|capability| capability.id).collect();
        self.ext_capabilities = extended.found.iter().map(|capability| capability.id).collect();
        self.config = bytes;
    }

    fn take_header(&mut self, header: &Header) {
        if !header.hides_its_identity() {
            self.vendor.get_or_insert(header.vendor);
            self.device.get_or_insert(header.device);
        }
        // Text gives 16 of the class's 24 bits, so the bytes are better where the two agree.
        if self.class.is_none_or(|class| class >> 8 == header.class >> 8) {
            self.class = Some(header.class);
        }
        self.revision.get_or_insert(header.revision);
        self.subsystem = self.subsystem.or(header.subsystem);
        self.header_type = Some(header.layout.bits());
        self.multifunction = Some(header.multifunction);
    }

    /// Takes from another description of the same function what this one lacks, and its bytes if they are more.
    pub(super) fn merge(&mut self, other: Self) {
        if other.config.len() > self.config.len() {
            self.config = other.config;
        }
        self.vendor = self.vendor.or(other.vendor);
        self.device = self.device.or(other.device);
        self.class = self.class.or(other.class);
        self.revision = self.revision.or(other.revision);
        self.subsystem = self.subsystem.or(other.subsystem);
        self.bridge = self.bridge.or(other.bridge);
        self.group = self.group.or(other.group);
        self.physfn = self.physfn.or(other.physfn);
        self.numa_node = self.numa_node.or(other.numa_node);
        self.driver = self.driver.take().or(other.driver);
        self.class_name = self.class_name.take().or(other.class_name);
        self.name = self.name.take().or(other.name);
    }
}
