//! The trace of two threads taking turns, read as it comes.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::coherence::{Access, Turns};
use crate::counting::valgrind;
use crate::machine_code::Code;
use crate::taking_turns::{MARKS, Mark, kinds};

/// Everything that happened in the turns of each kind.
pub(crate) fn of(strategy: &str) -> Result<Vec<Turns>, String> {
    let mut program = valgrind::this_program(&["--tool=lackey", "--trace-mem=yes"], &["--trace", strategy])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("valgrind does not run: {error}"))?;
    let (stdin, stdout, stderr) = (program.stdin.take(), program.stdout.take(), program.stderr.take());
    let (mut stdin, stdout, stderr) =
        (stdin.ok_or("stdin")?, stdout.ok_or("stdout")?, stderr.ok_or("stderr")?);
    // What it does before it begins is in the trace as well and must be taken, or it would wait for that.
    let (sender, receiver) = std::sync::mpsc::channel();
    let said = std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let marks = lines.next().and_then(|line| u64::from_str_radix(line.strip_prefix("0x")?, 16).ok());
        let maps: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        let told = marks.map(|marks| sender.send((marks, Code::of(&maps.join("\n")))));
        // The trace is looked at from now on.
        told.is_some_and(|told| told.is_ok()) && stdin.write_all(b"\n").is_ok()
    });
    let mut reading = Reading { turns: kinds().map(|_| Turns::default()).collect(), now: None };
    let (mut reader, mut line, mut known) = (BufReader::with_capacity(1 << 20, stderr), Vec::new(), None);
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(format!("the trace cannot be read: {error}")),
        }
        if known.is_none() {
            known = receiver.try_recv().ok();
        }
        if let (Some((marks, code)), Some(entry)) = (&known, Entry::of(&line)) {
            reading.take(&entry, *marks, code);
        }
    }
    let understood = said.join().unwrap_or(false);
    let ended = program.wait().map_err(|error| format!("valgrind did not end: {error}"))?;
    if understood && ended.success() {
        Ok(reading.turns)
    } else {
        Err(format!("{strategy} could not be traced"))
    }
}

/// One line of the trace.
enum Entry {
    Instruction(u64),
    Data { address: u64, length: u64, access: Access },
}

impl Entry {
    /// `None` for what is not of the trace: the tool's own words.
    fn of(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        let (kind, rest) = text.split_at_checked(3)?;
        let (address, length) = rest.trim().split_once(',')?;
        let address = u64::from_str_radix(address, 16).ok()?;
        let data = |access| Some(Self::Data { address, length: length.parse().ok()?, access });
        match kind {
            "I  " => Some(Self::Instruction(address)),
            " L " => data(Access::Read),
            " S " | " M " => data(Access::Write),
            _ => None,
        }
    }
}

/// The turns as far as they have been read.
struct Reading {
    turns: Vec<Turns>,
    /// Of which kind the turn is that has begun, and whose.
    now: Option<(usize, usize)>,
}

impl Reading {
    fn take(&mut self, entry: &Entry, marks: u64, code: &Code) {
        match entry {
            Entry::Data { address, access: Access::Write, .. }
                if (marks..marks + MARKS as u64).contains(address) =>
            {
                let mark = usize::try_from(address - marks).map(Mark::at);
                self.now = match mark {
                    Ok(Mark::Begin { kind, thread }) => {
                        self.turns[kind].begin(thread);
                        Some((kind, thread))
                    }
                    _ => None,
                };
            }
            Entry::Instruction(address) => {
                if let Some((kind, _)) = self.now {
                    self.turns[kind].instruction(code.locks(*address));
                }
            }
            Entry::Data { address, length, access } => {
                if let Some((kind, _)) = self.now {
                    self.turns[kind].data(*address, *length, *access);
                }
            }
        }
    }
}
