//! What the VMM does while the guest runs, and what has to come of it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pcidevs::lifecycle::{Added, DeviceHold, DeviceInfo, Lifecycle, TransitionError};
use pcidevs::platform::AttachmentKind;
use pcidevs::vpci::{AddressRange, BarMap, ExtendedRegisters, Layout};
use pcidevs::{DomainId, Holder, Member, Owner, Sbdf};

use super::devices::{BYSTANDER, DOORBELL, Model, REGISTERS, SCRATCH, SCRATCH_BAR};
use super::exits::Panel;
use super::guest::{BAR, BYSTANDER_SLOT, COUNTS, DOORBELL_SLOT, MAGIC, VECTORS};
use super::hypervisor::Hypervisor;
use super::memory::Memory;
use super::notes::Note;
use super::platform::{GuestBus, Plugged, Vmm};
use super::wiring::Wires;

const GUEST: DomainId = DomainId::new(1);
/// Where the guest's memory has room for BARs.
const WINDOW: core::ops::RangeInclusive<u64> = 0xc000_0000..=0xdfff_ffff;
/// A guest that is silent for so long is not coming back.
const SILENCE: Duration = Duration::from_mins(1);
/// Who keeps the doorbell.
const BACKEND: Holder = Holder::Named("doorbell backend");

/// What went wrong: a promise, and what was there instead.
pub(crate) type Checked<T = ()> = Result<T, String>;

/// A machine with one guest, before it runs.
pub(crate) struct Story {
    machine: Lifecycle<Vmm>,
    bus: GuestBus,
    hypervisor: Arc<dyn Hypervisor>,
    notes: Receiver<(Note, u32)>,
    is_gone: Arc<AtomicBool>,
    /// Functions of the doorbell that exist.
    alive: Arc<AtomicUsize>,
    scratch: Memory,
}

/// The thread that works for the doorbell, and keeps it meanwhile.
struct Backend {
    thread: JoinHandle<()>,
    stop: Sender<()>,
}

/// Where the guest sees a device.
fn seen(slot: u32) -> Sbdf {
    Sbdf::from_u32(slot << 3)
}

/// The device's own address, on a bus no guest sees.
fn own(slot: u32) -> Sbdf {
    Sbdf::from_u32(0x8000 | slot << 3)
}

