//! The simulated machine, shared with what it binds: attachments stand in its journal among the hooks, in order, and
//! meet its faults as hooks do.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use pcidevs::address::Segment;
use pcidevs::platform::{
    Attachment, AttachmentKind, Binding, Call, Claimed, Facts, GroupId, Hardware, Hook, HookError, Platform,
    Refusal, Request, ResetKind, ResetScope, Simulated, Switch, Width,
};
use pcidevs::{DefaultLock, DomainId, Owner, Sbdf, Transition};

use crate::memory;

/// The simulated machine behind a shared pointer, with a list of what it keeps in quarantine.
pub(crate) struct Bench {
    simulated: Arc<Simulated<u32>>,
    kept: Mutex<BTreeSet<Sbdf>>,
    things: Arc<Things>,
    late: Mutex<Option<Hook>>,
}

impl Deref for Bench {
    type Target = Simulated<u32>;

    fn deref(&self) -> &Simulated<u32> {
        &self.simulated
    }
}

impl Bench {
    /// A machine on which every owner sees its devices through a vPCI.
    pub(crate) fn new() -> Self {
        let bench = Self::without_views();
        let (things, simulated) = (bench.things.clone(), bench.simulated.clone());
        bench.on_bind(move |device, owner| {
            if matches!(owner, Owner::Quarantine | Owner::Hidden) {
                return Ok(None);
            }
            memory::a_step_begins();
            Ok(Some(memory::unlimited(|| {
                Box::new(Thing::new(VPCI, device.address(), owner, &things, &simulated))
            })))
        });
        bench
    }

    /// A machine that binds nothing.
    pub(crate) fn without_views() -> Self {
        let (simulated, kept, things) = (Arc::default(), Mutex::default(), Arc::default());
        Self { simulated, kept, things, late: Mutex::new(None) }
    }

    /// The next call of this hook (of the IOMMU) does its work and panics then.
    pub(crate) fn panic_late(&self, hook: Hook) {
        *locked(&self.late) = Some(hook);
    }

    fn late(&self, hook: Hook) {
        if locked(&self.late).take_if(|late| *late == hook).is_some() {
            // Not `panic!`, which would print.
            std::panic::resume_unwind(Box::new("after its work"));
        }
    }

    /// From now on the platform wants this device in quarantine when a guest gives it back.
    pub(crate) fn keep_in_quarantine(&self, device: Sbdf) {
        locked(&self.kept).insert(device);
    }

    /// Something that a binding sets up: an attachment, not registered yet.
    pub(crate) fn thing(&self, kind: usize, device: Sbdf) -> Box<dyn Attachment<u32>> {
        Box::new(Thing::new(kind, device, Owner::Host, &self.things, &self.simulated))
    }

    /// What is set up of which device, in the order in which it was.
    pub(crate) fn things(&self) -> Vec<String> {
        let known = locked(&self.things.known);
        known.iter().map(|(number, thing)| format!("{number}: {thing}")).collect()
    }

    /// The owners for whom a view of this device is in effect.
    pub(crate) fn views(&self, device: Sbdf) -> Vec<Owner> {
        let known = locked(&self.things.known);
        let views = known.values().filter(|thing| thing.kind == VPCI && thing.device == device && thing.live);
        views.map(|thing| thing.owner).collect()
    }

    /// Attachments that were dropped while what they set up was in effect.
    pub(crate) fn lost(&self) -> usize {
        *locked(&self.things.lost)
    }

    /// The journal as text, without reads of configuration space; it begins again.
    pub(crate) fn story(&self) -> Vec<String> {
        let calls = self.take_journal();
        calls.iter().map(tell).filter(|line| !line.starts_with("config_read")).collect()
    }
}

/// Calls of attachments are recorded as calls for a device in a segment that says so.
const UNDO: u32 = 0xa000_0000;
const REDO: u32 = 0xb000_0000;
const UNDO_GONE: u32 = 0xc000_0000;

/// Kinds of things; the places in `KINDS`.
pub(crate) const VPCI: usize = 0;
pub(crate) const IRQFD: usize = 1;
pub(crate) const SLOT: usize = 2;
pub(crate) const VECTOR: usize = 3;

const KINDS: [AttachmentKind; 4] = [
    AttachmentKind::Vpci,
    AttachmentKind::Other("irqfd"),
    AttachmentKind::Other("memory slot"),
    AttachmentKind::MsiVector,
];

fn tell(call: &Call) -> String {
    let text = call.to_string();
    let Some(device) = call.device else { return text };
    let number = device.segment().number();
    let what = match number & 0xf000_0000 {
        UNDO => "undo",
        REDO => "redo",
        UNDO_GONE => "undo without hardware",
        _ => return text,
    };
    let kind = KINDS[(number >> 24 & 0xf) as usize];
    let real = Sbdf::from_bdf(Segment::new(number & 0xff_ffff), device.bdf());
    let fault = call.fault.map_or(String::new(), |fault| format!(": {fault}"));
    format!("{what} {kind} of {real}{fault}")
}

#[derive(Default)]
struct Things {
    known: Mutex<BTreeMap<u64, State>>,
    made: Mutex<u64>,
    lost: Mutex<usize>,
}

struct State {
    kind: usize,
    device: Sbdf,
    owner: Owner,
    live: bool,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let live = if self.live { "" } else { ", undone" };
        write!(f, "{} of {} for {}{live}", KINDS[self.kind], self.device, self.owner)
    }
}

