//! Writes that fail, the end of the process, and what was written.

use super::Fake;
use crate::errno::Errno;
use crate::host::book::locked;

/// What befalls a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// It fails, and has done nothing.
    Error(Errno),
    /// The process is killed before it: nothing it writes from here on has any effect.
    Crash,
}

/// Decides over each write, by its number (from 1) and what it writes.
type Rule = Box<dyn FnMut(u64, &str) -> Option<Mishap> + Send>;

#[derive(Default)]
pub(super) struct Script {
    count: u64,
    rule: Option<Rule>,
    is_dead: bool,
    written: Vec<String>,
}

impl Fake {
    /// Asks `rule` before each write of the process, to the kernel or the disk. Numbers begin at 1.
    pub fn on_write(&self, rule: impl FnMut(u64, &str) -> Option<Mishap> + Send + 'static) {
        let mut script = locked(&self.shared.script);
        script.count = 0;
        script.rule = Some(Box::new(rule));
    }

    /// Nothing befalls writes any more.
    pub fn behave(&self) {
        locked(&self.shared.script).rule = None;
    }

    /// What the process has written since this was asked last, in order; with what failed.
    pub fn take_written(&self) -> Vec<String> {
        std::mem::take(&mut locked(&self.shared.script).written)
    }

    /// Whether the process was killed.
    pub fn is_dead(&self) -> bool {
        locked(&self.shared.script).is_dead
    }

    /// A new process: it may write, and nobody has the store locked.
    pub fn restart(&self) {
        locked(&self.shared.script).is_dead = false;
        *locked(&self.shared.is_locked) = None;
    }

    /// Before each write.
    pub(super) fn strike(&self, what: &str) -> Result<(), Errno> {
        let mut script = locked(&self.shared.script);
        if script.is_dead {
            return Err(Errno::EIO);
        }
        script.count += 1;
        let count = script.count;
        let mishap = script.rule.as_mut().and_then(|rule| rule(count, what));
        script.written.push(match mishap {
            None => what.to_owned(),
            Some(mishap) => format!("{what}: {mishap:?}"),
        });
        match mishap {
            None => Ok(()),
            Some(Mishap::Error(errno)) => Err(errno),
            Some(Mishap::Crash) => {
                script.is_dead = true;
                Err(Errno::EIO)
            }
        }
    }
}
