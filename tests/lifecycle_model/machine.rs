//! The machine that is played with: small, and with everything that makes lives hard.
//!
//! ```text
//! 00:01.0 root port -- 01:00.0 physical function, 01:10.0 and 01:10.2 its virtual ones
//!                      01:02.0 resets its whole bus
//!                      01:01.0 switch port -- 02:00.0, 02:01.0 reset their whole bus
//! 00:02.0, 00:02.1     reset their whole slot
//! 00:03.0              phantom functions 2, 4, 6, and a quirk's requester ID 00:1e.0
//! 00:04.0              alone in an IOMMU group
//! 00:05.0, .1, .2      an IOMMU group
//! 00:06.0              cannot be reset
//! 00:07.0              a host bridge
//! 00:1c.0 to PCI    -- 05:00.0, 05:01.0 share the bridge's requester ID, which is 05:00.0's own
//! ```

use pcidevs::Sbdf;
use pcidevs::address::{Bus, DevFn, Segment};
use pcidevs::device::{BusRange, PortType};
use pcidevs::platform::{ConfigBytes, GroupId, ResetSupport, Simulated, Switch, VirtualFunctions};

/// One function of the machine, as far as it never changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    address: Sbdf,
    pub(crate) kind: Kind,
    pub(crate) reset: ResetSupport,
    pub(crate) group: Option<u32>,
    /// Phantom functions, and what the platform says beside them.
    pub(crate) more_requesters: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Endpoint,
    /// The first function of several.
    FirstEndpoint,
    /// Without PCI Express, interrupts or ATS.
    Plain,
    HostBridge,
    /// From and to which bus.
    Port(u8, u8),
    ToPci(u8),
    Physical,
    /// Of which physical function.
    Virtual(&'static str),
}

const fn function(address: &'static str, kind: Kind, reset: ResetSupport) -> Function {
    Function { address: at(address), kind, reset, group: None, more_requesters: &[] }
}

const fn grouped(address: &'static str, kind: Kind, group: u32) -> Function {
    Function { group: Some(group), ..function(address, kind, ResetSupport::Function) }
}

use ResetSupport::{Bus as WholeBus, Function as Alone, Missing, NotNeeded, Slot as WholeSlot};

/// All of them; bridges before what is behind them, physical functions before their virtual ones.
pub(crate) const FUNCTIONS: &[Function] = &[
    function("0000:00:04.0", Kind::Endpoint, Alone),
    function("0000:00:02.0", Kind::FirstEndpoint, WholeSlot),
    function("0000:00:02.1", Kind::Endpoint, WholeSlot),
    Function {
        more_requesters: &["0000:00:03.2", "0000:00:03.4", "0000:00:03.6", "0000:00:1e.0"],
        ..function("0000:00:03.0", Kind::Endpoint, NotNeeded)
    },
    grouped("0000:00:08.0", Kind::Endpoint, 7),
    grouped("0000:00:05.0", Kind::FirstEndpoint, 8),
    grouped("0000:00:05.1", Kind::Endpoint, 8),
    grouped("0000:00:05.2", Kind::Endpoint, 8),
    function("0000:00:06.0", Kind::Plain, Missing),
    function("0000:00:07.0", Kind::HostBridge, Alone),
    function("0000:00:01.0", Kind::Port(1, 2), Alone),
    function("0000:01:00.0", Kind::Physical, Alone),
    function("0000:01:10.0", Kind::Virtual("0000:01:00.0"), Alone),
    function("0000:01:10.2", Kind::Virtual("0000:01:00.0"), Alone),
    function("0000:01:02.0", Kind::Endpoint, WholeBus),
    function("0000:01:01.0", Kind::Port(2, 2), Alone),
    function("0000:02:00.0", Kind::Endpoint, WholeBus),
    function("0000:02:01.0", Kind::Endpoint, WholeBus),
    function("0000:00:1c.0", Kind::ToPci(5), Alone),
    function("0000:05:00.0", Kind::Plain, Alone),
    function("0000:05:01.0", Kind::Plain, Alone),
];

/// The groups that can be open.
pub(crate) const GROUPS: [GroupId; 2] = [GroupId(7), GroupId(8)];

