//! What the machine is like at one moment: a row for each device, and the sums.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use pcidevs::lifecycle::DeviceStatus;
use pcidevs::platform::AttachmentKind;
use pcidevs::{Holder, Owner, Phase};

use super::world::World;

/// A machine at one moment.
pub(crate) struct Picture {
    rows: Vec<Row>,
    /// Devices by whose they are.
    owners: BTreeMap<&'static str, usize>,
    /// Devices by what is the matter with them.
    states: BTreeMap<&'static str, usize>,
    references: u64,
}

/// One device, or the place where one was.
struct Row {
    cells: [String; COLUMNS],
    style: Style,
    /// It may go to guests.
    moves: bool,
}

const COLUMNS: usize = 6;
const TITLES: [&str; COLUMNS] = ["DEVICE", "OWNER", "REFS", "HELD BY", "ATTACHED", "STATE"];
/// The column that takes what room is left.
const HELD_BY: usize = 3;
/// The column of figures.
const REFERENCES: usize = 2;
/// How wide the columns are at least, so that they do not move while what is in them changes.
const WIDTHS: [usize; COLUMNS] = [12, 10, 4, 7, 14, 10];
const GAP: &str = "  ";

const GUEST: Style = AnsiColor::Cyan.on_default();
const QUARANTINE: Style = AnsiColor::Yellow.on_default();
const BROKEN: Style = AnsiColor::Red.on_default().bold();
const ABSENT: Style = Style::new().dimmed();

impl Picture {
    pub(crate) fn of(world: &World) -> Self {
        let mut statuses: BTreeMap<_, _> =
            world.machine().devices().map(|device| (device.status.address, device)).collect();
        let mut picture =
            Self { rows: Vec::new(), owners: BTreeMap::new(), states: BTreeMap::new(), references: 0 };
        for place in 0..world.plan().len() {
            let address = world.address(place);
            let status = statuses.remove(&address);
            picture.count(status.as_ref());
            let (cells, style) = row(address.to_string(), status.as_ref());
            picture.rows.push(Row { cells, style, moves: world.plan().at(place).endpoint });
        }
        picture
    }

    fn count(&mut self, device: Option<&DeviceStatus>) {
        let kind = match device.and_then(|device| device.status.owner) {
            Some(Owner::Guest(_)) => "guests",
            Some(Owner::Quarantine) => "quarantine",
            Some(_) => "host",
            None => "away",
        };
        *self.owners.entry(kind).or_default() += 1;
        let Some(device) = device else { return };
        self.references += u64::from(device.status.uses);
        let states = [
            (transition(device).is_some(), "moving"),
            (device.broken.is_some(), "broken"),
            (device.deferred, "deferred"),
        ];
        for (_, state) in states.iter().filter(|(is_so, _)| *is_so) {
            *self.states.entry(state).or_default() += 1;
        }
    }

    /// How many devices are whose, and what is the matter with them.
    pub(crate) fn sums(&self) -> String {
        let count = |counts: &BTreeMap<_, _>, kinds: &[&'static str]| {
            let counted = kinds.iter().map(|kind| format!("{} {kind}", counts.get(kind).unwrap_or(&0)));
            counted.collect::<Vec<_>>().join(", ")
        };
        let owners = count(&self.owners, &["host", "guests", "quarantine", "away"]);
        format!("{owners}; {}", count(&self.states, &["moving", "broken", "deferred"]))
    }

    pub(crate) fn references(&self) -> u64 {
        self.references
    }

    /// The table, as many lines of at most so many columns as fit, with its titles.
    pub(crate) fn lines(&self, (columns, rows): (usize, usize), colours: bool) -> Vec<String> {
        let shown = self.choose(rows);
        let mut widths = WIDTHS;
        widths[0] = self.rows.iter().map(|row| row.cells[0].len()).max().unwrap_or_default();
        let others: usize = widths.iter().sum::<usize>() - widths[HELD_BY] + GAP.len() * (COLUMNS - 1);
        widths[HELD_BY] = columns.saturating_sub(others).max(WIDTHS[HELD_BY]);
        let mut lines = vec![cut(&line(&TITLES, &widths), columns)];
        for row in &shown {
            let text = cut(&line(&row.cells, &widths), columns);
            lines.push(if colours { format!("{}{text}{:#}", row.style, row.style) } else { text });
        }
        if shown.len() < self.rows.len() {
            lines.push(cut(&format!("... and {} more", self.rows.len() - shown.len()), columns));
        }
        lines
    }

