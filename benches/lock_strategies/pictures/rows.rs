//! A row for each strategy, in it a marker for each of a few circumstances, on a logarithmic axis.

use super::svg::{Anchor, FAINT, GRID, LogAxis, Style, Svg, TEXT, tick_label};
use super::{Kind, kind};
use crate::floors::FLOOR;
use crate::measured::Column;
use crate::strategies::known;

/// What the markers of one kind show.
pub(super) struct Mark<'a> {
    pub(super) label: String,
    pub(super) column: &'a Column,
}

pub(super) struct Rows<'a> {
    pub(super) title: &'a str,
    pub(super) subtitle: String,
    pub(super) axis: &'a str,
    pub(super) marks: Vec<Mark<'a>>,
}

/// Told apart by people who do not see all colours, and by their shapes.
const COLORS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#7c3aed"];

const WIDTH: f64 = 900.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 870.0;
const TOP: f64 = 96.0;
const ROW: f64 = 25.0;

pub(super) fn draw(rows: &Rows<'_>) -> String {
    let measured = |name: &&str| rows.marks.iter().any(|mark| mark.column.of(name).is_some());
    let names: Vec<&str> = known().into_iter().map(|strategy| strategy.name).filter(measured).collect();
    let bottom = TOP + ROW * names.len() as f64;
    let mut svg = Svg::new(WIDTH, bottom + 62.0);
    svg.text(20.0, 30.0, rows.title, Style::title());
    svg.text(20.0, 50.0, &rows.subtitle, Style::faint(Anchor::Start));
    let spreads = |mark: &Mark<'_>| {
        names.iter().filter_map(|name| Some(mark.column.of(name)?.spread())).collect::<Vec<_>>()
    };
    let figures = rows.marks.iter().flat_map(spreads).flat_map(|spread| [spread.low, spread.high]);
    let axis = LogAxis::over(figures.chain(floor(rows)), (LEFT, RIGHT));
    legend(&mut svg, &rows.marks);
    for tick in axis.ticks() {
        svg.line((axis.at(tick), TOP), (axis.at(tick), bottom), GRID, 1.0);
        svg.text(axis.at(tick), bottom + 16.0, &tick_label(tick), Style::faint(Anchor::Middle));
    }
    svg.text(f64::midpoint(LEFT, RIGHT), bottom + 36.0, rows.axis, Style::plain(Anchor::Middle));
    if let Some(floor) = floor(rows) {
        svg.path(&[(axis.at(floor), TOP), (axis.at(floor), bottom)], FAINT, 1.2, true);
        svg.text(axis.at(floor), TOP - 4.0, "lock pair, 1 thread", Style::faint(Anchor::Middle));
    }
    for (row, name) in names.iter().enumerate() {
        let y = TOP + ROW * (row as f64 + 0.5);
        row_of(&mut svg, rows, &axis, name, y);
    }
    svg.text(20.0, bottom + 54.0, super::NOTE, Style::faint(Anchor::Start));
    svg.finish()
}

/// The lock pair of the first marks, which are those of one thread.
fn floor(rows: &Rows<'_>) -> Option<f64> {
    Some(rows.marks.first()?.column.of(FLOOR)?.spread().median)
}

fn legend(svg: &mut Svg, marks: &[Mark<'_>]) {
    let mut x = LEFT;
    for (place, mark) in marks.iter().enumerate() {
        svg.marker(place, (x, 71.0), COLORS[place % COLORS.len()], 5.0);
        svg.text(x + 11.0, 75.0, &mark.label, Style::plain(Anchor::Start));
        x += 34.0 + 6.7 * mark.label.chars().count() as f64;
    }
}

fn row_of(svg: &mut Svg, rows: &Rows<'_>, axis: &LogAxis, name: &str, y: f64) {
    svg.line((LEFT, y), (RIGHT, y), GRID, 1.0);
    let ours = kind(name) == Kind::Ours;
    let label = if kind(name) == Kind::Breaks { format!("{name} †") } else { name.to_owned() };
    let style = Style { bold: ours, color: TEXT, ..Style::plain(Anchor::End) };
    svg.text(LEFT - 12.0, y + 4.0, &label, style);
    // The first marks last, so that they are on top.
    for (place, mark) in rows.marks.iter().enumerate().rev() {
        let Some(series) = mark.column.of(name) else { continue };
        let (spread, color) = (series.spread(), COLORS[place % COLORS.len()]);
        svg.line((axis.at(spread.low), y), (axis.at(spread.high), y), color, 2.0);
        svg.marker(place, (axis.at(spread.median), y), color, if ours { 6.0 } else { 5.0 });
    }
}
