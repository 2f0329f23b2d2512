//! A guest that does anything: any access of any size anywhere, to several devices, some of which come and go.
//!
//! What must hold: no panic; a device answers as itself or as ones; what is mapped is what the command registers show;
//! nothing is left of a device that was taken away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use pcidevs::address::{Bus as BusNumber, Segment};
use pcidevs::device::PortType;
use pcidevs::platform::{HookError, Width};
use pcidevs::vpci::{
    AddressRange, Backing, Bar, BarMap, Bus, Ecam, Endpoint, ExtendedRegisters, Function, Layout, MsixPlace,
    Piece, Signals, Target, VectorWork, Wiring, Written,
};
use pcidevs::{DomainId, Errno, Member, Owner, Registry, Sbdf};

const ECAM: u64 = 0xb000_0000;
const BAR: u64 = 0xc000_0000;
const DEVICES: u8 = 3;

/// One thing that the guest, or its host, does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) what: u8,
    pub(crate) device: u8,
    pub(crate) offset: u16,
    pub(crate) length: u8,
    pub(crate) value: u64,
}

/// The embedder's books: which part of which BAR is mapped at an address. Every eleventh hook fails.
#[derive(Clone, Default)]
struct Books(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    hooks: u32,
    mapped: BTreeMap<u64, (Sbdf, u64)>,
    wrong: Option<String>,
}

impl Books {
    fn hook(&self, hook: impl FnOnce(&mut Kept)) -> Result<(), HookError> {
        let mut kept = self.0.lock().unwrap();
        kept.hooks += 1;
        if kept.hooks.is_multiple_of(11) {
            return Err(HookError::new(Errno::EIO, "every eleventh fails"));
        }
        hook(&mut kept);
        Ok(())
    }
}

impl Kept {
    fn insist(&mut self, is_so: bool, what: &str) {
        if !is_so {
            self.wrong.get_or_insert(what.to_owned());
        }
    }
}

impl Wiring for Books {
    fn map(&self, device: Sbdf, piece: &Piece) -> Result<(), HookError> {
        self.hook(|kept| {
            for page in (piece.base..piece.base + piece.length).step_by(0x1000) {
                let before = kept.mapped.insert(page, (device, piece.offset + (page - piece.base)));
                kept.insist(before.is_none(), "mapped where something is mapped");
            }
        })
    }

    fn unmap(&self, device: Sbdf, piece: &Piece) -> Result<(), HookError> {
        self.hook(|kept| {
            for page in (piece.base..piece.base + piece.length).step_by(0x1000) {
                let before = kept.mapped.remove(&page);
                let is_this = before == Some((device, piece.offset + (page - piece.base)));
                kept.insist(is_this, "unmapped what was not mapped there");
            }
        })
    }

    fn vector(&self, _: Target, vector: u16, _: VectorWork) -> Result<(), HookError> {
        self.hook(|kept| kept.insist(vector < 4, "there is no such vector"))
    }
}

/// Memory that reads as the device's number.
struct Card(u8);

impl Backing for Card {
    fn bar_read(&mut self, _: u8, _: u64, data: &mut [u8]) {
        data.fill(self.0);
    }

    fn bar_write(&mut self, _: u8, offset: u64, data: &[u8], signals: &mut Signals<'_>) {
        if let ([vector], 0) = (data, offset) {
            signals.raise((*vector).into());
        }
    }

    fn save(&self, state: &mut Vec<u8>) {
        state.push(self.0);
    }

    fn restore(&mut self, state: &[u8]) -> bool {
        state == [self.0]
    }
}

fn card(number: u8) -> Function {
    let card = Endpoint::new(0x1000 + u16::from(number), 1)
        .bar(0, Bar::memory64(0x8000).direct())
        .bar(2, Bar::memory32(0x2000))
        .bar(3, Bar::io(32))
        .rom(0x1000)
        .pin(1)
        .msi(4)
        .msix(4, MsixPlace { table_bar: 0, table: 0x2000, pending_bar: 0, pending: 0x4000 })
        .power_management()
        .express(PortType::RootComplexEndpoint)
        .function_level_reset();
    card.build(Card(number)).unwrap()
}

fn own(device: u8) -> Sbdf {
    Sbdf::from_bdf(Segment::new(0), 0x8000 | u16::from(device) << 3)
}

