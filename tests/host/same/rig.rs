//! A machine with certain cards, whichever kernel it has.
//!
//! The kernel in memory is made anew for each test. A real machine says with `PCIDEVS_RIG` which of its functions are
//! what (`card=0000:01:00.0/e1000e other=…`), and each test brings it in order before it begins; it has one test at a
//! time.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pcidevs::host::fake::{Fake, FakeDriver, FakeFunction, OpenDevice, Release};
use pcidevs::host::{Directory, HostManager, Kernel, Linux, Options, Place, Recovery, Root, Store};
use pcidevs::platform::GroupId;
use pcidevs::{Errno, Sbdf};

use crate::scaffold::at;

const NIC: (u16, u16) = (0x8086, 0x10d3);
const DISK: (u16, u16) = (0x1b36, 0x0010);
const OLD: (u16, u16) = (0x8086, 0x100e);

/// A PCIe root port.
fn port(group: u32, secondary: u8) -> FakeFunction {
    let mut port = FakeFunction::bridge((0x1b36, 0x000c), group, secondary);
    // It has capabilities, from 0x40 on: PCI Express, version 2, root port.
    (port.config[0x06], port.config[0x34]) = (0x10, 0x40);
    port.config[0x40..0x44].copy_from_slice(&[0x10, 0, 0x42, 0]);
    port
}

/// A function that a host driver has.
#[derive(Clone)]
pub(crate) struct Card {
    pub(crate) kernel: Arc<dyn Kernel>,
    pub(crate) address: String,
    pub(crate) driver: String,
}

/// The machine.
pub(crate) struct Rig {
    pub(crate) kernel: Arc<dyn Kernel>,
    pub(crate) store: Arc<dyn Store>,
    /// Two that are alone in their groups and can be reset.
    pub(crate) card: Card,
    pub(crate) other: Card,
    /// One that makes up to four virtual functions; its driver leaves them when it goes.
    pub(crate) pf: Card,
    /// Two functions of one card, in one group; each can be reset.
    pub(crate) ports: [Card; 2],
    /// Two of one card, in one group. Only the whole bus can be reset, and the kernel lists that for the first one
    /// alone, which was the only one when it was found.
    pub(crate) pair: [Card; 2],
    /// The same behind a bridge to conventional PCI, which gives them one requester ID.
    pub(crate) old: [Card; 2],
    /// A bridge without driver.
    pub(crate) bridge: Card,
    pub(crate) release: Release,
    fake: Option<Fake>,
    folder: Option<PathBuf>,
}

impl Rig {
    /// The kernels to try something on: both that are in memory, or the real one.
    pub(crate) fn each() -> Vec<Self> {
        match std::env::var("PCIDEVS_RIG") {
            Ok(cards) => vec![Self::real(&cards)],
            Err(_) => [Release::V6_1, Release::V6_12].map(Self::in_memory).into(),
        }
    }

    fn in_memory(release: Release) -> Self {
        let fake = Fake::new();
        fake.set_release(release);
        for (name, id) in [("e1000e", NIC), ("e1000", OLD)] {
            fake.add_driver(name, FakeDriver::of(id));
        }
        fake.add_driver("nvme", FakeDriver { makes_vfs: true, ..FakeDriver::of(DISK) });
        let with = |reset: Option<&str>, id, group| FakeFunction {
            reset_method: reset.map(str::to_owned),
            ..FakeFunction::endpoint(id, group)
        };
        let disk = FakeFunction { total_vfs: 4, ..with(Some("flr bus"), DISK, 9) };
        for (address, function) in [
            ("0000:00:01.0", port(1, 1)),
            ("0000:00:02.0", port(2, 2)),
            ("0000:00:03.0", port(3, 3)),
            ("0000:00:05.0", port(5, 6)),
            ("0000:00:06.0", port(6, 7)),
            ("0000:01:00.0", with(Some("pm bus"), NIC, 7)),
            ("0000:02:00.0", with(Some("flr pm bus"), NIC, 8)),
            ("0000:03:00.0", disk),
            ("0000:04:00.0", FakeFunction::bridge((0x1b36, 0x000e), 10, 5)),
            ("0000:05:01.0", with(Some("bus"), OLD, 10)),
            ("0000:05:02.0", with(None, OLD, 10)),
            ("0000:06:00.0", with(Some("pm bus"), NIC, 11)),
            ("0000:06:00.1", with(Some("pm"), NIC, 11)),
            ("0000:07:00.0", with(Some("bus"), OLD, 12)),
            ("0000:07:00.1", with(None, OLD, 12)),
        ] {
            fake.add(at(address), function);
        }
        let cards = "card=0000:01:00.0/e1000e other=0000:02:00.0/e1000e pf=0000:03:00.0/nvme \
            bridge=0000:04:00.0/ old=0000:05:01.0/e1000 old=0000:05:02.0/e1000 \
            port=0000:06:00.0/e1000e port=0000:06:00.1/e1000e \
            pair=0000:07:00.0/e1000 pair=0000:07:00.1/e1000";
        Self::new(Arc::new(fake.clone()), Arc::new(fake.clone()), cards, release, Some(fake))
    }