struct Thing {
    number: u64,
    kind: usize,
    things: Arc<Things>,
    simulated: Arc<Simulated<u32>>,
}

impl Thing {
    fn new(
        kind: usize,
        device: Sbdf,
        owner: Owner,
        things: &Arc<Things>,
        simulated: &Arc<Simulated<u32>>,
    ) -> Self {
        let number = {
            let mut made = locked(&things.made);
            *made += 1;
            *made
        };
        locked(&things.known).insert(number, State { kind, device, owner, live: true });
        Self { number, kind, things: things.clone(), simulated: simulated.clone() }
    }

    fn note(&self, what: u32, device: Sbdf, live: bool) -> Result<(), HookError> {
        memory::a_step_begins();
        let kind = u32::try_from(self.kind).expect("few kinds");
        let segment = Segment::new(what | kind << 24 | device.segment().number());
        // Asking what is known of a device that is not there does nothing, but is recorded, and fails if asked to.
        self.simulated.facts(Sbdf::from_bdf(segment, device.bdf()))?;
        if let Some(state) = locked(&self.things.known).get_mut(&self.number) {
            assert_ne!(state.live, live, "{state} twice");
            state.live = live;
        }
        Ok(())
    }
}

impl Attachment<u32> for Thing {
    fn kind(&self) -> AttachmentKind {
        KINDS[self.kind]
    }

    fn undo(&mut self, device: &dyn Claimed<u32>, hardware: Hardware) -> Result<(), HookError> {
        let what = if hardware == Hardware::Gone { UNDO_GONE } else { UNDO };
        self.note(what, device.address(), false)
    }

    fn redo(&mut self, device: &dyn Claimed<u32>) -> Result<(), HookError> {
        self.note(REDO, device.address(), true)
    }
}

impl Drop for Thing {
    fn drop(&mut self) {
        let state = locked(&self.things.known).remove(&self.number);
        *locked(&self.things.lost) += usize::from(state.is_some_and(|state| state.live));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Platform for Bench {
    type Data = u32;
    type Lock = DefaultLock;

    fn config_read(&self, device: Sbdf, offset: u16, width: Width) -> u32 {
        self.simulated.config_read(device, offset, width)
    }

    fn config_write(&self, device: Sbdf, offset: u16, width: Width, value: u32) {
        self.simulated.config_write(device, offset, width, value);
    }

    fn facts(&self, device: Sbdf) -> Result<Facts, HookError> {
        self.simulated.facts(device)
    }

    fn permit(&self, request: &Request) -> Result<(), Refusal> {
        self.simulated.permit(request)
    }

    fn has_driver(&self, device: Sbdf) -> bool {
        self.simulated.has_driver(device)
    }

    fn group_in_use(&self, group: GroupId) -> bool {
        self.simulated.group_in_use(group)
    }

    fn keeps_in_quarantine(&self, device: Sbdf) -> bool {
        locked(&self.kept).contains(&device)
    }

    fn now(&self) -> u64 {
        self.simulated.now()
    }

    fn iommu_attach(&self, device: Sbdf, requester: Sbdf, owner: Owner) -> Result<(), HookError> {
        let done = self.simulated.iommu_attach(device, requester, owner);
        self.late(Hook::IommuAttach);
        done
    }

    fn iommu_block(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError> {
        let done = self.simulated.iommu_block(device, requester);
        self.late(Hook::IommuBlock);
        done
    }

    fn iommu_detach(&self, device: Sbdf, requester: Sbdf) -> Result<(), HookError> {
        let done = self.simulated.iommu_detach(device, requester);
        self.late(Hook::IommuDetach);
        done
    }

    fn iommu_flush(&self, device: Sbdf) -> Result<(), HookError> {
        self.simulated.iommu_flush(device)
    }

    fn dma_blocked(&self, device: Sbdf) -> Result<bool, HookError> {
        self.simulated.dma_blocked(device)
    }

    fn set_ats(&self, device: Sbdf, ats: Switch) -> Result<(), HookError> {
        self.simulated.set_ats(device, ats)
    }

    fn await_idle(&self, device: Sbdf) -> Result<(), HookError> {
        self.simulated.await_idle(device)
    }

    fn reset_scope(&self, device: Sbdf, why: Transition) -> Result<Option<ResetScope>, HookError> {
        self.simulated.reset_scope(device, why)
    }

    fn reset(&self, device: Sbdf, scope: ResetScope, kind: Option<ResetKind>) -> Result<(), HookError> {
        self.simulated.reset(device, scope, kind)
    }

    fn msix_prepare(&self, device: Sbdf) -> Result<(), HookError> {
        self.simulated.msix_prepare(device)
    }

    fn msix_release(&self, device: Sbdf) -> Result<(), HookError> {
        self.simulated.msix_release(device)
    }

    fn bind(&self, device: &dyn Claimed<u32>, owner: Owner) -> Result<Binding<u32>, HookError> {
        self.simulated.bind(device, owner)
    }

    fn ask_unplug(&self, device: Sbdf, guest: DomainId) -> Result<(), HookError> {
        self.simulated.ask_unplug(device, guest)
    }

    fn stop_guest(&self, guest: DomainId, device: Sbdf, because: HookError) {
        self.simulated.stop_guest(guest, device, because);
    }
}