fn seen(device: u8) -> Sbdf {
    Sbdf::from_bdf(Segment::new(0), u16::from(device) << 3)
}

/// Takes the steps; says what did not hold.
pub(crate) fn play(steps: &[Step]) -> Result<(), String> {
    let registry: Registry<Option<Function>> = Registry::new().unwrap();
    let domain = registry.create_domain(DomainId::new(1)).unwrap();
    let books = Books::default();
    let ecam = Ecam::new(Segment::new(0), BusNumber::new(0)..=BusNumber::new(0), ECAM).unwrap();
    let windows = [AddressRange::memory(BAR..=BAR + 0xf_ffff), AddressRange::io(0x1000..=0x1fff)];
    let layout = Layout {
        ecam: &[ecam],
        extended: ExtendedRegisters::Present,
        bars: BarMap::new(&windows, &[]).unwrap(),
    };
    let bus = Bus::new(domain, books.clone(), layout).unwrap();
    for device in 0..DEVICES {
        registry.add(own(device), Some(card(device))).unwrap();
        registry
            .move_devices(&[Member::at(own(device), seen(device))], Owner::Guest(DomainId::new(1)))
            .unwrap();
    }
    let mut vcpu = bus.vcpu();
    let mut saved = None;
    for (number, step) in steps.iter().enumerate() {
        let Step { what, device, offset, length, value } = *step;
        let (device, length) = (device % DEVICES, usize::from(length) % 10);
        let mut data = [0; 16];
        let bytes = value.to_le_bytes();
        let written = &[bytes, bytes].concat()[..length];
        let config = ECAM + (u64::from(device) << 15) + u64::from(offset & 0xfff);
        let memory = BAR + (value & 0xf_ffff);
        match what % 12 {
            0 => {
                let is_pci = vcpu.mmio_read(config, &mut data[..length]);
                let is_whole = is_pci && offset.is_multiple_of(0x1000) && length == 2;
                if is_whole && data[..2] != [device, 0x10] && data[..2] != [0xff, 0xff] {
                    return Err(format!("step {number}: another device's identity, {data:x?}"));
                }
            }
            1..=3 => drop(vcpu.mmio_write(config, written).wait()),
            4 => drop(vcpu.mmio_read(memory, &mut data[..length])),
            5 => drop(vcpu.mmio_write(memory, written).wait()),
            6 => drop(vcpu.io_read(offset, &mut data[..length])),
            7 => drop(vcpu.io_write(0xcf8 + (offset & 7), written).wait()),
            8 => drop(vcpu.io_write(offset, written).wait()),
            // BARs where they can be, and decoding: at random that would hardly ever come about.
            9 => {
                let place = u32::try_from(BAR + (value & 0xf) * 0x4000).unwrap();
                assert!(bus.config_write(seen(device), 0x10 + (offset & 8), Width::Dword, place).wait());
            }
            10 => assert!(bus.config_write(seen(device), 4, Width::Word, u32::from(offset & 0x407)).wait()),
            _ if offset & 1 == 0 => {
                saved = registry.lock(own(device)).unwrap().as_ref().map(|function| function.save().unwrap());
            }
            _ => {
                if let Some(state) = &saved {
                    // Another device's state, or one that has BARs mapped: refused, which is fine.
                    let _refused = bus.restore(seen(device), state).map(Written::wait);
                }
            }
        }
        let wrong = books.0.lock().unwrap().wrong.take();
        if let Some(wrong) = wrong {
            return Err(format!("step {number}, {step:?}: {wrong}"));
        }
    }
    // All decoding off, as often as hooks fail: nothing is mapped.
    for _ in 0..40 {
        for device in 0..DEVICES {
            assert!(bus.config_write(seen(device), 4, Width::Byte, 2).wait());
            assert!(bus.config_write(seen(device), 4, Width::Byte, 0).wait());
        }
    }
    let left = books.0.lock().unwrap().mapped.len();
    let shows = (0..DEVICES).any(|device| bus.config_read(seen(device), 4, Width::Byte) & 2 != 0);
    if left == 0 || shows {
        Ok(())
    } else {
        Err(format!("{left} pages are mapped, and no command register shows it"))
    }
}