    /// The real machine, in order.
    fn real(cards: &str) -> Self {
        let rig = Self::as_it_is(cards);
        rig.kernel.load_module("vfio-pci").expect("there is VFIO");
        rig.set_sriov_of_vfio("N");
        for card in rig.all() {
            card.bring_home();
        }
        rig
    }

    /// The real machine, as an earlier process has left it.
    pub(crate) fn as_it_is(cards: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let kernel = Arc::new(Linux::new());
        let place = Place::new(Root::Proc, "sys/kernel/osrelease").expect("a place");
        let release = kernel.read(&place, 256).expect("a release");
        let release = if release.starts_with(b"6.1.") { Release::V6_1 } else { Release::V6_12 };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pcidevs-{}-{number}", std::process::id()));
        let store = Arc::new(Directory::new(&folder).expect("a folder"));
        Self { folder: Some(folder), ..Self::new(kernel, store, cards, release, None) }
    }

    fn new(
        kernel: Arc<dyn Kernel>,
        store: Arc<dyn Store>,
        cards: &str,
        release: Release,
        fake: Option<Fake>,
    ) -> Self {
        let mut found: BTreeMap<&str, Vec<Card>> = BTreeMap::new();
        for card in cards.split_whitespace() {
            let (name, rest) = card.split_once('=').expect("a name");
            let (address, driver) = rest.split_once('/').expect("a driver");
            let card =
                Card { kernel: kernel.clone(), address: address.to_owned(), driver: driver.to_owned() };
            found.entry(name).or_default().push(card);
        }
        let mut take = |name| found.get_mut(name).map(|cards| cards.remove(0)).expect(name);
        Self {
            card: take("card"),
            other: take("other"),
            pf: take("pf"),
            ports: [take("port"), take("port")],
            pair: [take("pair"), take("pair")],
            old: [take("old"), take("old")],
            bridge: take("bridge"),
            kernel,
            store,
            release,
            fake,
            folder: None,
        }
    }

    /// Where the journal is, on a real machine.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    fn all(&self) -> Vec<&Card> {
        let alone = [&self.card, &self.other, &self.pf, &self.bridge];
        alone.into_iter().chain(&self.ports).chain(&self.pair).chain(&self.old).collect()
    }

    /// Whether `vfio-pci` makes virtual functions.
    pub(crate) fn set_sriov_of_vfio(&self, text: &str) {
        let place = Place::new(Root::Sys, "module/vfio_pci/parameters/enable_sriov").expect("a place");
        self.kernel.write(&place, text.as_bytes()).expect("written");
    }

    /// Looks for functions that have come.
    pub(crate) fn rescan(&self) {
        let place = Place::new(Root::Sys, "bus/pci/rescan").expect("a place");
        self.kernel.write(&place, b"1").expect("looked");
    }

    /// A guest opens a device; the error is the kernel's.
    pub(crate) fn hold(&self, card: &Card) -> Result<Held, Errno> {
        match &self.fake {
            Some(fake) => fake.open_device(at(&card.address)).map(Held::InMemory).ok_or(Errno::EPERM),
            None => Held::real(&["device", &card.group().to_string(), &card.address]),
        }
    }

    /// A manager of this machine.
    pub(crate) fn reopen(&self) -> (HostManager, Recovery) {
        let options = Options { write_deadline: Duration::from_secs(60), ..Options::default() };
        HostManager::open(self.kernel.clone(), self.store.clone(), options).expect("opened")
    }

    pub(crate) fn open(&self) -> HostManager {
        let (manager, recovery) = self.reopen();
        assert_eq!((recovery.damage, recovery.refused), (None, vec![]));
        manager
    }

    /// Driver and override of every card.
    pub(crate) fn dump(&self) -> Vec<String> {
        let show =
            |card: &Card| format!("{} {:?} {:?}", card.address, card.bound_to(), card.driver_override());
        self.all().into_iter().map(show).collect()
    }
}

