//! A guest with devices behind a bus, whose wiring notes what it was asked and fails what it is told to.

use std::sync::{Arc, Mutex};

use pcidevs::address::{Bus as BusNumber, Segment};
use pcidevs::platform::{HookError, Switch, Width};
use pcidevs::vpci::{
    AddressRange, Backing, BarMap, Bus, Ecam, Endpoint, ExtendedRegisters, Function, Layout, Level, Piece,
    PowerState, Refusal, Signals, Target, Vcpu, VectorWork, Wiring,
};
use pcidevs::{Domain, DomainId, Errno, Member, Owner, Registry, Sbdf};

pub(crate) const ECAM: u64 = 0xb000_0000;
/// Where BARs may be.
pub(crate) const WINDOW: std::ops::RangeInclusive<u64> = 0xc000_0000..=0xdfff_ffff;

pub(crate) type GuestBus = Bus<Option<Function>, Recorder>;
pub(crate) type GuestVcpu = Vcpu<Option<Function>, Recorder>;

/// What the outside was asked, in order, and what it is to fail.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    story: Vec<String>,
    fails: Option<&'static str>,
}

impl Recorder {
    fn note(&self, what: String) -> Result<(), HookError> {
        let mut notes = self.0.lock().unwrap();
        let fails = notes.fails.is_some_and(|fails| what.starts_with(fails));
        notes.story.push(what);
        if fails { Err(HookError::new(Errno::EIO, "told to fail")) } else { Ok(()) }
    }

    /// What happened since this was last asked.
    pub(crate) fn story(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().story)
    }

    /// From now on what begins with this fails.
    pub(crate) fn fail(&self, what: impl Into<Option<&'static str>>) {
        self.0.lock().unwrap().fails = what.into();
    }
}

fn piece(piece: &Piece) -> String {
    format!(
        "{}.{} +{:#x} at {:#x} for {:#x}",
        piece.id.device, piece.id.bar, piece.offset, piece.base, piece.length
    )
}

impl Wiring for Recorder {
    fn map(&self, _: Sbdf, mapped: &Piece) -> Result<(), HookError> {
        self.note(format!("map {}", piece(mapped)))
    }

    fn unmap(&self, _: Sbdf, unmapped: &Piece) -> Result<(), HookError> {
        self.note(format!("unmap {}", piece(unmapped)))
    }

    fn bar_refused(&self, target: Target, refusal: &Refusal) {
        let _noted = self.note(format!("refused {}.{}", target.device, refusal.id.bar));
    }

    fn failed(&self, target: Target, error: HookError) {
        let _noted = self.note(format!("failed {}: {}", target.device, error.reason()));
    }

    fn vector(&self, _: Target, vector: u16, work: VectorWork) -> Result<(), HookError> {
        self.note(match work {
            VectorWork::Route(message) => {
                format!("route {vector} to {:#x} {:#x}", message.address, message.data)
            }
            VectorWork::Unroute => format!("unroute {vector}"),
            VectorWork::Send(message) => format!("send {vector} {:#x} {:#x}", message.address, message.data),
        })
    }

    fn intx(&self, _: Target, level: Level) -> Result<(), HookError> {
        self.note(format!("intx {level:?}"))
    }

    fn bus_master(&self, _: Target, to: Switch) -> Result<(), HookError> {
        self.note(format!("bus master {to:?}"))
    }

    fn power(&self, _: Target, to: PowerState) -> Result<(), HookError> {
        self.note(format!("power {to:?}"))
    }

    fn reset(&self, _: Target) -> Result<(), HookError> {
        self.note("reset".into())
    }

    fn virtual_functions(&self, _: Target, count: u16) -> Result<(), HookError> {
        self.note(format!("virtual functions {count}"))
    }

    fn wishes(&self, _: Target, wishes: u64) -> Result<(), HookError> {
        self.note(format!("wishes {wishes:#x}"))
    }
}

/// A device: memory in BAR 0; writing its first byte raises that vector, its second sets the pin, its third wishes, its
/// fourth panics.
pub(crate) struct Memory(pub(crate) Vec<u8>);

