//! The best VFIO driver for a function: a variant that knows its hardware, or `vfio-pci`.
//!
//! Variant drivers announce themselves in `modules.alias` with aliases that begin with `vfio_pci:` instead of `pci:`.
//! Of those that match, the one with the fewest wildcards knows the device best. The file is read bounded, and a
//! pattern is matched in time linear in each restart, so a hostile one costs time, not the machine.

use super::function;
use super::kernel::{Kernel, Place, Root};
use super::name::DriverName;
use crate::Sbdf;
use crate::errno::Errno;

/// The largest `modules.alias` that is read; the largest seen is a tenth of that.
const LARGEST: usize = 16 << 20;
/// The longest alias that is looked at.
const LONGEST_ALIAS: usize = 256;

/// The best variant driver's module for a function; `None` if only `vfio-pci` will do.
pub(super) fn find(kernel: &dyn Kernel, device: Sbdf) -> Result<Option<DriverName>, Errno> {
    let Some(modalias) = function::text(kernel, device, "modalias")? else { return Ok(None) };
    let Some(ids) = modalias.strip_prefix("pci:") else { return Ok(None) };
    let release = kernel.read(&Place::new(Root::Proc, "sys/kernel/osrelease")?, 256)?;
    let release = String::from_utf8_lossy(&release);
    let place = Place::new(Root::Modules, format!("{}/modules.alias", release.trim_end()))?;
    let aliases = match function::optional(kernel.read(&place, LARGEST)) {
        Ok(Some(aliases)) => aliases,
        // Without the list, or with one that cannot be it, the driver that every device can have is the one.
        Ok(None) | Err(Errno::EFBIG) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(best(&aliases, ids))
}

/// The module whose alias matches with the fewest wildcards; the first of several.
fn best(aliases: &[u8], ids: &str) -> Option<DriverName> {
    let mut best: Option<(usize, DriverName)> = None;
    for line in aliases.split(|byte| *byte == b'\n') {
        let Some((pattern, module)) = parse(line) else { continue };
        let wildcards = pattern.bytes().filter(|byte| *byte == b'*').count();
        let is_better = best.as_ref().is_none_or(|(fewest, _)| wildcards < *fewest);
        if is_better && matches(pattern.as_bytes(), ids.as_bytes()) {
            best = module.parse().ok().map(|module| (wildcards, module)).or(best);
        }
    }
    best.map(|(_, module)| module)
}

/// The pattern and the module of a line `alias vfio_pci:PATTERN MODULE`.
fn parse(line: &[u8]) -> Option<(&str, &str)> {
    if line.len() > LONGEST_ALIAS {
        return None;
    }
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    if words.next()? != "alias" {
        return None;
    }
    Some((words.next()?.strip_prefix("vfio_pci:")?, words.next()?))
}

/// Whether a pattern with `*` and `?` matches. A failed match goes back to the last star only.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut next, mut star) = (0, 0, None);
    while next < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, next));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[next] => {
                at += 1;
                next += 1;
            }
            _ => match star {
                Some((place, taken)) => {
                    (at, next) = (place + 1, taken + 1);
                    star = Some((place, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::{best, matches};

    #[test]
    fn a_pattern_matches_as_a_file_name_pattern_does() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abbcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("v000015B3d*", "v000015B3d0000101E", true),
            ("*a*b*", "xxaxxb", true),
            ("*a*b", "xxaxxbx", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_alias_with_the_fewest_wildcards_wins() {
        let ids = "v000015B3d0000101Esv00001AF4sd00000001bc02sc00i00";
        let aliases = b"alias vfio_pci:v000015B3d*sv*sd*bc*sc*i* wide_vfio_pci\n\
            alias pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_core\n\
            alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci\n\
            alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* later_vfio_pci\n\
            alias vfio_pci:v00008086d*sv*sd*bc*sc*i* other_vfio_pci\n\
            alias vfio_pci:v000015B3d0000101Esv00001AF4sd*bc*sc*i* ../evil\n";
        assert_eq!(best(aliases, ids).expect("found").as_str(), "mlx5_vfio_pci");
        assert_eq!(best(aliases, "v00001234d0"), None);
        assert_eq!(best(b"alias\nalias vfio_pci:*\n\xff\n", ids), None);
    }
}
