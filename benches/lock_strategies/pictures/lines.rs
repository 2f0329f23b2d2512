//! A line for each strategy over growing circumstances, labelled where it ends.

use super::svg::{Anchor, FAINT, GRID, LogAxis, Style, Svg, tick_label};
use super::{Kind, kind};
use crate::floors::FLOOR;
use crate::measured::Column;
use crate::strategies::known;

/// One place on the axis below.
pub(super) struct Place<'a> {
    pub(super) label: String,
    pub(super) column: &'a Column,
}

pub(super) struct Lines<'a> {
    pub(super) title: &'a str,
    pub(super) subtitle: String,
    pub(super) below: &'a str,
    pub(super) left: &'a str,
    pub(super) places: Vec<Place<'a>>,
}

const WIDTH: f64 = 900.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 640.0;
const TOP: f64 = 86.0;
const BOTTOM: f64 = 500.0;

/// The least distance of two labels.
const APART: f64 = 15.0;

/// One strategy's line.
struct Line {
    name: String,
    kind: Kind,
    points: Vec<(f64, f64)>,
}

pub(super) fn draw(lines: &Lines<'_>) -> String {
    let mut svg = Svg::new(WIDTH, BOTTOM + 72.0);
    svg.text(20.0, 30.0, lines.title, Style::title());
    svg.text(20.0, 50.0, &lines.subtitle, Style::faint(Anchor::Start));
    let names: Vec<String> =
        [FLOOR].into_iter().chain(known().iter().map(|known| known.name)).map(str::to_owned).collect();
    let median = |name: &str, place: &Place<'_>| Some(place.column.of(name)?.spread().median);
    let all = names.iter().flat_map(|name| lines.places.iter().filter_map(move |place| median(name, place)));
    let axis = LogAxis::over(all, (BOTTOM, TOP));
    let x = |place: usize| {
        LEFT + 20.0 + (RIGHT - LEFT - 30.0) * place as f64 / (lines.places.len().max(2) - 1) as f64
    };
    for tick in axis.ticks() {
        svg.line((LEFT, axis.at(tick)), (RIGHT, axis.at(tick)), GRID, 1.0);
        svg.text(LEFT - 8.0, axis.at(tick) + 4.0, &tick_label(tick), Style::faint(Anchor::End));
    }
    svg.text(20.0, TOP - 12.0, lines.left, Style::plain(Anchor::Start));
    for (place, of) in lines.places.iter().enumerate() {
        svg.line((x(place), BOTTOM), (x(place), BOTTOM + 5.0), FAINT, 1.0);
        svg.text(x(place), BOTTOM + 19.0, &of.label, Style::faint(Anchor::Middle));
    }
    svg.text(f64::midpoint(LEFT, RIGHT), BOTTOM + 40.0, lines.below, Style::plain(Anchor::Middle));
    let mut drawn: Vec<Line> = names
        .into_iter()
        .map(|name| {
            let points = lines
                .places
                .iter()
                .enumerate()
                .filter_map(|(at, place)| Some((x(at), axis.at(median(&name, place)?))));
            Line { points: points.collect(), kind: kind(&name), name }
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    // Ours last, on top.
    drawn.sort_by_key(|line| line.kind == Kind::Ours);
    for line in &drawn {
        let (color, width) = look(line.kind);
        svg.path(&line.points, color, width, matches!(line.kind, Kind::Breaks | Kind::Floor));
        for point in &line.points {
            svg.marker(0, *point, color, width + 1.0);
        }
    }
    label(&mut svg, drawn);
    svg.text(20.0, BOTTOM + 62.0, super::NOTE, Style::faint(Anchor::Start));
    svg.finish()
}

fn look(kind: Kind) -> (&'static str, f64) {
    match kind {
        Kind::Ours => ("#d55e00", 3.0),
        Kind::Keeps => ("#0072b2", 1.6),
        Kind::Breaks => ("#6b7280", 1.4),
        Kind::Floor => ("#9ca3af", 1.0),
    }
}

/// Each line's name beside its end, moved up or down where it would cover another.
fn label(svg: &mut Svg, mut lines: Vec<Line>) {
    let end = |line: &Line| line.points.last().copied().unwrap_or((RIGHT, BOTTOM));
    lines.sort_by(|one, other| end(one).1.total_cmp(&end(other).1));
    let mut places: Vec<f64> = lines.iter().map(|line| end(line).1).collect();
    for place in 1..places.len() {
        places[place] = places[place].max(places[place - 1] + APART);
    }
    let mut lowest = BOTTOM;
    for place in places.iter_mut().rev() {
        *place = place.min(lowest);
        lowest = *place - APART;
    }
    for (line, y) in lines.iter().zip(places) {
        let (color, _) = look(line.kind);
        svg.path(&[end(line), (RIGHT + 12.0, y)], color, 0.7, false);
        let name = if line.kind == Kind::Breaks { format!("{} †", line.name) } else { line.name.clone() };
        let style = Style { color, bold: line.kind == Kind::Ours, ..Style::plain(Anchor::Start) };
        svg.text(RIGHT + 16.0, y + 4.0, &name, style);
    }
}