impl Card {
    pub(crate) fn at(&self) -> Sbdf {
        at(&self.address)
    }

    pub(crate) fn place(&self, file: &str) -> Place {
        Place::new(Root::Sys, format!("bus/pci/devices/{}/{file}", self.address)).expect("a place")
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> Result<(), Errno> {
        self.kernel.write(&self.place(file), text.as_bytes())
    }

    /// Writes its address into a driver's `bind` or `unbind`.
    pub(crate) fn write_driver(&self, driver: &str, file: &str) -> Result<(), Errno> {
        self.kernel.write(&driver_file(driver, file), self.address.as_bytes())
    }

    pub(crate) fn probe(&self) -> Result<(), Errno> {
        let place = Place::new(Root::Sys, "bus/pci/drivers_probe").expect("a place");
        self.kernel.write(&place, self.address.as_bytes())
    }

    pub(crate) fn read(&self, file: &str) -> String {
        let bytes = self.kernel.read(&self.place(file), 4096).expect("read");
        String::from_utf8(bytes).expect("text").trim_end().to_owned()
    }

    fn link(&self, file: &str) -> Option<String> {
        let link = self.kernel.read_link(&self.place(file));
        link.ok().map(|target| target.rsplit('/').next().expect("a name").to_owned())
    }

    pub(crate) fn bound_to(&self) -> Option<String> {
        self.link("driver")
    }

    /// The override, empty for none.
    pub(crate) fn driver_override(&self) -> String {
        let text = self.read("driver_override");
        if text == "(null)" { String::new() } else { text }
    }

    pub(crate) fn group(&self) -> u32 {
        self.link("iommu_group").and_then(|name| name.parse().ok()).expect("a group")
    }

    pub(crate) fn group_id(&self) -> GroupId {
        GroupId(self.group())
    }

    /// A virtual function of it.
    pub(crate) fn virtual_function(&self, n: u16) -> Self {
        let address = self.link(&format!("virtfn{n}")).expect("a virtual function");
        Self { kernel: self.kernel.clone(), address, driver: String::new() }
    }

    /// Whether it may write to memory.
    pub(crate) fn is_master(&self) -> bool {
        let mut command = [0; 2];
        assert_eq!(self.kernel.read_at(&self.place("config"), 4, &mut command), Ok(2));
        command[0] & 4 != 0
    }

    /// On VFIO, by somebody else than a manager.
    pub(crate) fn to_vfio(&self) {
        self.write("driver_override", "vfio-pci").expect("written");
        if let Some(driver) = self.bound_to() {
            self.write_driver(&driver, "unbind").expect("unbound");
        }
        self.probe().expect("probed");
        assert_eq!(self.bound_to().as_deref(), Some("vfio-pci"));
    }

    /// As it was when the machine was started, whatever an earlier test has left.
    fn bring_home(&self) {
        self.write("driver_override", "\n").expect("cleared");
        match self.bound_to() {
            Some(driver) if driver == self.driver => {}
            now => {
                if let Some(driver) = now {
                    self.write_driver(&driver, "unbind").expect("unbound");
                }
                if !self.driver.is_empty() {
                    self.write_driver(&self.driver, "bind").expect("bound");
                }
            }
        }
        if self.kernel.read(&self.place("sriov_numvfs"), 16).is_ok_and(|now| now != b"0\n") {
            self.write("sriov_numvfs", "0").expect("switched off");
        }
    }
}

pub(crate) fn driver_file(driver: &str, file: &str) -> Place {
    Place::new(Root::Sys, format!("bus/pci/drivers/{driver}/{file}")).expect("a place")
}

/// A guest that has a device open, until this is dropped.
pub(crate) enum Held {
    InMemory(#[expect(dead_code, reason = "is dropped")] OpenDevice),
    Real(Child),
}

impl Held {
    /// The small program beside this one.
    fn real(arguments: &[&str]) -> Result<Self, Errno> {
        let mut holder = Command::new("holder");
        holder.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = holder.spawn().expect("there is a holder");
        let mut line = String::new();
        let out = holder.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("read");
        if line == "open\n" {
            return Ok(Self::Real(holder));
        }
        let status = holder.wait().expect("it has ended");
        Err(Errno::new(status.code().unwrap_or(255)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Self::Real(holder) = self {
            // It closes what it has when nobody is there any more.
            drop(holder.stdin.take());
            if let Err(error) = holder.wait() {
                eprintln!("the holder cannot be waited for: {error}");
            }
        }
    }
}