impl Memory {
    pub(crate) fn new(size: usize) -> Self {
        Self(vec![0; size])
    }
}

impl Backing for Memory {
    fn bar_read(&mut self, _: u8, offset: u64, data: &mut [u8]) {
        data.copy_from_slice(&self.0[usize::try_from(offset).unwrap()..][..data.len()]);
    }

    fn bar_write(&mut self, _: u8, offset: u64, data: &[u8], signals: &mut Signals<'_>) {
        self.0[usize::try_from(offset).unwrap()..][..data.len()].copy_from_slice(data);
        match (offset, data) {
            (0, [vector]) => signals.raise((*vector).into()),
            (1, [level]) => signals.set_intx(if *level == 0 { Level::Low } else { Level::High }),
            (2, [wish]) => signals.wish((*wish).into()),
            (3, [_]) => panic!("a device with a fault"),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.0.fill(0);
    }

    fn save(&self, state: &mut Vec<u8>) {
        state.extend(&self.0);
    }

    fn restore(&mut self, state: &[u8]) -> bool {
        let fits = state.len() == self.0.len();
        if fits {
            self.0.copy_from_slice(state);
        }
        fits
    }
}

/// A guest's addresses, with these windows of configuration space.
pub(crate) fn layout(ecam: &[Ecam]) -> Layout<'_> {
    // Configuration space is within it, and no BAR's all the same.
    let windows = [AddressRange::memory(ECAM..=*WINDOW.end()), AddressRange::io(0x1000..=0xffff)];
    Layout { ecam, extended: ExtendedRegisters::Absent, bars: BarMap::new(&windows, &[]).unwrap() }
}

/// A guest and the machine around it.
pub(crate) struct Guest {
    pub(crate) registry: Registry<Option<Function>>,
    pub(crate) domain: Domain<Option<Function>>,
    pub(crate) bus: GuestBus,
    pub(crate) wiring: Recorder,
}

impl Guest {
    pub(crate) fn new() -> Self {
        let registry: Registry<Option<Function>> = Registry::new().unwrap();
        let domain = registry.create_domain(DomainId::new(1)).unwrap();
        let wiring = Recorder::default();
        let ecam = Ecam::new(Segment::new(0), BusNumber::new(0)..=BusNumber::new(255), ECAM).unwrap();
        let bus = Bus::new(domain.clone(), wiring.clone(), layout(&[ecam])).unwrap();
        Self { registry, domain, bus, wiring }
    }

    /// Gives the guest a device, whose own address is on bus 80.
    pub(crate) fn plug(&self, at: &str, function: Function) -> Sbdf {
        let at: Sbdf = at.parse().unwrap();
        let own = Sbdf::from_bdf(Segment::new(0), 0x8000 | at.bdf());
        self.registry.add(own, Some(function)).unwrap();
        self.registry.move_devices(&[Member::at(own, at)], Owner::Guest(self.domain.id())).unwrap();
        at
    }

    pub(crate) fn read(&self, at: Sbdf, offset: u16, width: Width) -> u32 {
        self.bus.config_read(at, offset, width)
    }

    pub(crate) fn write(&self, at: Sbdf, offset: u16, width: Width, value: u32) {
        assert!(self.bus.config_write(at, offset, width, value).wait());
    }
}

/// Reads an address of memory as a vCPU; `None` if nothing of PCI is there.
pub(crate) fn load(vcpu: &mut GuestVcpu, address: u64, length: usize) -> Option<u64> {
    let mut data = [0; 8];
    vcpu.mmio_read(address, &mut data[..length]).then(|| u64::from_le_bytes(data))
}

/// A device with 16 KiB of directly mapped memory, in it MSI-X with three vectors, and a pin.
pub(crate) fn nic() -> Endpoint {
    use pcidevs::vpci::{Bar, MsixPlace};
    Endpoint::new(0x1af4, 0x1041)
        .class(0x02_0000)
        .bar(0, Bar::memory64(0x4000).direct())
        .pin(1)
        .msix(3, MsixPlace { table_bar: 0, table: 0x2000, pending_bar: 0, pending: 0x3000 })
}