/// The address `0000:bb:dd.f`. It is read so often that a parser that takes all forms would be most of a script's time.
pub(crate) const fn at(address: &str) -> Sbdf {
    let [b'0', b'0', b'0', b'0', b':', b1, b0, b':', d1, d0, b'.', f] = *address.as_bytes() else {
        panic!("not an address of the table")
    };
    let devfn = DevFn::new(digit(d1) << 4 | digit(d0), digit(f)).expect("a device and a function");
    Sbdf::new(Segment::new(0), Bus::new(digit(b1) << 4 | digit(b0)), devfn)
}

const fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => panic!("not a digit"),
    }
}

impl Function {
    pub(crate) const fn at(&self) -> Sbdf {
        self.address
    }

    pub(crate) fn find(address: Sbdf) -> &'static Self {
        FUNCTIONS.iter().find(|function| function.at() == address).expect("an address of the table")
    }

    pub(crate) fn physical_function(&self) -> Option<Sbdf> {
        match self.kind {
            Kind::Virtual(physical) => Some(at(physical)),
            _ => None,
        }
    }

    /// The buses behind it.
    pub(crate) fn behind(&self) -> Option<(u8, u8)> {
        match self.kind {
            Kind::Port(first, last) => Some((first, last)),
            Kind::ToPci(bus) => Some((bus, bus)),
            _ => None,
        }
    }

    pub(crate) fn is_bridge(&self) -> bool {
        matches!(self.kind, Kind::Port(..) | Kind::ToPci(_))
    }

    pub(crate) fn is_endpoint(&self) -> bool {
        !self.is_bridge() && self.kind != Kind::HostBridge
    }

    pub(crate) fn has_msix(&self) -> bool {
        matches!(self.kind, Kind::Endpoint | Kind::FirstEndpoint | Kind::Physical)
    }

    /// Whether a scan finds it: virtual functions have no vendor.
    pub(crate) fn answers(&self) -> bool {
        !matches!(self.kind, Kind::Virtual(_))
    }

    fn config(&self) -> ConfigBytes {
        let buses = |secondary, subordinate| BusRange {
            primary: self.at().bus(),
            secondary: Bus::new(secondary),
            subordinate: Bus::new(subordinate),
        };
        let endpoint = || ConfigBytes::endpoint(0x8086, 0x10d3).express().flr().msi().msix(4).ats();
        match self.kind {
            Kind::Endpoint if self.more_requesters.is_empty() => endpoint(),
            Kind::Endpoint => endpoint().phantom_bits(2),
            Kind::FirstEndpoint => endpoint().multifunction(),
            Kind::Plain => ConfigBytes::endpoint(0x8086, 0x100e),
            Kind::HostBridge => ConfigBytes::endpoint(0x8086, 0x1237).class(0x06_00_00),
            Kind::Port(first, last) => ConfigBytes::root_port(0x8086, 0x3420, buses(first, last)),
            Kind::ToPci(bus) => {
                ConfigBytes::bridge(0x8086, 0x244e, buses(bus, bus)).express_port(PortType::PcieToPci)
            }
            Kind::Physical => endpoint().sriov(VirtualFunctions {
                count: 2,
                first_offset: 0x80,
                stride: 2,
                device: 0x10ed,
                enabled: Switch::On,
            }),
            Kind::Virtual(_) => ConfigBytes::virtual_function(),
        }
    }

    /// Puts it into the machine.
    pub(crate) fn plug<D: Send>(&self, machine: &Simulated<D>) {
        machine.plug(self.at(), self.config());
    }
}

/// The machine with all functions plugged and none known.
pub(crate) fn build<D: Send>() -> Simulated<D> {
    let machine = Simulated::new();
    for function in FUNCTIONS {
        function.plug(&machine);
        machine.set_reset(function.at(), function.reset);
        if let Some(group) = function.group {
            machine.set_group(function.at(), GroupId(group));
        }
        for requester in function.more_requesters.iter().filter(|id| id.ends_with("1e.0")) {
            machine.add_alias(function.at(), at(requester));
        }
    }
    machine
}

/// The requester IDs that this function can have.
pub(crate) fn requester_ids_of(function: Sbdf) -> impl Iterator<Item = Sbdf> {
    let more = Function::find(function).more_requesters.iter().map(|id| at(id));
    let alias = (function.bus().number() == 5).then_some(at("0000:05:00.0"));
    core::iter::once(function).chain(more).chain(alias)
}

/// Every requester ID that a device of this machine can have.
pub(crate) fn requester_ids() -> impl Iterator<Item = Sbdf> {
    FUNCTIONS.iter().flat_map(|function| {
        core::iter::once(function.at()).chain(function.more_requesters.iter().map(|id| at(id)))
    })
}
