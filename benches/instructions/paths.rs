//! The hot paths. A new one is a row of [`PATHS`], then `--accept`.

use std::cell::RefCell;
use std::hint::black_box;

use pcidevs::address::Segment;
use pcidevs::lifecycle::{DeviceInfo, Lifecycle};
use pcidevs::platform::{ConfigBytes, Simulated, Width};
use pcidevs::{Domain, DomainId, Holder, Member, Owner, Registry, Sbdf};

use crate::vpci::{self, BAR0, Vpci};

/// One hot path.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    /// Sets up, then repeats it so many times.
    pub(crate) run: fn(usize),
    /// Repetitions that are counted. Fewer for what is long.
    pub(crate) times: usize,
    /// How much longer it may become before somebody has to accept it, in percent.
    pub(crate) margin: f64,
}

/// What the issue asks for.
const MARGIN: f64 = 10.0;

/// For what calls the C library's allocator, whose instructions are counted too and are not the same everywhere.
const MARGIN_ALLOCATING: f64 = 20.0;

const MANY: usize = 65_536;
const FEW: usize = 4096;

const fn path(name: &'static str, run: fn(usize)) -> Path {
    Path { name, run, times: MANY, margin: MARGIN }
}

const fn allocating(name: &'static str, run: fn(usize)) -> Path {
    Path { name, run, times: FEW, margin: MARGIN_ALLOCATING }
}

/// All of them. The first is the loop that is in all others.
pub(crate) const PATHS: &[Path] = &[
    path("nothing", |times| {
        black_box(registry());
        visiting(times, |address| address);
    }),
    path("get and put", |times| {
        let registry = registry();
        visiting(times, |address| registry.get(address).is_some());
    }),
    path("get, no device there", |times| {
        let registry = registry();
        visiting(times, |address| registry.get(elsewhere(address)).is_some());
    }),
    path("lock and read", |times| {
        let registry = registry();
        visiting(times, |address| registry.lock(address).map_or(ONES, |device| device[REGISTER]));
    }),
    path("lock and read, no device there", |times| {
        let registry = registry();
        visiting(times, |address| registry.lock(elsewhere(address)).map_or(ONES, |device| device[REGISTER]));
    }),
    path("lock and read by guest address", |times| {
        let (_registry, guest) = with_guest();
        visiting(times, |address| guest.lock(address).map_or(ONES, |device| device[REGISTER]));
    }),
    path("lock and write", |times| {
        let registry = registry();
        visiting(times, |address| registry.lock(address).map_or((), |mut device| device[REGISTER] = 7));
    }),
    path("published read", |times| {
        let registry = registry();
        visiting(times, |address| registry.read_published(address, REGISTER));
    }),
    path("published read by guest address", |times| {
        let (_registry, guest) = with_guest();
        visiting(times, |address| guest.read_published(address, REGISTER));
    }),
    path("clone and put of a handle", |times| {
        let registry = registry();
        let handles: Vec<_> = addresses().map(|address| registry.get(address).expect("added")).collect();
        counting(times, |at| drop(black_box(handles[at].get())));
    }),
    path("upgrade of a weak handle, and put", |times| {
        let registry = registry();
        let weak: Vec<_> =
            addresses().map(|address| registry.get(address).expect("added").downgrade()).collect();
        counting(times, |at| weak[at].upgrade().is_some());
    }),
    path("hold and put", |times| {
        let registry = registry();
        let holder = Holder::Named("guard");
        visiting(times, |address| registry.hold(address, holder).is_ok_and(|hold| hold.is_some()));
    }),
    path("remove, no device there", |times| {
        let registry = registry();
        visiting(times, |address| registry.remove_device(elsewhere(address)).is_err());
    }),
    path("remove, in use", |times| {
        let registry = registry();
        let uses: Vec<_> = addresses().map(|address| registry.get(address)).collect();
        visiting(times, |address| registry.remove_device(address).is_err());
        drop(uses);
    }),
    path("vPCI: config read", |times| {
        let guest = Vpci::new();
        visiting(times, |at| guest.bus.config_read(at, BAR0, Width::Dword));
    }),
    path("vPCI: config write", |times| {
        let guest = Vpci::new();
        // Where it is mapped it stays, so nothing has to be carried out.
        visiting(times, |at| guest.bus.config_write(at, BAR0, Width::Dword, 0).wait());
    }),
    path("vPCI: ECAM read, the whole path", |times| {
        let vcpu = &RefCell::new(Vpci::new().bus.vcpu());
        visiting(times, |at| vpci::load(vcpu, vpci::ecam(at, BAR0)));
    }),
    path("vPCI: BAR read, the whole path", |times| {
        let vcpu = &RefCell::new(Vpci::new().bus.vcpu());
        visiting(times, |at| vpci::load(vcpu, vpci::bar(at)));
    }),
    allocating("remove and add", |times| {
        let registry = registry();
        visiting(times, |address| {
            registry.remove_device(address).expect("unused");
            registry.add(address, device(address)).expect("removed before");
        });
    }),
    allocating("move to a guest and back", |times| {
        let (registry, guest) = with_guest();
        let guest = Owner::Guest(guest.id());
        visiting(times, |address| {
            registry.move_devices(&[Member::new(address)], Owner::Host).expect("nobody is in the way");
            registry.move_devices(&[Member::at(address, address)], guest).expect("nobody is in the way");
        });
    }),
    allocating("transition: assign and deassign", |times| {
        let life = machine();
        visiting(times, |address| {
            life.assign(&[Member::new(address)], GUEST).expect("nobody is in the way");
            life.deassign(&[Member::new(address)], Owner::Guest(GUEST)).expect("the guest has it");
        });
    }),
    allocating("transition: remove and add", |times| {
        let life = machine();
        visiting(times, |address| {
            life.remove_device(address).expect("unused");
            life.add(address, DeviceInfo::default(), device(address)).expect("removed before");
        });
    }),
];

