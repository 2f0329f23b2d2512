//! What the table shows of a function: its columns, and a function's cells in them.

use anstyle::{AnsiColor, Style};
use pcidevs::device::{BridgeKind, BusRange};
use pcidevs::topology::Function;
use pcidevs::{Holder, Owner, Sbdf, Status};

use super::table::{Align, Cell, Column, UNKNOWN};
use super::text::{count, printable};
use super::{capabilities, names};

const LEFT: Column = Column {
    title: "",
    short_title: "",
    align: Align::Left,
    comfort: 0,
    least: 0,
    rank: u8::MAX,
    telling: false,
};

/// A width that no column has: it never gives way.
const FIXED: usize = usize::MAX;

/// The columns, first to last.
pub(super) const COLUMNS: &[Column] = &[
    Column { title: "ADDRESS", short_title: "ADDRESS", comfort: FIXED, least: 40, ..LEFT },
    Column { title: "NAME", short_title: "NAME", comfort: 28, least: 13, rank: 9, telling: true, ..LEFT },
    Column { title: "CLASS", short_title: "CLASS", comfort: 12, least: 8, rank: 7, ..LEFT },
    Column { title: "DRIVER", short_title: "DRIVER", comfort: FIXED, least: 8, rank: 6, ..LEFT },
    Column {
        title: "GROUP",
        short_title: "GRP",
        comfort: FIXED,
        least: FIXED,
        rank: 5,
        align: Align::Right,
        ..LEFT
    },
    Column { title: "RELATION", short_title: "RELATION", comfort: FIXED, least: FIXED, rank: 4, ..LEFT },
    Column { title: "OWNER", short_title: "OWNER", comfort: FIXED, least: 5, rank: 3, ..LEFT },
    Column { title: "HELD BY", short_title: "HELD", comfort: FIXED, least: FIXED, rank: 2, ..LEFT },
    Column { title: "CAPABILITIES", short_title: "CAPABILITIES", comfort: 20, least: 8, rank: 1, ..LEFT },
];

const DIM: Style = Style::new().dimmed();
const ADDRESS: Style = AnsiColor::Cyan.on_default();
const BRIDGE: Style = AnsiColor::Blue.on_default();
const DRIVER: Style = AnsiColor::Green.on_default();
const QUARANTINED: Style = AnsiColor::Yellow.on_default();
const HELD: Style = AnsiColor::Magenta.on_default();

/// The line above a table's columns.
pub(super) const TITLES: Style = Style::new().bold();

/// A function's row. `branches` is what the tree draws before its address, `vfs` how many virtual functions the
/// machine has of it.
pub(super) fn row(function: &Function, status: Option<&Status>, vfs: usize, branches: &str) -> Vec<Cell> {
    let (class, short_class) = names::class(function);
    let (name, short_name) = names::device(function);
    let name = Cell::new(name, short_name);
    let name = if function.is_virtual() {
        name.styled(DIM)
    } else if function.bridge.is_some() {
        name.styled(BRIDGE)
    } else {
        name
    };
    vec![
        address(function.address, branches),
        name,
        Cell::new(class, short_class),
        Cell::plain(function.driver.as_deref().map_or_else(String::new, printable)).styled(DRIVER),
        Cell::plain(function.group.map_or_else(String::new, |group| group.to_string())),
        relation(function, vfs, branches),
        owner(status),
        held_by(status),
        Cell::plain(capabilities::names(function)).styled(DIM),
    ]
}

fn address(address: Sbdf, branches: &str) -> Cell {
    let short_branches = branches.replace("   ", "  ").replace("│  ", "│ ").replace('─', "");
    let short = without_segment(address);
    Cell::new(format!("{branches}{address}"), format!("{short_branches}{short}")).styled(ADDRESS)
}

/// The segment stands above the table.
fn without_segment(address: Sbdf) -> String {
    format!("{}:{}", address.bus(), address.devfn())
}

/// Whose virtual function it is, how many it has, or which buses are behind it.
fn relation(function: &Function, vfs: usize, branches: &str) -> Cell {
    if let Some(pf) = function.physfn {
        // In the tree its place says whose it is.
        let short = if branches.is_empty() { format!("VF {}", without_segment(pf)) } else { "VF".to_owned() };
        return Cell::new(format!("VF of {pf}"), short);
    }
    if let Some(sriov) = function.sriov() {
        let total = sriov.total_vfs;
        return Cell::new(format!("PF, {vfs} of {total} VFs"), format!("PF {vfs}/{total}"));
    }
    if vfs > 0 {
        return Cell::new(format!("PF, {}", count(vfs, "VF")), format!("PF {vfs}"));
    }
    let Some(range) = function.bridge else { return Cell::default() };
    let buses = buses(range);
    let kind = match BridgeKind::read(function.config_space()) {
        Some(BridgeKind::RootPort) => "root port",
        Some(BridgeKind::SwitchUpstream) => "switch up",
        Some(BridgeKind::SwitchDownstream) => "switch down",
        _ => "bridge",
    };
    Cell::new(format!("{kind} to {buses}"), format!("to {buses}"))
}

fn buses(range: BusRange) -> String {
    match (range.secondary, range.subordinate) {
        (first, _) if first.number() == 0 => "none".into(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

fn owner(status: Option<&Status>) -> Cell {
    match status.and_then(|status| status.owner) {
        Some(Owner::Quarantine) => Cell::new("quarantine", "quar.").styled(QUARANTINED),
        Some(owner) => Cell::plain(owner.to_string()),
        None => Cell::plain(UNKNOWN),
    }
}

/// Who holds references, alike ones counted; in short only how many there are.
fn held_by(status: Option<&Status>) -> Cell {
    let Some(status) = status.filter(|status| status.uses > 0) else { return Cell::default() };
    let (mut vfs, mut children, mut others) = (0, 0, Vec::new());
    for holder in &status.holders {
        match holder {
            Holder::Vf(_) => vfs += 1,
            Holder::Child(_) => children += 1,
            other => others.push(other.to_string()),
        }
    }
    let mut holders = Vec::new();
    if vfs > 0 {
        holders.push(count(vfs, "VF"));
    }
    if children > 0 {
        holders.push(count(children, "device"));
    }
    holders.append(&mut others);
    if status.unnamed > 0 {
        holders.push(format!("{} unnamed", status.unnamed));
    }
    Cell::new(holders.join(", "), status.uses.to_string()).styled(HELD)
}
