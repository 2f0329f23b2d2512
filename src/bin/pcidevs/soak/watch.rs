//! `--watch`: the moving picture, on a terminal in place, elsewhere as a line now and then.

use std::time::{Duration, Instant};

use anstream::{AutoStream, ColorChoice};

use super::picture::{Picture, cut};
use super::report::grouped;
use super::screen::Screen;
use super::world::World;

/// How often the picture is drawn anew, and how often a line is written.
const FRAME: Duration = Duration::from_millis(150);
const LINE: Duration = Duration::from_secs(1);

/// Whoever watches.
pub(crate) struct Watch {
    /// `None` where there is no terminal.
    screen: Option<Screen>,
    colours: bool,
    length: Duration,
    next: Instant,
}

impl Watch {
    pub(crate) fn begin(length: Duration) -> Self {
        let colours = AutoStream::choice(&std::io::stdout()) != ColorChoice::Never;
        let screen = Screen::take();
        let first = if screen.is_some() { Duration::ZERO } else { LINE };
        Self { screen, colours, length, next: Instant::now() + first }
    }

    /// Shows how it is, if it is time.
    pub(crate) fn look(&mut self, world: &World, elapsed: Duration) {
        if Instant::now() < self.next {
            return;
        }
        let picture = Picture::of(world);
        if let Some(screen) = &mut self.screen {
            let (columns, rows) = Screen::room();
            let mut lines = vec![cut(&headline(world, &picture, elapsed, self.length), columns)];
            lines.push(cut(&picture.sums(), columns));
            lines.extend(picture.lines((columns, rows.saturating_sub(lines.len())), self.colours));
            lines.truncate(rows);
            screen.show(&lines);
            self.next = Instant::now() + FRAME;
        } else {
            super::say(format_args!("{:>5} s: {}", elapsed.as_secs(), picture.sums()));
            self.next += LINE;
        }
    }
}

fn headline(world: &World, picture: &Picture, elapsed: Duration, length: Duration) -> String {
    format!(
        "soak: {} of {} s, {} accesses, {} faults, {} references",
        elapsed.as_secs(),
        length.as_secs(),
        grouped(world.accesses()),
        grouped(world.faults()),
        grouped(picture.references()),
    )
}
