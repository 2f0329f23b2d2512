//! The picture: accesses a second against cores, a line for each strategy.

use crate::files::Known;
use crate::model::{Accessed, DEVICES, transfer_here};
use crate::operations::Operation;
use crate::published::LARGE;
use crate::strategies::{Known as Strategy, Pcidevs, known as strategies};
use crate::strategy::Strategy as _;
use crate::svg::{Anchor, FAINT, GRID, LogAxis, Style, Svg, tick_label};

const WIDTH: f64 = 940.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 660.0;
const TOP: f64 = 92.0;
const BOTTOM: f64 = 540.0;

/// The least distance of two labels.
const APART: f64 = 16.0;

/// One strategy: for each number of cores, accesses a second at worst, in between and at best.
struct Line {
    name: &'static str,
    color: &'static str,
    width: f64,
    dashed: bool,
    doubtful: bool,
    points: Vec<(f64, [f64; 3])>,
}

impl Line {
    fn of(known: &Known, strategy: &Strategy) -> Result<Self, String> {
        let accessed = Accessed::of(known, strategy.name, Operation::Read)?;
        let second = |throughput: f64| throughput * 1e9;
        let mut points = vec![(1.0, [second(1.0 / accessed.alone); 3])];
        points.extend(accessed.two.map(|time| (2.0, [second(2.0 / time); 3])));
        points.extend(LARGE.iter().map(|large| {
            let transfers = [large.transfer.high, large.transfer.middle(), large.transfer.low];
            (large.cores, transfers.map(|transfer| second(accessed.throughput(large.cores, transfer).0)))
        }));
        let ours = strategy.name == Pcidevs::NAME;
        let kept = strategy.promises.all_kept();
        let (color, width) = if ours {
            ("#d55e00", 3.0)
        } else if kept {
            ("#0072b2", 1.6)
        } else {
            ("#6b7280", 1.4)
        };
        let doubtful = accessed.is_doubtful(transfer_here(known)?);
        Ok(Self { name: strategy.name, color, width, dashed: !kept, doubtful, points })
    }

    fn label(&self) -> String {
        let mark = match (self.dashed, self.doubtful) {
            (false, false) => "",
            (true, false) => " †",
            (false, true) => " ‡",
            (true, true) => " † ‡",
        };
        format!("{}{mark}", self.name)
    }
}

pub(crate) fn draw(known: &Known) -> Result<String, String> {
    let lines: Result<Vec<Line>, String> =
        strategies().iter().map(|strategy| Line::of(known, strategy)).collect();
    let mut lines = lines?;
    // Ours last, on top.
    lines.sort_by_key(|line| line.name == Pcidevs::NAME);
    let figures = lines.iter().flat_map(|line| line.points.iter().flat_map(|(_, figures)| *figures));
    let axis = LogAxis::over(figures, (BOTTOM, TOP));
    let across = LogAxis::over([1.0, 256.0].into_iter(), (LEFT, RIGHT));
    let mut svg = Svg::new(WIDTH, BOTTOM + 92.0);
    svg.text(20.0, 30.0, "What more cores can reach at most", Style::title());
    let subtitle = format!(
        "A locked config read by address, {DEVICES} devices, each core its own. 1 and 2 cores: measured, {}. \
         More: modelled.",
        known.machine()
    );
    svg.text(20.0, 50.0, &subtitle, Style::faint(Anchor::Start));
    scales(&mut svg, &axis, &across);
    for line in &lines {
        let middle: Vec<(f64, f64)> =
            line.points.iter().map(|(cores, figures)| (across.at(*cores), axis.at(figures[1]))).collect();
        svg.path(&middle, line.color, line.width, line.dashed);
        for ((cores, figures), point) in line.points.iter().zip(&middle) {
            let modelled = *cores > 2.0;
            if modelled {
                let x = across.at(*cores);
                svg.line((x, axis.at(figures[0])), (x, axis.at(figures[2])), line.color, 1.0);
            }
            svg.marker(if modelled { 3 } else { 0 }, *point, line.color, line.width + 1.2);
        }
    }
    label(&mut svg, &axis, &across, &lines);
    let notes = [
        "Filled: measured. Hollow: modelled from the lines two threads share, and what a line's transfer costs by \
         published measurements; bars: from its worst to its best.",
        "† and dashed: breaks a promise of the removal. Blue: keeps all promises. ‡: with two cores the model is wrong by \
         more than a factor of two.",
    ];
    for (row, note) in notes.iter().enumerate() {
        svg.text(20.0, BOTTOM + 64.0 + 17.0 * row as f64, note, Style::faint(Anchor::Start));
    }
    Ok(svg.finish())
}

fn scales(svg: &mut Svg, axis: &LogAxis, across: &LogAxis) {
    for tick in axis.ticks() {
        svg.line((LEFT, axis.at(tick)), (RIGHT, axis.at(tick)), GRID, 1.0);
        svg.text(LEFT - 8.0, axis.at(tick) + 4.0, &rate(tick), Style::faint(Anchor::End));
    }
    svg.text(20.0, TOP - 14.0, "accesses a second, all cores together", Style::plain(Anchor::Start));
    for cores in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0] {
        let x = across.at(cores);
        svg.line((x, BOTTOM), (x, BOTTOM + 5.0), FAINT, 1.0);
        svg.text(x, BOTTOM + 19.0, &tick_label(cores), Style::faint(Anchor::Middle));
    }
    svg.text(f64::midpoint(LEFT, RIGHT), BOTTOM + 40.0, "cores", Style::plain(Anchor::Middle));
}

/// Accesses a second.
fn rate(tick: f64) -> String {
    if tick >= 1e9 { format!("{} G", tick / 1e9) } else { tick_label(tick) }
}

/// Each line's name beside its end, moved up or down where it would cover another.
fn label(svg: &mut Svg, axis: &LogAxis, across: &LogAxis, lines: &[Line]) {
    let end = |line: &Line| line.points.last().map_or(BOTTOM, |(_, figures)| axis.at(figures[1]));
    let mut lines: Vec<&Line> = lines.iter().collect();
    lines.sort_by(|one, other| end(one).total_cmp(&end(other)));
    let mut places: Vec<f64> = lines.iter().map(|line| end(line)).collect();
    for place in 1..places.len() {
        places[place] = places[place].max(places[place - 1] + APART);
    }
    let mut lowest = BOTTOM;
    for place in places.iter_mut().rev() {
        *place = place.min(lowest);
        lowest = *place - APART;
    }
    for (line, y) in lines.iter().zip(places) {
        svg.path(&[(across.at(256.0) + 5.0, end(line)), (RIGHT + 14.0, y)], line.color, 0.7, false);
        let style =
            Style { color: line.color, bold: line.name == Pcidevs::NAME, ..Style::plain(Anchor::Start) };
        svg.text(RIGHT + 18.0, y + 4.0, &line.label(), style);
    }
}
