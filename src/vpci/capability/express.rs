//! The PCI Express capability of an endpoint (PCIe 6.0 §7.5.3), and the function-level reset in it.

use crate::device::PortType;
use crate::platform::Width;
use crate::vpci::function::{Effect, Effects, Model};
use crate::vpci::registers::{At, Masks, Read, Register, Write};

pub(in crate::vpci) const ID: u8 = 0x10;
/// Of version 2, in bytes.
pub(in crate::vpci) const LENGTH: u16 = 0x3c;

const CAPABILITIES: u16 = 0x02;
const DEVICE_CAPABILITIES: u16 = 0x04;
const DEVICE_CONTROL: u16 = 0x08;
const DEVICE_STATUS: u16 = 0x0a;
const LINK_CAPABILITIES: u16 = 0x0c;
const LINK_CONTROL: u16 = 0x10;
const LINK_STATUS: u16 = 0x12;
/// From the slot registers to the root registers: an endpoint has none, and they read 0.
const ABSENT: core::ops::Range<u16> = 0x14..0x24;
const DEVICE_CAPABILITIES_2: u16 = 0x24;
const DEVICE_CONTROL_2: u16 = 0x28;
const DEVICE_STATUS_2: u16 = 0x2a;
const LINK_CAPABILITIES_2: u16 = 0x2c;
const LINK_CONTROL_2: u16 = 0x30;
const LINK_STATUS_2: u16 = 0x32;
const LAST: core::ops::Range<u16> = 0x34..0x3c;

const VERSION: u32 = 2;
const INITIATE_RESET: u32 = 1 << 15;
const RESET_CAPABLE: u32 = 1 << 28;
/// Role-based error reporting: every function since PCIe 1.1 has it.
const ROLE_BASED: u32 = 1 << 15;
/// In Device Status.
const TRANSACTIONS_PENDING: u32 = 1 << 5;
/// Errors that were met, cleared by ones.
const STATUS_ERRORS: u32 = 0xf;
/// 2.5 GT/s, one lane.
const LINK: u32 = 0x11;

/// What the capability says of hardware, or of a device that is all software.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vpci) struct Shape {
    pub(in crate::vpci) port: u8,
    pub(in crate::vpci) device: u32,
    pub(in crate::vpci) link: u32,
    pub(in crate::vpci) link_status: u16,
}

impl Shape {
    /// A software device's.
    pub(in crate::vpci) fn of(port: PortType, resets: bool) -> Self {
        let device = ROLE_BASED | if resets { RESET_CAPABLE } else { 0 };
        let has_link = !matches!(port, PortType::RootComplexEndpoint | PortType::EventCollector);
        let (link, link_status) = if has_link { (LINK, 0x11) } else { (0, 0) };
        Self { port: port_bits(port), device, link, link_status }
    }
}

const fn port_bits(port: PortType) -> u8 {
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
        PortType::Other(bits) => bits & 0xf,
    }
}

/// The registers of a capability at this place, but for its header.
pub(in crate::vpci) fn registers(at: u16, shape: Shape) -> impl Iterator<Item = Register<Model, Effects>> {
    let control = Register::new(
        at + DEVICE_CONTROL,
        Width::Word,
        Read::Handler(read_control),
        Write::Handler(write_control),
    );
    let status = Register::new(at + DEVICE_STATUS, Width::Word, Read::Handler(read_status), Write::Drop);
    let errors = Masks { rw1c: STATUS_ERRORS, rsvdz: 0xffc0, ..Masks::default() };
    let resets = shape.device & RESET_CAPABLE != 0;
    let word = move |offset, value| Register::constant(at + offset, Width::Word, value);
    let dword = move |offset, value| Register::constant(at + offset, Width::Dword, value);
    let kept = move |offset, bits: u32| {
        Register::value(at + offset, Width::Word, 0).masked(Masks { ro: 0xffff & !bits, ..Masks::default() })
    };
    let zeros = move |range: core::ops::Range<u16>| range.step_by(4).map(move |offset| dword(offset, 0));
    let fixed = [
        word(CAPABILITIES, VERSION | u32::from(shape.port) << 4),
        dword(DEVICE_CAPABILITIES, shape.device),
        control.tagged(resets.into()),
        status.masked(errors),
        dword(LINK_CAPABILITIES, shape.link),
        kept(LINK_CONTROL, 0x01c3),
        word(LINK_STATUS, shape.link_status.into()),
        dword(DEVICE_CAPABILITIES_2, 0),
        kept(DEVICE_CONTROL_2, 0x001f),
        word(DEVICE_STATUS_2, 0),
        dword(LINK_CAPABILITIES_2, 0),
        kept(LINK_CONTROL_2, 0x000f),
        word(LINK_STATUS_2, 0),
    ];
    fixed.into_iter().chain(zeros(ABSENT)).chain(zeros(LAST))
}

fn read_control(model: &mut Model, _: At) -> u32 {
    model.device_control.into()
}

fn write_control(model: &mut Model, at: At, value: u32) -> Option<Effects> {
    // The guest's own copy: what hardware does with payload sizes is the host's. The reset bit always reads 0.
    model.device_control = u16::try_from(value & 0x7fff).unwrap_or_default();
    Effects::default().and_if(at.tag != 0 && value & INITIATE_RESET != 0, Effect::Reset).or_none()
}

fn read_status(model: &mut Model, at: At) -> u32 {
    // Whether transactions are pending a guest must see before it resets; errors are the host's.
    model.read_hardware(at.offset, Width::Word).unwrap_or(0) & TRANSACTIONS_PENDING
}
