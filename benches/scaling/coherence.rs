//! What turns of two threads mean for the caches of two cores.
//!
//! The cores are ideal: caches without end, so that a line moves only because the other core had it, never for lack
//! of room. A core may read a line as long as the other has not written it since, and write it as long as the other
//! has not touched it since; else the line must come over: a *transfer*. Nothing is left out by hand: the threads'
//! stacks are their own, and so never move.

use std::collections::{HashMap, HashSet};

/// Bytes of a line.
const LINE: u64 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// One turn's accesses to lines, in order.
#[derive(Default)]
struct Turn {
    thread: usize,
    instructions: u64,
    locked: u64,
    accesses: Vec<Touch>,
    locking: bool,
}

/// An access to one line, by the instruction of the turn with this number.
struct Touch {
    line: u64,
    access: Access,
    instruction: u64,
}

/// All turns of one kind.
#[derive(Default)]
pub(crate) struct Turns(Vec<Turn>);

/// Means over the turns.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) instructions: f64,
    /// Instructions that lock their line.
    pub(crate) locked: f64,
    /// Lines written that the other thread writes, too.
    pub(crate) shared_lines: f64,
    /// Writes to these.
    pub(crate) shared_writes: f64,
    /// The same, to that line which has most of them.
    pub(crate) hottest: f64,
    /// Lines that only one of the two writes, and the other reads.
    pub(crate) invalidated: f64,
    /// Lines that both read and nobody writes: these cost nothing.
    pub(crate) read_shared: f64,
    /// Lines that must come over from the other core.
    pub(crate) transfers: f64,
    /// The part of the instructions from the first write to a shared line to the last.
    pub(crate) between: f64,
}

impl Turns {
    pub(crate) fn begin(&mut self, thread: usize) {
        self.0.push(Turn { thread, ..Turn::default() });
    }

    pub(crate) fn instruction(&mut self, locks: bool) {
        if let Some(turn) = self.0.last_mut() {
            turn.instructions += 1;
            turn.locked += u64::from(locks);
            turn.locking = locks;
        }
    }

