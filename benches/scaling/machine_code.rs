//! Which instructions lock the line they write: a `lock` prefix, or an exchange with memory, on x86-64.

use std::fs;
use std::ops::Range;

/// The maps of this process that hold code, one a line, as the system writes them; `None` if it does not say.
pub(crate) fn mapped() -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let code = maps.lines().filter(|line| line.contains(" r-xp ") && line.contains(" /"));
    Some(code.flat_map(|line| [line, "\n"]).collect())
}

/// The code of another process, by its addresses.
pub(crate) struct Code(Vec<(Range<u64>, Vec<u8>)>);

impl Code {
    /// From what [`mapped`] said in that process.
    pub(crate) fn of(maps: &str) -> Self {
        Self(maps.lines().filter_map(Self::part).collect())
    }

    fn part(line: &str) -> Option<(Range<u64>, Vec<u8>)> {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = (number(start)?, number(end)?);
        let offset = usize::try_from(number(fields.nth(1)?)?).ok()?;
        let file = fs::read(line.get(line.find('/')?..)?.trim_end()).ok()?;
        let length = usize::try_from(end - start).ok()?;
        let bytes = file.get(offset..(offset + length).min(file.len()))?;
        Some((start..end, bytes.to_vec()))
    }

    /// Whether the instruction at this address locks.
    pub(crate) fn locks(&self, address: u64) -> bool {
        let part = self.0.iter().find(|(range, _)| range.contains(&address));
        let bytes = part.and_then(|(range, bytes)| bytes.get(usize::try_from(address - range.start).ok()?..));
        bytes.is_some_and(locks)
    }
}

pub(crate) fn locks(instruction: &[u8]) -> bool {
    let is_prefix =
        |byte: &&u8| matches!(**byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let prefixes = instruction.iter().take_while(is_prefix).count();
    let (prefixes, rest) = instruction.split_at(prefixes);
    let rest = if matches!(rest.first(), Some(0x40..=0x4f)) { &rest[1..] } else { rest };
    // An exchange whose second operand is memory and not a register.
    let exchanges = matches!(rest, [0x86 | 0x87, operands, ..] if operands >> 6 != 3);
    prefixes.contains(&0xf0) || exchanges
}
