//! A guest with one bus, whose wiring notes what it was asked, and can be made to stop in the middle of a hook.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use pcidevs::adapters::cloud_hypervisor::Barriers;
use pcidevs::address::{Bus as BusNumber, Segment};
use pcidevs::platform::HookError;
use pcidevs::vpci::{
    AddressRange, BarMap, Bus, Ecam, ExtendedRegisters, Function, Layout, Level, Piece, Target, VectorWork,
    Wiring,
};
use pcidevs::{Domain, DomainId, Member, Owner, Registry, RemoveError, Sbdf};

pub(crate) const ECAM: u64 = 0xb000_0000;
/// Where BARs may be.
pub(crate) const WINDOW: std::ops::RangeInclusive<u64> = 0xc000_0000..=0xdfff_ffff;
pub(crate) const PORTS: std::ops::RangeInclusive<u64> = 0x1000..=0xffff;

pub(crate) type GuestBus = Bus<Option<Function>, Wires>;

/// What the outside was asked, and where it is to stop.
#[derive(Clone, Default)]
pub(crate) struct Wires(Arc<Inner>);

#[derive(Default)]
struct Inner {
    story: Mutex<Vec<String>>,
    gate: Mutex<Option<Gate>>,
    barriers: Mutex<HashMap<Sbdf, Barriers>>,
}

/// The next map stops here: it says that it has come, and goes on when it is told to.
struct Gate {
    entered: Sender<()>,
    go: Receiver<()>,
}

impl Wires {
    fn note(&self, what: String) {
        self.0.story.lock().unwrap().push(what);
    }

    pub(crate) fn story(&self) -> Vec<String> {
        std::mem::take(&mut self.0.story.lock().unwrap())
    }

    /// Stops the next map. What tells that it has come there, and what lets it go on.
    pub(crate) fn stop_in_map(&self) -> (Receiver<()>, Sender<()>) {
        let (entered, has_entered) = mpsc::channel();
        let (let_go, go) = mpsc::channel();
        *self.0.gate.lock().unwrap() = Some(Gate { entered, go });
        (has_entered, let_go)
    }

    /// The barriers of the device that the guest sees at this address.
    pub(crate) fn meet(&self, at: Sbdf, barriers: Barriers) {
        self.0.barriers.lock().unwrap().insert(at, barriers);
    }
}

impl Wiring for Wires {
    fn map(&self, _: Sbdf, piece: &Piece) -> Result<(), HookError> {
        let gate = self.0.gate.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.entered.send(()).unwrap();
            gate.go.recv().unwrap();
        }
        self.note(format!(
            "map {} +{:#x} at {:#x} for {:#x}",
            piece.id.bar, piece.offset, piece.base, piece.length
        ));
        Ok(())
    }

    fn unmap(&self, _: Sbdf, piece: &Piece) -> Result<(), HookError> {
        self.note(format!("unmap {} +{:#x} at {:#x}", piece.id.bar, piece.offset, piece.base));
        Ok(())
    }

    fn vector(&self, _: Target, vector: u16, work: VectorWork) -> Result<(), HookError> {
        self.note(match work {
            VectorWork::Route(message) => {
                format!("route {vector} {:#x} {:#x}", message.address, message.data)
            }
            VectorWork::Unroute => format!("unroute {vector}"),
            VectorWork::Send(message) => format!("send {vector} {:#x} {:#x}", message.address, message.data),
        });
        Ok(())
    }

    fn intx(&self, _: Target, level: Level) -> Result<(), HookError> {
        self.note(format!("intx {level:?}"));
        Ok(())
    }

    fn wishes(&self, target: Target, wishes: u64) -> Result<(), HookError> {
        let barriers = self.0.barriers.lock().unwrap().get(&target.seen_at).cloned();
        if let Some(barriers) = barriers.filter(|_| wishes & 1 << Barriers::WISH != 0) {
            barriers.wait();
            self.note("met".into());
        }
        Ok(())
    }
}

/// A guest and the machine around it.
pub(crate) struct Guest {
    pub(crate) registry: Registry<Option<Function>>,
    pub(crate) domain: Domain<Option<Function>>,
    pub(crate) bus: GuestBus,
    pub(crate) wires: Wires,
}

pub(crate) fn ecam() -> Ecam {
    Ecam::new(Segment::new(0), BusNumber::new(0)..=BusNumber::new(1), ECAM).unwrap()
}

pub(crate) fn windows() -> [AddressRange; 2] {
    [AddressRange::memory(WINDOW), AddressRange::io(PORTS)]
}

impl Guest {
    pub(crate) fn new() -> Self {
        let registry: Registry<Option<Function>> = Registry::new().unwrap();
        let domain = registry.create_domain(DomainId::new(1)).unwrap();
        let wires = Wires::default();
        let layout = Layout {
            ecam: &[ecam()],
            extended: ExtendedRegisters::Absent,
            bars: BarMap::new(&windows(), &[]).unwrap(),
        };
        let bus = Bus::new(domain.clone(), wires.clone(), layout).unwrap();
        Self { registry, domain, bus, wires }
    }

    /// Gives the guest a device. Its own address, too.
    pub(crate) fn plug(&self, at: Sbdf, function: Function) -> Sbdf {
        let own = Sbdf::from_bdf(Segment::new(0), 0x8000 | at.bdf());
        self.registry.add(own, Some(function)).unwrap();
        self.registry.move_devices(&[Member::at(own, at)], Owner::Guest(self.domain.id())).unwrap();
        own
    }

    /// Takes a device out of the guest, and away.
    pub(crate) fn unplug(&self, own: Sbdf) {
        self.registry.move_devices(&[Member::new(own)], Owner::Host).unwrap();
        while let Err(RemoveError::Busy(busy)) = self.registry.remove_device(own) {
            assert!(busy.to_string().contains("vPCI effect"), "{busy}");
            std::thread::yield_now();
        }
        assert!(self.registry.status(own).is_none());
    }
}