impl Story {
    /// Builds the machine, its bus and its two devices. The panel is for the guest's exits.
    pub(crate) fn new(hypervisor: Arc<dyn Hypervisor>) -> Checked<(Self, Panel)> {
        let machine = Lifecycle::new(Vmm::new()).map_err(text)?;
        let domain = machine.create_domain(GUEST).map_err(text)?;
        let wires = Wires::new(hypervisor.clone());
        let bars = BarMap::new(&[AddressRange::memory(WINDOW)], &[]).map_err(text)?;
        let layout = Layout { ecam: &[], extended: ExtendedRegisters::Absent, bars };
        let bus = GuestBus::new(domain, wires, layout).map_err(text)?;
        machine.platform().set_bus(bus.clone()).map_err(|_| "the platform has a bus already")?;
        let (sender, notes) = channel();
        let (alive, is_gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let panel = Panel { notes: sender, is_gone: is_gone.clone() };
        let story = Self { machine, bus, hypervisor, notes, is_gone, alive, scratch: Memory::new(SCRATCH) };
        story.bus.wiring().share(own(DOORBELL_SLOT), SCRATCH_BAR, story.scratch.clone());
        story.plug(DOORBELL_SLOT, Model::Doorbell(story.alive.clone()))?;
        story.plug(BYSTANDER_SLOT, Model::Bystander)?;
        Ok((story, panel))
    }

    /// One vCPU's way to the devices.
    pub(crate) fn bus(&self) -> &GuestBus {
        &self.bus
    }

    /// Tells it, while the guest runs on another thread.
    pub(crate) fn tell(&self) -> Checked {
        self.find_devices()?;
        let backend = self.watch_set_up()?;
        self.unplug(backend)?;
        self.add_again()?;
        let backend = self.watch_set_up()?;
        self.pull(backend)?;
        let [vendor, device] = BYSTANDER.map(u32::from);
        self.expect(Note::Bystander, device << 16 | vendor)?;
        self.expect_any(Note::Done)?;
        let failures = self.bus.wiring().failures();
        check(failures.is_empty(), || format!("the wiring failed: {failures:?}"))
    }

    /// The end of the machine: nothing is left of it.
    pub(crate) fn end(self) -> Checked {
        say("the guest ends: its devices are taken back, then the machine is shut down");
        self.machine.release_domain(GUEST).map_err(text)?;
        self.machine.shut_down();
        let watched: Weak<_> = Arc::downgrade(&self.hypervisor);
        drop(self);
        // The wires have the last share of it, and the bus has the wires.
        check(watched.strong_count() == 0, || "something keeps the guest's bus alive".into())
    }

    fn find_devices(&self) -> Checked {
        for (slot, [vendor, device]) in [(DOORBELL_SLOT, DOORBELL), (BYSTANDER_SLOT, BYSTANDER)] {
            self.expect(Note::FoundAt, 1 << 31 | slot << 11)?;
            self.expect(Note::FoundId, u32::from(device) << 16 | u32::from(vendor))?;
        }
        self.expect(Note::Enumerated, 2)
    }

    /// The guest sets the doorbell up and is interrupted by it: by an access of its own, then by the backend.
    fn watch_set_up(&self) -> Checked<Backend> {
        // A 64-bit memory BAR.
        self.expect(Note::BarSizing, !(REGISTERS - 1) | 4)?;
        self.expect(Note::BarAddress, BAR | 4)?;
        self.expect(Note::Command, 6)?;
        self.expect_any(Note::MsixAt)?;
        self.expect(Note::TableData, VECTORS[0].into())?;
        self.expect(Note::MsixControl, 1 << 15 | 1)?;
        self.expect(Note::Rung, 1)?;
        self.expect(Note::InterruptedByDoorbell, COUNTS[0])?;
        let backend = self.start_backend()?;
        self.expect(Note::InterruptedByBackend, COUNTS[0] + COUNTS[1])?;
        self.expect(Note::Scratch, MAGIC)?;
        let found = self.scratch.load(0);
        check(found == MAGIC, || format!("BAR 2 is {found:#x} in this process"))?;
        let device = self.machine.lock(own(DOORBELL_SLOT)).map_err(text)?;
        let attachments: Vec<_> = device.attachments().collect();
        drop(device);
        let vector = AttachmentKind::MsiVector;
        check(attachments == [AttachmentKind::Vpci, vector, vector], || format!("{attachments:?}"))?;
        self.expect_in_use((2, 1))?;
        say("its attachments are the vPCI and two irqfds; one memory slot is BAR 2");
        Ok(backend)
    }

    /// Hot-unplugs the doorbell. Its guest may still reach it, and its backend works on it: both have to let go.
    fn unplug(&self, backend: Backend) -> Checked {
        let assigned = Holder::Domain(GUEST);
        say("hot-unplugging the doorbell under the guest");
        self.remove_is_busy(&[assigned, BACKEND])?;
        say("taking it back from the guest, which needs nobody's leave");
        self.machine.deassign(&[Member::new(own(DOORBELL_SLOT))], Owner::Guest(GUEST)).map_err(text)?;
        self.nothing_is_left("the irqfds and the memory slot are gone; it is the host's now")?;
        self.watch_nobody()?;
        self.remove_is_busy(&[BACKEND])?;
        backend.stop()?;
        self.machine.remove_device(own(DOORBELL_SLOT)).map_err(text)?;
        say("remove: Ok");
        self.is_unknown()
    }

    /// The doorbell is pulled without a word. Its guest reads ones, and its backend finds out in its own time.
    fn pull(&self, backend: Backend) -> Checked {
        say("the doorbell is pulled out of its slot");
        self.machine.report_gone(own(DOORBELL_SLOT)).map_err(text)?;
        self.nothing_is_left("the irqfds and the memory slot are gone, and the backend has what is left")?;
        self.is_unknown()?;
        self.watch_nobody()?;
        backend.stop()?;
        let guest = self.machine.domain(GUEST).ok_or("there is no guest")?;
        let is_freed = guest.acknowledge_gone(seen(DOORBELL_SLOT)).map_err(text)?;
        check(is_freed, || "the guest's slot was not taken".into())?;
        say("the guest's slot is free again");
        Ok(())
    }

    /// Removing the doorbell says exactly who is in the way, and does nothing.
    fn remove_is_busy(&self, holders: &[Holder]) -> Checked {
        match self.machine.remove_device(own(DOORBELL_SLOT)) {
            Err(TransitionError::Busy(_, busy)) => {
                say(&format!("remove: Busy, {busy}"));
                let is_exact = busy.holders == holders && busy.unnamed == 0;
                check(is_exact, || format!("the holders are {holders:?}"))
            }
            other => Err(format!("removing a device that is in use: {other:?}")),
        }
    }

    /// Nothing of the doorbell reaches the guest any more.
    fn nothing_is_left(&self, what: &str) -> Checked {
        self.expect_in_use((0, 0))?;
        let alive = self.alive.load(Ordering::SeqCst);
        check(alive == 0, || format!("{alive} functions of the doorbell are left"))?;
        say(what);
        Ok(())
    }

    fn is_unknown(&self) -> Checked {
        check(self.machine.get(own(DOORBELL_SLOT)).is_none(), || "the doorbell can still be had".into())
    }

    /// The guest reads ones wherever it was.
    fn watch_nobody(&self) -> Checked {
        self.expect(Note::Vanished, u32::MAX)?;
        // Release: what the transition has undone is undone for a guest that sees this.
        self.is_gone.store(true, Ordering::Release);
        self.expect(Note::BarOfNobody, u32::MAX)?;
        self.expect(Note::ScratchOfNobody, u32::MAX)
    }

    fn add_again(&self) -> Checked {
        say("plugging the doorbell in again");
        self.scratch.store(0, 0);
        self.is_gone.store(false, Ordering::Release);
        self.plug(DOORBELL_SLOT, Model::Doorbell(self.alive.clone()))?;
        let [vendor, device] = DOORBELL.map(u32::from);
        self.expect(Note::Back, device << 16 | vendor)?;
        // It is a new one: nothing of what the guest wrote to the old one is in it. Status says that it has capabilities.
        self.expect(Note::CommandOfNew, 1 << 20)?;
        self.expect(Note::BarOfNew, 4)
    }

    /// Adds a device and gives it to the guest.
    fn plug(&self, slot: u32, model: Model) -> Checked {
        match self.machine.add(own(slot), DeviceInfo::default(), Plugged::new(model)) {
            Ok(Added::New) => {}
            Ok(Added::Again(_)) => return Err(format!("{} was there already", own(slot))),
            Err(error) => return Err(error.to_string()),
        }
        self.machine.assign(&[Member::at(own(slot), seen(slot))], GUEST).map_err(text)
    }

    /// Starts the thread that works for the doorbell. It has raised vector 1 when this returns.
    fn start_backend(&self) -> Checked<Backend> {
        let held = self.machine.hold(own(DOORBELL_SLOT), BACKEND).map_err(text)?;
        let held: DeviceHold<Vmm> = held.ok_or("there is no doorbell")?;
        let bus = self.bus.clone();
        let (stop, stopped) = channel();
        let (raised, is_raised) = channel();
        let thread = thread::spawn(move || {
            bus.signal(seen(DOORBELL_SLOT), |signals| signals.raise(1)).wait();
            // Without a listener, or once it is told to stop, it is over.
            if raised.send(()).is_ok() {
                let _told = stopped.recv();
            }
            drop(held);
        });
        is_raised.recv_timeout(SILENCE).map_err(|_| "the backend raises nothing")?;
        Ok(Backend { thread, stop })
    }

    fn expect(&self, note: Note, value: u32) -> Checked {
        let found = self.expect_any(note)?;
        check(found == value, || format!("{note} {found:#x}, and not {value:#x}"))
    }

    fn expect_any(&self, note: Note) -> Checked<u32> {
        let next = self.notes.recv_timeout(SILENCE);
        let (found, value) = next.map_err(|_| format!("the guest has nothing to say to: {note}"))?;
        println!("guest: {found} {value:#x}");
        check(found == note, || format!("the guest was to say: {note}"))?;
        Ok(value)
    }

    /// So many irqfds and directly mapped BARs.
    fn expect_in_use(&self, expected: (usize, usize)) -> Checked {
        let found = self.hypervisor.in_use();
        check(found == expected, || format!("lines and mappings: {found:?}, and not {expected:?}"))
    }
}

impl Backend {
    /// Returns when it has let the doorbell go.
    fn stop(self) -> Checked {
        say("the backend lets go");
        self.stop.send(()).map_err(|_| "the backend has stopped by itself")?;
        self.thread.join().map_err(|_| "the backend panicked".into())
    }
}

fn say(what: &str) {
    println!("VMM:   {what}");
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn check(is_so: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if is_so { Ok(()) } else { Err(otherwise()) }
}