    /// The rows for which there is room, below the titles: if need be without those that always stay with the host.
    fn choose(&self, room: usize) -> Vec<&Row> {
        if self.rows.len() < room {
            return self.rows.iter().collect();
        }
        let mut chosen: Vec<_> = (0..self.rows.len()).collect();
        chosen.sort_by_key(|place| !self.rows[*place].moves);
        chosen.truncate(room.saturating_sub(2));
        chosen.sort_unstable();
        chosen.into_iter().map(|place| &self.rows[place]).collect()
    }
}

fn row(address: String, device: Option<&DeviceStatus>) -> ([String; COLUMNS], Style) {
    let Some(device) = device else {
        let mut cells = [const { String::new() }; COLUMNS];
        (cells[0], cells[COLUMNS - 1]) = (address, "away".to_owned());
        return (cells, ABSENT);
    };
    let style = match (device.broken, device.status.owner) {
        (Some(_), _) => BROKEN,
        (None, Some(Owner::Guest(_))) => GUEST,
        (None, Some(Owner::Quarantine)) => QUARANTINE,
        (None, _) => Style::new(),
    };
    let owner = device.status.owner.map_or_else(String::new, |owner| owner.to_string());
    let references = device.status.uses.to_string();
    let cells = [address, owner, references, held_by(device), attached(device), state(device).to_owned()];
    (cells, style)
}

fn transition(device: &DeviceStatus) -> Option<&'static str> {
    device.status.holders.iter().find_map(|holder| match holder {
        Holder::Transition(transition) => Some(transition.name()),
        _ => None,
    })
}

fn state(device: &DeviceStatus) -> &'static str {
    match device.status.phase {
        Phase::Removing => "removing",
        Phase::Gone => "gone",
        Phase::Closed => "leaving",
        _ if device.broken.is_some() => "broken",
        _ if device.deferred => "deferred",
        _ => transition(device).unwrap_or_default(),
    }
}

/// Who holds it, apart from transitions, in few words.
fn held_by(device: &DeviceStatus) -> String {
    let (mut vfs, mut children) = (0_usize, 0_usize);
    let mut words = Vec::new();
    for holder in &device.status.holders {
        match holder {
            Holder::Vf(_) => vfs += 1,
            Holder::Child(_) => children += 1,
            Holder::Domain(id) => words.push(format!("domain {id}")),
            Holder::Transition(_) => {}
            other => words.push(other.to_string()),
        }
    }
    words.sort_unstable();
    for (count, thing) in [(vfs, "VF"), (children, "device")] {
        if count > 0 {
            words.insert(0, super::counted(count as u64, thing));
        }
    }
    if device.status.unnamed > 0 {
        words.push(format!("{} unnamed", device.status.unnamed));
    }
    words.join(", ")
}

fn attached(device: &DeviceStatus) -> String {
    let short = |kind: &AttachmentKind| match kind {
        AttachmentKind::MsiVector => "MSI".to_owned(),
        AttachmentKind::MsixTable => "MSI-X".to_owned(),
        other => other.to_string(),
    };
    device.attachments.iter().map(short).collect::<Vec<_>>().join(" ")
}

fn line(cells: &[impl AsRef<str>; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let cell = cut(cell.as_ref(), *width);
        let gap = if column == 0 { "" } else { GAP };
        let _ = match column {
            REFERENCES => write!(line, "{gap}{cell:>width$}"),
            _ => write!(line, "{gap}{cell:<width$}"),
        };
    }
    line.truncate(line.trim_end().len());
    line
}

/// At most so many columns; what is cut off ends in an ellipsis.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use pcidevs::topology::Machine;

    use super::*;

    #[test]
    fn a_picture_fits_any_terminal() {
        let recorded = Machine::bundled().expect("a recording");
        let world = World::build(&recorded, 1, 0).expect("memory");
        let picture = Picture::of(&world);
        let lines = |room| picture.lines(room, false);
        for (columns, rows) in [(79, 22), (79, 200), (119, 40), (60, 5), (20, 3), (1, 1), (0, 0)] {
            let lines = lines((columns, rows));
            assert!(lines.len() <= rows.max(2), "{} lines in {rows}", lines.len());
            assert!(lines.iter().all(|line| line.chars().count() <= columns.max(1)), "{lines:#?}");
        }
        assert_eq!(lines((79, 60)).len(), 60, "the titles and all 59");
        let few = lines((79, 22));
        assert_eq!(few.last().map(String::as_str), Some("... and 39 more"));
        assert!(few[1].starts_with("0000:00:01.0"), "host bridges have to stand back: {}", few[1]);
        assert!(picture.sums().starts_with("59 host, 0 guests"), "{}", picture.sums());
    }
}
