//! What there is in total, and what was wrong with the source.

use std::collections::{BTreeMap, BTreeSet};

use pcidevs::Owner;
use pcidevs::topology::{Machine, Warning};

use super::known::Known;
use super::text::{count, printable, width};

/// So many warnings of one kind are shown one by one; of more, the first.
const FEW: usize = 3;

/// QEMU's subsystem, which it gives the chips of others that it imitates.
const QEMU: (u16, u16) = (0x1af4, 0x1100);

/// What the machine is called, and that it is none of hardware where that can be told.
pub(super) fn title(machine: &Machine, name: &str) -> String {
    let emulated = machine.functions.iter().any(|function| {
        // A guest may also have real functions; the host bridge is its machine's.
        let is_host_bridge = function.class.is_some_and(|class| class >> 8 == 0x0600);
        is_host_bridge && function.subsystem.is_some_and(|it| (it.vendor, it.device) == QEMU)
    });
    let note = if emulated { " (emulated, not real hardware)" } else { "" };
    printable(&format!("{name}{note}"))
}

/// The totals, in as many lines of at most `room` columns as they take.
pub(super) fn totals(machine: &Machine, known: &Known, room: Option<usize>) -> String {
    let functions = &machine.functions;
    let buses: BTreeSet<_> =
        functions.iter().map(|function| (function.address.segment(), function.address.bus())).collect();
    let groups: BTreeSet<_> = functions.iter().filter_map(|function| function.group).collect();
    let pfs: BTreeSet<_> = functions.iter().filter_map(|function| function.physfn).collect();
    let vfs = functions.iter().filter(|function| function.is_virtual()).count();
    let statuses = || functions.iter().filter_map(|function| known.status(function.address));
    let quarantined = statuses().filter(|status| status.owner == Some(Owner::Quarantine)).count();
    let references: usize = statuses().map(|status| usize::try_from(status.uses).unwrap_or(usize::MAX)).sum();
    let vfs = match pfs.len() {
        0 => count(vfs, "VF"),
        pfs => format!("{} of {}", count(vfs, "VF"), count(pfs, "PF")),
    };
    let mut parts = vec![
        count(functions.len(), "function"),
        count(machine.segments().len(), "segment"),
        count(buses.len(), "bus"),
        count(groups.len(), "IOMMU group"),
        vfs,
    ];
    if quarantined > 0 {
        parts.push(format!("{quarantined} in quarantine"));
    }
    parts.push(format!("{} held", count(references, "reference")));
    parts.push(count(machine.warnings.len(), "warning"));
    fill(&parts, room)
}

/// Joins with commas, beginning a line where the next part does not fit.
fn fill(parts: &[String], room: Option<usize>) -> String {
    let mut text = String::new();
    let mut line = 0;
    for part in parts {
        if line > 0 {
            text.push(',');
            let fits = room.is_none_or(|room| line + 2 + width(part) < room);
            text.push(if fits { ' ' } else { '\n' });
            line = if fits { line + 2 } else { 0 };
        }
        text.push_str(part);
        line += width(part);
    }
    text
}

/// The warnings for a person: those of a kind together, and only the first where there are many.
pub(super) fn warnings(machine: &Machine) -> Vec<String> {
    let mut kinds: BTreeMap<_, Vec<&Warning>> = BTreeMap::new();
    for warning in &machine.warnings {
        kinds.entry(warning.kind).or_default().push(warning);
    }
    let mut lines = Vec::new();
    for (kind, warnings) in kinds {
        let shown = if warnings.len() > FEW { 1 } else { warnings.len() };
        for warning in &warnings[..shown] {
            lines.push(printable(&format!("pcidevs: warning: {warning} ({kind})")));
        }
        if warnings.len() > shown {
            let more = warnings.len() - shown;
            lines.push(format!("pcidevs: warning: {more} more like it; --json lists them all ({kind})"));
        }
    }
    lines
}
