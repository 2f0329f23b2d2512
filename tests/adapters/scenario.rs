//! One guest's session, from enumeration to unplug, and what it finds by each way with each device.

use pcidevs::Sbdf;

use crate::devices::{self, Author};
use crate::guest::{ECAM, Guest};
use crate::paths::{self, Path, Way};

const COMMAND: u8 = 4;
const BAR: u64 = 0xc000_0000;
const TABLE: u64 = BAR + 0x2000;

/// A guest's driver: it knows ports and memory, and nothing of what is behind them.
struct Driver<'a> {
    path: &'a mut dyn Path,
    found: Vec<String>,
}

impl Driver<'_> {
    fn select(&mut self, device: u32, register: u8) {
        let address = 1 << 31 | device << 11 | u32::from(register & !3);
        self.path.port_out(0xcf8, &address.to_le_bytes());
    }

    fn config(&mut self, device: u32, register: u8, length: usize) -> u32 {
        self.select(device, register);
        let mut data = [0; 4];
        self.path.port_in(0xcfc + u16::from(register % 4), &mut data[..length]);
        u32::from_le_bytes(data)
    }

    fn set_config(&mut self, device: u32, register: u8, data: &[u8]) {
        self.select(device, register);
        self.path.port_out(0xcfc + u16::from(register % 4), data);
    }

    fn load(&mut self, address: u64, length: usize) -> u64 {
        let mut data = [0; 8];
        self.path.load(address, &mut data[..length]);
        u64::from_le_bytes(data)
    }

    fn find(&mut self, what: &str, value: impl std::fmt::LowerHex) {
        self.found.push(format!("{what}: {value:#x}"));
    }

    /// The first device there is, its BARs, and where its MSI-X capability is.
    fn enumerate(&mut self) -> (u32, u8) {
        let mut first = None;
        for device in 0..32 {
            let ids = self.config(device, 0, 4);
            if ids & 0xffff != 0xffff {
                self.find(&format!("device {device}"), ids);
                first = first.or(Some(device));
            }
        }
        let device = first.unwrap();
        for bar in 0..6 {
            let register = 0x10 + 4 * bar;
            let before = self.config(device, register, 4);
            self.set_config(device, register, &[0xff; 4]);
            let size = self.config(device, register, 4);
            self.set_config(device, register, &before.to_le_bytes());
            self.find(&format!("BAR {bar} was {before:#x}, sizes"), size);
        }
        let mut at = u8::try_from(self.config(device, 0x34, 1)).unwrap();
        while self.config(device, at, 1) != 0x11 {
            at = u8::try_from(self.config(device, at + 1, 1)).unwrap();
        }
        self.find("MSI-X at", at);
        (device, at)
    }

    fn start(&mut self, device: u32, msix: u8) {
        self.set_config(device, 0x10, &u32::try_from(BAR).unwrap().to_le_bytes());
        self.set_config(device, 0x18, &0xc010_0000_u32.to_le_bytes());
        self.set_config(device, 0x1c, &0x2000_u32.to_le_bytes());
        self.set_config(device, COMMAND, &7_u16.to_le_bytes());
        let command = self.config(device, COMMAND, 2);
        self.find("command", command);
        for (offset, value) in [(0, 0xfee0_1000_u32), (4, 0), (8, 0x41), (12, 0)] {
            self.path.store(TABLE + 16 + offset, &value.to_le_bytes());
        }
        self.set_config(device, msix + 2, &(1_u16 << 15).to_le_bytes());
        for (offset, length) in [(16, 8), (24, 4)] {
            let entry = self.load(TABLE + offset, length);
            self.find("entry", entry);
        }
    }

    fn work(&mut self) {
        self.path.store(BAR + 0x800, &0x8877_6655_4433_2211_u64.to_le_bytes());
        for length in [1, 2, 4, 8] {
            let value = self.load(BAR + 0x800, length);
            self.find("memory", value);
        }
        let mut ports = [0; 4];
        self.path.port_out(0x2008, &[1, 2, 3, 4]);
        self.path.port_in(0x2008, &mut ports);
        self.find("ports", u32::from_le_bytes(ports));
        self.path.store(BAR, &[1]);
        self.path.store(BAR, &[2]);
        let pending = self.load(BAR + 0x3000, 8);
        self.find("pending", pending);
    }

    fn look_around(&mut self, device: u32) {
        let function = ECAM + u64::from(device << 15);
        for (address, length) in
            [(function, 8), (function + 8, 4), (function + 0x100, 4), (function + 6, 2), (BAR + 0x800, 4)]
        {
            let value = self.load(address, length);
            self.find("memory space", value);
        }
        let ids = self.config(device, 0, 4);
        self.find("ids", ids);
        let mut ports = [0; 2];
        self.path.port_in(0x2008, &mut ports);
        self.find("ports", u16::from_le_bytes(ports));
    }
}

/// What a guest finds, and what the outside is asked.
fn session(way: Way, author: Author) -> Vec<String> {
    let guest = Guest::new();
    let at: Sbdf = "00:03.0".parse().unwrap();
    let own = guest.plug(at, devices::build(author, &guest, at));
    let mut path = paths::path(way, &guest);
    let mut driver = Driver { path: &mut *path, found: Vec::new() };
    let (device, msix) = driver.enumerate();
    driver.start(device, msix);
    driver.work();
    driver.look_around(device);
    driver.found.append(&mut guest.wires.story());
    guest.unplug(own);
    driver.look_around(device);
    driver.found.append(&mut guest.wires.story());
    driver.found
}

#[test]
fn a_guest_finds_the_same_by_every_way_with_every_device() {
    let directly = session(Way::Direct, Author::Us);
    let expected = [
        "device 3: 0x10411af4",
        "BAR 0 was 0x4, sizes: 0xffffc004",
        "BAR 1 was 0x0, sizes: 0xffffffff",
        "BAR 2 was 0x0, sizes: 0xfffff000",
        "BAR 3 was 0x1, sizes: 0xffffffe1",
        "BAR 4 was 0x0, sizes: 0x0",
        "BAR 5 was 0x0, sizes: 0x0",
        "MSI-X at: 0x40",
        "command: 0x7",
        "entry: 0xfee01000",
        "entry: 0x41",
        "memory: 0x11",
        "memory: 0x2211",
        "memory: 0x44332211",
        "memory: 0x8877665544332211",
        "ports: 0x4030201",
        "pending: 0x4",
        "memory space: 0x10000710411af4",
        "memory space: 0x2000000",
        "memory space: 0x0",
        "memory space: 0x10",
        "memory space: 0x44332211",
        "ids: 0x10411af4",
        "ports: 0x201",
        "map 2 +0x0 at 0xc0100000 for 0x1000",
        "route 1 0xfee01000 0x41",
        "send 1 0xfee01000 0x41",
        "memory space: 0xffffffffffffffff",
        "memory space: 0xffffffff",
        "memory space: 0xffffffff",
        "memory space: 0xffff",
        "memory space: 0xffffffff",
        "ids: 0xffffffff",
        "ports: 0xffff",
    ];
    assert_eq!(directly, expected);
    for way in paths::ALL {
        for author in devices::ALL {
            assert_eq!(session(way, author), directly, "{way:?} {author:?}");
        }
    }
}