/// A device as an embedder might keep it: a standard header of registers.
type Device = [u32; 16];

const REGISTER: usize = 3;
const ONES: u32 = u32::MAX;
const DEVICES: u16 = 64;
pub(crate) const GUEST: DomainId = DomainId::new(1);

fn device(address: Sbdf) -> Device {
    [u32::from(address.bdf()); 16]
}

pub(crate) fn addresses() -> impl Iterator<Item = Sbdf> {
    (0..DEVICES).map(|bdf| Sbdf::from_bdf(Segment::new(0), bdf))
}

/// An address beside a device's, without one: same bus, another slot.
fn elsewhere(address: Sbdf) -> Sbdf {
    Sbdf::from_bdf(Segment::new(0), address.bdf() + DEVICES)
}

/// A registry with devices, each with published registers.
fn registry() -> Registry<Device> {
    let registry = Registry::new().expect("memory");
    for address in addresses() {
        registry.add(address, device(address)).expect("each address once");
        registry.lock(address).expect("added").publish(&device(address)).expect("memory");
    }
    registry
}

/// The same, all given to a guest.
fn with_guest() -> (Registry<Device>, Domain<Device>) {
    let registry = registry();
    let guest = registry.create_domain(GUEST).expect("the first domain");
    let members: Vec<_> = addresses().map(|address| Member::at(address, address)).collect();
    registry.move_devices(&members, Owner::Guest(GUEST)).expect("nobody is in the way");
    (registry, guest)
}

/// A simulated machine with devices and a guest.
fn machine() -> Lifecycle<Simulated<Device>> {
    let simulated = Simulated::new();
    let config = ConfigBytes::endpoint(0x8086, 0x10d3).express().flr().msi().msix(4).ats();
    addresses().for_each(|address| simulated.plug(address, &config));
    let life = Lifecycle::new(simulated).expect("memory");
    life.create_domain(GUEST).expect("the first domain");
    for address in addresses() {
        life.add(address, DeviceInfo::default(), device(address)).expect("each address once");
    }
    life
}

/// `visit` for each address in turn, again and again.
fn visiting<R>(times: usize, visit: impl Fn(Sbdf) -> R) {
    let addresses: Vec<Sbdf> = addresses().collect();
    counting(times, |at| visit(addresses[at]));
}

/// `visit` for each device's number in turn, again and again.
fn counting<R>(times: usize, visit: impl Fn(usize) -> R) {
    for turn in 0..times {
        black_box(visit(black_box(turn % usize::from(DEVICES))));
    }
}
