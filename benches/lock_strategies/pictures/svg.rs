//! The little of SVG that the pictures need.
//!
//! A picture has a background of its own, so that it can be read on a light page and on a dark one.

use std::fmt::Write as _;

use crate::measuring::report::figure;

pub(super) const TEXT: &str = "#1f2937";
pub(super) const FAINT: &str = "#6b7280";
pub(super) const GRID: &str = "#e5e7eb";
const BACKGROUND: &str = "#ffffff";

/// A picture under construction.
pub(super) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

/// Where a text is anchored.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) size: f64,
    pub(super) color: &'static str,
    pub(super) bold: bool,
    pub(super) anchor: Anchor,
}

impl Style {
    pub(super) const fn plain(anchor: Anchor) -> Self {
        Self { size: 12.0, color: TEXT, bold: false, anchor }
    }

    pub(super) const fn faint(anchor: Anchor) -> Self {
        Self { size: 11.0, color: FAINT, bold: false, anchor }
    }

    pub(super) const fn title() -> Self {
        Self { size: 16.0, color: TEXT, bold: true, anchor: Anchor::Start }
    }
}

impl Svg {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    pub(super) fn text(&mut self, x: f64, y: f64, text: &str, style: Style) {
        let anchor = match style.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if style.bold { " font-weight=\"bold\"" } else { "" };
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{}\" fill=\"{}\" text-anchor=\"{anchor}\"{weight}>{text}</text>",
            style.size, style.color
        );
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str, width: f64) {
        let _ = writeln!(
            self.body,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{color}\" stroke-width=\"{width}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    pub(super) fn path(&mut self, points: &[(f64, f64)], color: &str, width: f64, dashed: bool) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dashes = if dashed { " stroke-dasharray=\"5 3\"" } else { "" };
        let _ = writeln!(
            self.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\"{dashes}/>",
            points.join(" ")
        );
    }

    /// One of several shapes, told apart without colours as well.
    pub(super) fn marker(&mut self, shape: usize, (x, y): (f64, f64), color: &str, size: f64) {
        let side = size * 1.8;
        let (left, top) = (x - side / 2.0, y - side / 2.0);
        let square = format!(
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{side:.1}\" height=\"{side:.1}\" fill=\"{color}\""
        );
        let _ = match shape % 4 {
            0 => writeln!(self.body, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{size}\" fill=\"{color}\"/>"),
            1 => writeln!(self.body, "{square} transform=\"rotate(45 {x:.1} {y:.1})\"/>"),
            2 => writeln!(self.body, "{square}/>"),
            _ => writeln!(
                self.body,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{size}\" fill=\"{BACKGROUND}\" stroke=\"{color}\" stroke-width=\"1.8\"/>"
            ),
        };
    }

    pub(super) fn finish(self) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             font-family=\"system-ui, 'DejaVu Sans', Helvetica, Arial, sans-serif\">\n\
             <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n{body}</svg>\n"
        )
    }
}

/// A logarithmic axis.
pub(super) struct LogAxis {
    low: f64,
    high: f64,
    /// Where `low` and `high` are in the picture.
    span: (f64, f64),
}

impl LogAxis {
    /// Wide enough for these figures, and a little more.
    pub(super) fn over(figures: impl Iterator<Item = f64>, span: (f64, f64)) -> Self {
        let (low, high) = figures
            .filter(|figure| *figure > 0.0)
            .fold((f64::MAX, f64::MIN), |(low, high), figure| (low.min(figure), high.max(figure)));
        let (low, high) = if low > high { (1.0, 10.0) } else { (low / 1.25, high * 1.25) };
        Self { low, high, span }
    }

    pub(super) fn at(&self, figure: f64) -> f64 {
        let part = (figure.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        self.span.0 + part * (self.span.1 - self.span.0)
    }

    /// 1, 2, 5, 10 and so on; only the tens where there are many.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let decades = (self.high / self.low).log10();
        let steps: &[f64] = if decades > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let first = self.low.log10().floor();
        let all = (0..12)
            .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powf(first + f64::from(decade))));
        all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
    }
}

/// A figure as an axis has it.
pub(super) fn tick_label(tick: f64) -> String {
    if tick >= 1e6 {
        format!("{} M", tick / 1e6)
    } else if tick >= 1e3 {
        format!("{} k", tick / 1e3)
    } else if tick >= 1.0 {
        format!("{}", tick.round())
    } else {
        figure(tick)
    }
}
