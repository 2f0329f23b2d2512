//! A model that notes what its handlers were asked, and hardware that notes what it was asked.

use pcidevs::platform::Width;
use pcidevs::vpci::{At, Behind, Masks, Read, Register, Space, Write};

/// What the handlers of a test work on: 4096 bytes, and what was asked in which order.
pub(crate) struct Model {
    pub(crate) values: Vec<u32>,
    pub(crate) story: Vec<String>,
    /// What is between the registers, if it is anything.
    pub(crate) hardware: Option<Hardware>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self { values: vec![0; 4096], story: Vec::new(), hardware: None }
    }

    /// For the host: with hardware between the registers.
    pub(crate) fn with_hardware(self) -> Self {
        Self { hardware: Some(Hardware::default()), ..self }
    }
}

pub(crate) type Registers = Space<Model, u16>;

pub(crate) fn read(model: &mut Model, at: At) -> u32 {
    model.story.push(format!("read {:#x}", at.offset));
    model.values[usize::from(at.offset)]
}

/// Asks for its own offset.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a handler")]
pub(crate) fn write(model: &mut Model, at: At, value: u32) -> Option<u16> {
    model.story.push(format!("write {:#x} = {value:#x}", at.offset));
    model.values[usize::from(at.offset)] = value;
    Some(at.offset)
}

pub(crate) fn handled(offset: u16, width: Width, masks: Masks) -> Register<Model, u16> {
    Register::new(offset, width, Read::Handler(read), Write::Handler(write)).masked(masks)
}

/// Hardware whose every byte reads as its offset's low bits.
#[derive(Default)]
pub(crate) struct Hardware {
    pub(crate) story: Vec<String>,
}

impl Hardware {
    pub(crate) fn byte(offset: u16) -> u8 {
        offset.to_le_bytes()[0] ^ 0x5a
    }
}

impl Behind for Model {
    fn read_gap(&mut self, offset: u16, width: Width) -> u32 {
        assert!(offset.is_multiple_of(width as u16) && offset < 4096, "{offset:#x}, {width:?}");
        let Some(hardware) = &mut self.hardware else { return u32::MAX };
        hardware.story.push(format!("read {} at {offset:#x}", width as u16));
        (0..width as u16).map(|byte| u32::from(Hardware::byte(offset + byte)) << (8 * byte)).sum()
    }

    fn write_gap(&mut self, offset: u16, width: Width, value: u32) {
        assert!(offset.is_multiple_of(width as u16) && offset < 4096, "{offset:#x}, {width:?}");
        if let Some(hardware) = &mut self.hardware {
            hardware.story.push(format!("write {} at {offset:#x} = {value:#x}", width as u16));
        }
    }
}