    pub(crate) fn data(&mut self, address: u64, length: u64, access: Access) {
        if let Some(turn) = self.0.last_mut() {
            // What locks reads and writes, and a core asks for such a line once, to write it.
            let access = if turn.locking { Access::Write } else { access };
            for line in address / LINE..=(address + length.max(1) - 1) / LINE {
                turn.accesses.push(Touch { line, access, instruction: turn.instructions });
            }
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let use_of = self.uses();
        let written_by_both = |line: &u64| use_of[line].written == [true, true];
        let mut sum = Counts::default();
        let mut writes_of: HashMap<u64, f64> = HashMap::new();
        for turn in &self.0 {
            sum.instructions += turn.instructions as f64;
            sum.locked += turn.locked as f64;
            let lines: HashSet<u64> = turn.accesses.iter().map(|touch| touch.line).collect();
            sum.read_shared += lines.iter().filter(|line| use_of[line].is_read_shared()).count() as f64;
            sum.invalidated += lines.iter().filter(|line| use_of[line].is_invalidated()).count() as f64;
            sum.shared_lines += lines
                .iter()
                .filter(|line| written_by_both(line) && turn.writes().any(|touch| touch.line == **line))
                .count() as f64;
            let shared: Vec<&Touch> = turn.writes().filter(|touch| written_by_both(&touch.line)).collect();
            sum.shared_writes += shared.len() as f64;
            for touch in &shared {
                *writes_of.entry(touch.line).or_default() += 1.0;
            }
            if let (Some(first), Some(last)) = (shared.first(), shared.last()) {
                sum.between += (last.instruction - first.instruction + 1) as f64 / turn.instructions as f64;
            }
        }
        sum.hottest = writes_of.values().copied().fold(0.0, f64::max);
        sum.transfers = self.transfers() as f64;
        sum.divided_by(self.0.len().max(1) as f64)
    }

    /// Who does what with each line.
    fn uses(&self) -> HashMap<u64, Use> {
        let mut uses: HashMap<u64, Use> = HashMap::new();
        for turn in &self.0 {
            for touch in &turn.accesses {
                let known = uses.entry(touch.line).or_default();
                match touch.access {
                    Access::Read => known.read[turn.thread] = true,
                    Access::Write => known.written[turn.thread] = true,
                }
            }
        }
        uses
    }

    /// How many lines come over in all turns.
    fn transfers(&self) -> u64 {
        /// Which core may read a line, which may write it, and which had it before: the first time is no transfer,
        /// because it happens once and not in every turn.
        #[derive(Default)]
        struct Line {
            readable: [bool; 2],
            writable: [bool; 2],
            had: [bool; 2],
        }
        let (mut lines, mut transfers): (HashMap<u64, Line>, u64) = (HashMap::new(), 0);
        for turn in &self.0 {
            let (me, other) = (turn.thread, 1 - turn.thread);
            for touch in &turn.accesses {
                let line = lines.entry(touch.line).or_default();
                match touch.access {
                    Access::Read if !line.readable[me] => {
                        transfers += u64::from(line.had[me]);
                        line.readable[me] = true;
                        line.writable[other] = false;
                    }
                    Access::Write if !line.writable[me] => {
                        // A core that alone has a line need not ask before it writes.
                        let alone = line.readable[me] && !line.readable[other];
                        transfers += u64::from(line.had[me] && !alone);
                        (line.readable[me], line.writable[me]) = (true, true);
                        (line.readable[other], line.writable[other]) = (false, false);
                    }
                    _ => {}
                }
                line.had[me] = true;
            }
        }
        transfers
    }
}

impl Turn {
    /// The writes, one for each instruction and line: a locked one is traced as a read and a write, or several.
    fn writes(&self) -> impl Iterator<Item = &Touch> {
        let mut last = None;
        self.accesses.iter().filter(move |touch| {
            let this = (touch.line, touch.instruction);
            touch.access == Access::Write && last.replace(this) != Some(this)
        })
    }
}

/// Who reads and who writes a line, over all turns.
#[derive(Default)]
struct Use {
    read: [bool; 2],
    written: [bool; 2],
}

impl Use {
    fn is_read_shared(&self) -> bool {
        self.read == [true, true] && self.written == [false, false]
    }

    fn is_invalidated(&self) -> bool {
        self.written == [true, false] && self.read[1] || self.written == [false, true] && self.read[0]
    }
}

impl Counts {
    /// Each count under its name, as it is written down.
    pub(crate) fn named(self) -> [(&'static str, f64); 9] {
        [
            ("instructions", self.instructions),
            ("locked instructions", self.locked),
            ("shared lines written", self.shared_lines),
            ("writes to shared lines", self.shared_writes),
            ("writes to the hottest shared line", self.hottest),
            ("lines only one of two writes", self.invalidated),
            ("lines only read", self.read_shared),
            ("transfers", self.transfers),
            ("part between the first and the last shared write", self.between),
        ]
    }

    /// From what was written down.
    pub(crate) fn of(count: impl Fn(&str) -> Option<f64>) -> Option<Self> {
        let [
            instructions,
            locked,
            shared_lines,
            shared_writes,
            hottest,
            invalidated,
            read_shared,
            transfers,
            between,
        ] = Self::default().named().map(|(name, _)| count(name));
        Some(Self {
            instructions: instructions?,
            locked: locked?,
            shared_lines: shared_lines?,
            shared_writes: shared_writes?,
            hottest: hottest?,
            invalidated: invalidated?,
            read_shared: read_shared?,
            transfers: transfers?,
            between: between?,
        })
    }

    fn divided_by(self, turns: f64) -> Self {
        Self {
            instructions: self.instructions / turns,
            locked: self.locked / turns,
            shared_lines: self.shared_lines / turns,
            shared_writes: self.shared_writes / turns,
            hottest: self.hottest / turns,
            invalidated: self.invalidated / turns,
            read_shared: self.read_shared / turns,
            transfers: self.transfers / turns,
            between: self.between / turns,
        }
    }
}
