//! PCI addresses: segment, bus, device and function.
//!
//! Everything above this module speaks [`Sbdf`]; nothing above it does arithmetic on raw numbers. A *segment*
//! is what Linux calls a PCI domain: 32 bits wide, because Linux numbers the domains behind a VMD controller
//! from `10000` on, and an address that loses those bits names another device.
//!
//! Text comes in two forms, `bb:dd.f` (segment 0) and `ssss:bb:dd.f` with 4 to 8 segment digits, in either
//! case; it is written in lower case with at least four segment digits. There is no lenient mode: the parser
//! accepts exactly these forms and reports where anything else goes wrong.

use core::fmt;
use core::str::FromStr;

/// A PCI segment group, Linux's "PCI domain": up to 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment(u32);

impl Segment {
    /// Every 32-bit number is a segment.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The segment's number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0)
    }
}

/// A bus number within a segment, 0 to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bus(u8);

impl Bus {
    /// Every 8-bit number is a bus.
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// The bus's number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

/// Device (0 to 31) and function (0 to 7) on a bus, packed as the hardware packs them: `device << 3 | function`.
///
/// With ARI the same eight bits are one function number (PCIe 6.0 §6.13); addresses and order do not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevFn(u8);

impl DevFn {
    /// Checked construction: `None` if `device` exceeds 31 or `function` exceeds 7.
    ///
    /// ```
    /// use pcidevs::address::DevFn;
    /// assert_eq!(DevFn::new(0x1f, 7).map(DevFn::bits), Some(0xff));
    /// assert_eq!(DevFn::new(0x20, 0), None);
    /// assert_eq!(DevFn::new(0, 8), None);
    /// ```
    pub const fn new(device: u8, function: u8) -> Option<Self> {
        if device > 0x1f || function > 7 { None } else { Some(Self(device << 3 | function)) }
    }

    /// From the packed form; every 8-bit value is valid.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The packed form.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The device number, 0 to 31.
    pub const fn device(self) -> u8 {
        self.0 >> 3
    }

    /// The function number, 0 to 7.
    pub const fn function(self) -> u8 {
        self.0 & 7
    }
}

impl fmt::Display for DevFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}.{:x}", self.device(), self.function())
    }
}

/// The full address of one PCI function: segment, bus, device, function.
///
/// Ordered by segment, then bus, then device, then function, which is the order of every list in this crate.
///
/// ```
/// use pcidevs::Sbdf;
/// let vmd: Sbdf = "10000:E1:00.0".parse()?;
/// assert_eq!(vmd.to_string(), "10000:e1:00.0");
/// assert_eq!("3:0.0".parse::<Sbdf>().unwrap_err().position, 1);
/// # Ok::<(), pcidevs::address::InvalidAddress>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sbdf {
    segment: Segment,
    bus: Bus,
    devfn: DevFn,
}

impl Sbdf {
    /// Puts an address together from its checked parts.
    pub const fn new(segment: Segment, bus: Bus, devfn: DevFn) -> Self {
        Self { segment, bus, devfn }
    }

    /// From a segment and a 16-bit requester ID (`bus << 8 | devfn`), the form the IOMMU sees.
    pub const fn from_bdf(segment: Segment, bdf: u16) -> Self {
        let [bus, devfn] = bdf.to_be_bytes();
        Self { segment, bus: Bus(bus), devfn: DevFn(devfn) }
    }

    /// The segment.
    pub const fn segment(self) -> Segment {
        self.segment
    }

    /// The bus.
    pub const fn bus(self) -> Bus {
        self.bus
    }

    /// Device and function, packed.
    pub const fn devfn(self) -> DevFn {
        self.devfn
    }

    /// The device number, 0 to 31.
    pub const fn device(self) -> u8 {
        self.devfn.device()
    }

    /// The function number, 0 to 7.
    pub const fn function(self) -> u8 {
        self.devfn.function()
    }

    /// The 16-bit requester ID without the segment.
    pub const fn bdf(self) -> u16 {
        u16::from_be_bytes([self.bus.0, self.devfn.0])
    }

    /// The same bus and segment with other device and function numbers.
    #[must_use]
    pub const fn with_devfn(self, devfn: DevFn) -> Self {
        Self { devfn, ..self }
    }

    /// The next address in order, across functions, devices, buses and segments; `None` after the last.
    pub const fn successor(self) -> Option<Self> {
        match (self.bdf().checked_add(1), self.segment.0.checked_add(1)) {
            (Some(bdf), _) => Some(Self::from_bdf(self.segment, bdf)),
            (None, Some(segment)) => Some(Self::from_bdf(Segment(segment), 0)),
            (None, None) => None,
        }
    }

    /// The 32-bit form Xen's interfaces use: 16 bits of segment, then the requester ID.
    ///
    /// A segment above `ffff` does not fit and is an error; it is never cut.
    pub const fn to_u32(self) -> Result<u32, SegmentTooWide> {
        if self.segment.0 > 0xffff {
            return Err(SegmentTooWide(self));
        }
        Ok(self.segment.0 << 16 | self.bdf() as u32)
    }

