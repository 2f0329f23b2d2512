//! Attachments that keep a ledger: none may be dropped in effect, undone twice or redone without need.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use pcidevs::Owner;
use pcidevs::platform::{Attachment, AttachmentKind, Binding, Claimed, Hardware, HookError};

use super::operations::{Attached, How};
use super::stage::{Data, INJECTED, locked};

impl Attached {
    pub(crate) const fn kind(self) -> AttachmentKind {
        match self {
            Self::Vector => AttachmentKind::MsiVector,
            Self::Irqfd => AttachmentKind::Other("irqfd"),
        }
    }
}

/// All attachments there are, and what goes wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// By number.
    all: BTreeMap<u32, Entry>,
    next: u32,
    calls: usize,
    plan: Vec<(usize, How)>,
    met: usize,
    violations: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    in_effect: bool,
    /// A redo failed: nobody knows what it did, so it may be undone once more.
    redo_failed: bool,
}

/// One attachment.
struct Entered {
    ledger: Arc<Ledger>,
    number: u32,
    kind: AttachmentKind,
}

impl Ledger {
    /// What an owner sees of a device.
    pub(crate) fn view(self: &Arc<Self>, owner: Owner) -> Binding<Data> {
        match owner {
            Owner::Host | Owner::Guest(_) => Some(self.enter(AttachmentKind::Vpci)),
            _ => None,
        }
    }

    pub(crate) fn attachment(self: &Arc<Self>, kind: Attached) -> Box<dyn Attachment<Data>> {
        self.enter(kind.kind())
    }

    fn enter(self: &Arc<Self>, kind: AttachmentKind) -> Box<Entered> {
        let mut entries = locked(&self.0);
        let number = entries.next;
        entries.next += 1;
        entries.all.insert(number, Entry { in_effect: true, redo_failed: false });
        Box::new(Entered { ledger: Arc::clone(self), number, kind })
    }

    /// The embedder ends an attachment by itself.
    pub(crate) fn forgive(&self, mut attachment: Box<dyn Attachment<Data>>) {
        struct Nothing;
        impl Claimed<Data> for Nothing {
            fn address(&self) -> pcidevs::Sbdf {
                pcidevs::Sbdf::default()
            }
            fn with(&self, _: &mut dyn FnMut(&mut Data)) {}
        }
        locked(&self.0).plan.clear();
        // It says so in the ledger if it was undone before.
        let _undone = attachment.undo(&Nothing, Hardware::Present);
    }

    pub(crate) fn fail_call(&self, call: usize, how: How) {
        let mut entries = locked(&self.0);
        let call = entries.calls + call;
        entries.plan.push((call, how));
    }

    /// How many calls went wrong.
    pub(crate) fn disarm(&self) -> usize {
        let mut entries = locked(&self.0);
        entries.plan.clear();
        core::mem::take(&mut entries.met)
    }

    pub(crate) fn in_effect(&self) -> usize {
        locked(&self.0).all.values().filter(|entry| entry.in_effect).count()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        locked(&self.0).violations.clone()
    }
}

impl Entries {
    fn pass(&mut self) -> Option<How> {
        let call = self.calls;
        self.calls += 1;
        let place = self.plan.iter().position(|(at, _)| *at == call)?;
        self.met += 1;
        Some(self.plan.remove(place).1)
    }
}

impl Entered {
    fn step(&self, what: &str, to: bool) -> Result<(), HookError> {
        let mut entries = locked(&self.ledger.0);
        let trouble = entries.pass();
        let mut entry = entries.all[&self.number];
        if entry.in_effect == to && !entry.redo_failed {
            let violation = format!("attachment {} ({}) {what} twice", self.number, self.kind);
            entries.violations.push(violation);
        }
        match trouble {
            None => entry = Entry { in_effect: to, redo_failed: false },
            Some(_) => entry.redo_failed |= to,
        }
        entries.all.insert(self.number, entry);
        drop(entries);
        match trouble {
            None => Ok(()),
            Some(How::Error) => Err(INJECTED),
            Some(How::Panic) => std::panic::resume_unwind(Box::new("the script says so")),
        }
    }
}

impl Attachment<Data> for Entered {
    fn kind(&self) -> AttachmentKind {
        self.kind
    }

    fn undo(&mut self, _: &dyn Claimed<Data>, _: Hardware) -> Result<(), HookError> {
        self.step("undone", false)
    }

    fn redo(&mut self, _: &dyn Claimed<Data>) -> Result<(), HookError> {
        self.step("redone", true)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut entries = locked(&self.ledger.0);
        let dropped = entries.all.remove(&self.number);
        if dropped.is_some_and(|entry| entry.in_effect) {
            let violation =
                format!("attachment {} ({}) dropped while it was in effect", self.number, self.kind);
            entries.violations.push(violation);
        }
    }
}
