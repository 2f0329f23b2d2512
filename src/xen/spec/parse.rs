//! The parser: an address first, or keys only.

use std::str::FromStr;

use super::{Functions, GuestSlot, InvalidSpec, Problem, RdmPolicy, Spec, Which};
use crate::address::{Bus, Segment};

impl FromStr for Spec {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let mut fields = fields(text);
        let mut partial = Partial { spec: Spec::named_by(Which::Name), address: None };
        // The first field is an address unless it is a key's.
        if let Some((position, first)) = fields.next() {
            if first.contains('=') {
                partial.pair(position, first)?;
            } else {
                partial.address(position, first)?;
            }
        }
        let mut fields = fields.peekable();
        while let Some((position, field)) = fields.next() {
            // xl takes a comma at the end, and so does everybody's configuration.
            if field.is_empty() && fields.peek().is_none() {
                break;
            }
            partial.pair(position, field)?;
        }
        match (partial.address, &partial.spec.name) {
            (Some(which), _) => Ok(Self { which, ..partial.spec }),
            (None, Some(_)) => Ok(partial.spec),
            (None, None) => Err(InvalidSpec { position: text.len(), problem: Problem::Nothing }),
        }
    }
}

/// What is between commas, and where it begins.
fn fields(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(',').scan(0, |next, field| {
        let position = *next;
        *next += field.len() + 1;
        Some((position, field))
    })
}

struct Partial {
    spec: Spec,
    address: Option<Which>,
}

impl Partial {
    fn address(&mut self, position: usize, text: &str) -> Result<(), InvalidSpec> {
        let error = |at: usize, problem| InvalidSpec { position: position + at, problem };
        if self.address.is_some() {
            return Err(error(0, Problem::Twice));
        }
        let (address, slot) = match text.split_once('@') {
            Some((address, slot)) => (address, Some(slot)),
            None => (text, None),
        };
        let (rest, function) = address.split_once('.').ok_or_else(|| error(0, Problem::Address))?;
        let (buses, device) = rest.rsplit_once(':').ok_or_else(|| error(0, Problem::Address))?;
        let (segment, bus) = match buses.split_once(':') {
            Some((segment, bus)) => (hex(segment, 1..=8).ok_or_else(|| error(0, Problem::Address))?, bus),
            None => (0, buses),
        };
        let bus = hex(bus, 1..=2).and_then(|bus| u8::try_from(bus).ok());
        let bus = Bus::new(bus.ok_or_else(|| error(0, Problem::Address))?);
        let at_device = buses.len() + 1;
        let device = hex(device, 1..=2).and_then(|device| u8::try_from(device).ok());
        let device =
            device.filter(|device| *device <= 0x1f).ok_or_else(|| error(at_device, Problem::Device))?;
        let functions = match function {
            "*" => Functions::All,
            one => match one.as_bytes() {
                [digit @ b'0'..=b'7'] => Functions::One(digit - b'0'),
                _ => return Err(error(rest.len() + 1, Problem::Function)),
            },
        };
        self.address = Some(Which::Address { segment: Segment::new(segment), bus, device, functions });
        match slot {
            Some(slot) => self.slot(position + address.len() + 1, slot),
            None => Ok(()),
        }
    }

    fn pair(&mut self, position: usize, text: &str) -> Result<(), InvalidSpec> {
        let error = |problem| InvalidSpec { position, problem };
        let (key, value) = text.split_once('=').ok_or(error(Problem::Pair))?;
        let at = position + key.len() + 1;
        match key {
            "bdf" => self.address(at, value),
            "vslot" => self.slot(at, value),
            "permissive" => switch(&mut self.spec.permissive, position, at, value),
            "msitranslate" => switch(&mut self.spec.msitranslate, position, at, value),
            "seize" => switch(&mut self.spec.seize, position, at, value),
            "power_mgmt" => switch(&mut self.spec.power_mgmt, position, at, value),
            "rdm_policy" => {
                let policy = match value {
                    "strict" => RdmPolicy::Strict,
                    "relaxed" => RdmPolicy::Relaxed,
                    _ => return Err(InvalidSpec { position: at, problem: Problem::Policy }),
                };
                once(&mut self.spec.rdm_policy, policy, position)
            }
            "name" => {
                // A name goes into xenstore and comes back in lists: what is printed is what is there.
                if value.is_empty()
                    || value.contains(|c: char| c.is_control() || c == '=' || c.is_whitespace())
                {
                    return Err(InvalidSpec { position: at, problem: Problem::Name });
                }
                once(&mut self.spec.name, value.to_owned(), position)
            }
            _ => Err(error(Problem::UnknownKey)),
        }
    }

    fn slot(&mut self, position: usize, text: &str) -> Result<(), InvalidSpec> {
        let number = hex(text, 1..=2).and_then(|number| u8::try_from(number).ok()).and_then(GuestSlot::new);
        let slot = number.ok_or(InvalidSpec { position, problem: Problem::Slot })?;
        once(&mut self.spec.slot, slot, position)
    }
}

fn switch(place: &mut Option<bool>, key: usize, position: usize, value: &str) -> Result<(), InvalidSpec> {
    let on = match value {
        "0" => false,
        "1" => true,
        _ => return Err(InvalidSpec { position, problem: Problem::Switch }),
    };
    once(place, on, key)
}

fn once<T>(place: &mut Option<T>, value: T, position: usize) -> Result<(), InvalidSpec> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(InvalidSpec { position, problem: Problem::Twice }),
    }
}

/// Hexadecimal digits, this many, and nothing else: no sign, no blank, no `0x`.
fn hex(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let well_formed = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if well_formed { u32::from_str_radix(text, 16).ok() } else { None }
}