    /// From the 32-bit form of [`to_u32`](Self::to_u32); every value is valid.
    pub const fn from_u32(sbdf: u32) -> Self {
        let [s1, s0, bus, devfn] = sbdf.to_be_bytes();
        Self { segment: Segment(u16::from_be_bytes([s1, s0]) as u32), bus: Bus(bus), devfn: DevFn(devfn) }
    }
}

impl fmt::Display for Sbdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.width().is_some() {
            // Longest form: eight segment digits and eight more characters.
            let mut text = Text { bytes: [0; 16], len: 0 };
            fmt::write(&mut text, format_args!("{}:{}:{}", self.segment, self.bus, self.devfn))?;
            return f.pad(text.as_str());
        }
        write!(f, "{}:{}:{}", self.segment, self.bus, self.devfn)
    }
}

/// A line long enough for an address, so that `{:>13}` pads without allocating.
struct Text {
    bytes: [u8; 16],
    len: usize,
}

impl Text {
    fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + s.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(s.as_bytes());
        self.len += s.len();
        Ok(())
    }
}

/// An address whose segment does not fit the 16 bits of Xen's SBDF form. Use an interface with wide segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("segment of {0} does not fit the 16 bits of this interface")]
pub struct SegmentTooWide(pub Sbdf);

/// Text that is not a PCI address, and where it stops being one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid PCI address: {expected} at position {position}")]
pub struct InvalidAddress {
    /// Byte offset into the text: of the first character that does not fit, or of the field whose value is
    /// too large.
    pub position: usize,
    /// What would have been right there.
    pub expected: Expected,
}

/// What [`InvalidAddress`] wanted at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// A hexadecimal digit.
    HexDigit,
    /// The `:` after a segment or a bus.
    Colon,
    /// The `.` after a device.
    Dot,
    /// A device number of at most `1f`.
    Device,
    /// A function number of at most `7`.
    Function,
    /// The end of the text.
    End,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HexDigit => "a hexadecimal digit expected",
            Self::Colon => "':' expected",
            Self::Dot => "'.' expected",
            Self::Device => "a device of at most 1f expected",
            Self::Function => "a function of at most 7 expected",
            Self::End => "the end expected",
        })
    }
}

impl FromStr for Sbdf {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let mut cursor = Cursor { text: text.as_bytes(), position: 0 };
        // Two leading digits are a bus (`bb:dd.f`), four to eight a segment.
        let segment = match cursor.hex_run() {
            2 => 0,
            4..=8 => {
                let segment = cursor.hex(cursor.hex_run())?;
                cursor.literal(b':', Expected::Colon)?;
                segment
            }
            digits @ (0 | 1 | 3) => return Err(cursor.error(digits, Expected::HexDigit)),
            _ => return Err(cursor.error(8, Expected::Colon)),
        };
        let bus = cursor.byte()?;
        cursor.literal(b':', Expected::Colon)?;
        let device = cursor.position;
        let device_number = cursor.byte()?;
        if device_number > 0x1f {
            return Err(InvalidAddress { position: device, expected: Expected::Device });
        }
        cursor.literal(b'.', Expected::Dot)?;
        let function = cursor.position;
        let [_, _, _, function_number] = cursor.hex(1)?.to_be_bytes();
        let devfn = DevFn::new(device_number, function_number)
            .ok_or(InvalidAddress { position: function, expected: Expected::Function })?;
        if cursor.position != text.len() {
            return Err(cursor.error(0, Expected::End));
        }
        Ok(Self::new(Segment(segment), Bus(bus), devfn))
    }
}

struct Cursor<'a> {
    text: &'a [u8],
    position: usize,
}

impl Cursor<'_> {
    fn error(&self, ahead: usize, expected: Expected) -> InvalidAddress {
        InvalidAddress { position: self.position + ahead, expected }
    }

    /// How many hexadecimal digits stand at the cursor.
    fn hex_run(&self) -> usize {
        self.text[self.position..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count()
    }

    /// Reads exactly `digits` hexadecimal digits, at most eight.
    fn hex(&mut self, digits: usize) -> Result<u32, InvalidAddress> {
        let mut value = 0;
        for _ in 0..digits {
            let digit = self.text.get(self.position).and_then(|byte| char::from(*byte).to_digit(16));
            value = value << 4 | digit.ok_or(self.error(0, Expected::HexDigit))?;
            self.position += 1;
        }
        Ok(value)
    }

    /// Reads two digits.
    fn byte(&mut self) -> Result<u8, InvalidAddress> {
        let [_, _, _, byte] = self.hex(2)?.to_be_bytes();
        Ok(byte)
    }

    fn literal(&mut self, literal: u8, expected: Expected) -> Result<(), InvalidAddress> {
        if self.text.get(self.position) != Some(&literal) {
            return Err(self.error(0, expected));
        }
        self.position += 1;
        Ok(())
    }
}
