//! A write whose effects another thread carries out is a barrier; a barrier of a device behind us is an effect.

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Barrier};

use pcidevs::adapters::cloud_hypervisor::{Barriers, BusDeviceSync, GuestBus, PciDevice, PciDeviceBacking};
use pcidevs::platform::Width;
use pcidevs::vpci::Written;
use pcidevs::{Member, Owner, RemoveError, Sbdf};

use crate::devices::{ACTIVATE, BASE, Nic, endpoint};
use crate::guest::{ECAM, Guest};

const COMMAND: u64 = 4;

/// A guest with one vCPU in the middle of mapping BARs; its other vCPUs' writes to the device wait for it.
struct Busy {
    guest: Guest,
    own: Sbdf,
    shape: GuestBus<Option<pcidevs::vpci::Function>, crate::guest::Wires>,
    go: Sender<()>,
    first: std::thread::JoinHandle<()>,
}

fn at() -> Sbdf {
    "00:03.0".parse().unwrap()
}

impl Busy {
    fn new() -> Self {
        let guest = Guest::new();
        let own = guest.plug(at(), endpoint().build(Nic::new()).unwrap());
        assert!(guest.bus.config_write(at(), 0x18, Width::Dword, 0xc010_0000).wait());
        let (entered, go) = guest.wires.stop_in_map();
        let first = std::thread::spawn({
            let bus = guest.bus.clone();
            move || assert!(bus.config_write(at(), 4, Width::Word, 2).wait())
        });
        entered.recv().unwrap();
        let shape = GuestBus::new(guest.bus.clone()).unwrap();
        Self { guest, own, shape, go, first }
    }

    /// Turns decoding off again, as another vCPU.
    fn off(&self) -> Option<Arc<Barrier>> {
        self.shape.memory().write(ECAM, (3 << 15) + COMMAND, &[0, 0])
    }

    fn finish(self) -> Guest {
        self.go.send(()).unwrap();
        self.first.join().unwrap();
        self.guest
    }
}

/// A thread that waits at a barrier, and tells when it may go on.
fn vcpu_at(barrier: Arc<Barrier>) -> mpsc::Receiver<()> {
    let (tell, released) = mpsc::channel();
    std::thread::spawn(move || {
        barrier.wait();
        // Who asked is gone when a test has failed.
        let _told = tell.send(());
    });
    released
}

/// A write that turns decoding off, by some way.
type Write<'a> = &'a dyn Fn(&Busy) -> Option<Arc<Barrier>>;

#[test]
fn a_pending_write_is_a_barrier_that_opens_when_its_effects_are_done() {
    let by_memory = |busy: &Busy| busy.off();
    let by_seat = |busy: &Busy| busy.shape.seat(at()).write_config_register(1, 0, &[0, 0]).1;
    let by_ports = |busy: &Busy| {
        let ports = busy.shape.ports();
        assert!(ports.write(0xcf8, 0, &0x8000_1804_u32.to_le_bytes()).is_none(), "no device is meant");
        ports.write(0xcf8, 4, &[0, 0])
    };
    let ways: [Write<'_>; 3] = [&by_memory, &by_seat, &by_ports];
    for write in ways {
        let busy = Busy::new();
        let released = vcpu_at(write(&busy).unwrap());
        assert!(released.try_recv().is_err(), "the first vCPU is still at it");
        let guest = busy.finish();
        released.recv().unwrap();
        assert_eq!(guest.bus.config_read(at(), 4, Width::Word) & 2, 0);
        let story = guest.wires.story();
        assert_eq!(story.last().unwrap(), "unmap 2 +0x0 at 0xc0100000", "{story:?}");
    }
}

#[test]
fn a_barrier_opens_when_its_effects_are_superseded() {
    let busy = Busy::new();
    let off = vcpu_at(busy.off().unwrap());
    let on = vcpu_at(busy.shape.seat(at()).write_config_register(1, 0, &[2, 0]).1.unwrap());
    let guest = busy.finish();
    off.recv().unwrap();
    on.recv().unwrap();
    assert_eq!(guest.wires.story(), ["map 2 +0x0 at 0xc0100000 for 0x1000"], "mapped all the time");
}

#[test]
fn a_write_that_asks_for_nothing_or_is_done_has_no_barrier() {
    let busy = Busy::new();
    let mut seat = busy.shape.seat(at());
    assert!(seat.write_config_register(15, 0, &[7]).1.is_none(), "the interrupt line register");
    let guest = busy.finish();
    let memory = GuestBus::new(guest.bus.clone()).unwrap().memory();
    assert!(memory.write(ECAM, (3 << 15) + COMMAND, &[0, 0]).is_none());
    assert!(guest.wires.story().iter().any(|what| what.starts_with("unmap")), "done by this very thread");
}

#[test]
fn a_barrier_opens_when_the_device_is_gone_meanwhile() {
    let busy = Busy::new();
    let released = vcpu_at(busy.off().unwrap());
    let Err(RemoveError::Busy(in_use)) = busy.guest.registry.remove_device(busy.own) else { panic!("kept") };
    assert!(in_use.to_string().contains("vPCI effect"), "{in_use}");
    busy.guest.registry.report_gone(busy.own).unwrap();
    let guest = busy.finish();
    released.recv().unwrap();
    assert_eq!(guest.bus.config_read(at(), 0, Width::Dword), u32::MAX);
}

#[test]
fn a_barrier_opens_when_the_device_is_moved_to_the_host_or_loses_its_function_meanwhile() {
    let busy = Busy::new();
    let released = vcpu_at(busy.off().unwrap());
    busy.guest.registry.move_devices(&[Member::new(busy.own)], Owner::Host).unwrap();
    let guest = busy.finish();
    released.recv().unwrap();
    drop(guest);

    let busy = Busy::new();
    let released = vcpu_at(busy.off().unwrap());
    let function = busy.guest.registry.lock(busy.own).unwrap().take();
    drop(function);
    busy.finish();
    released.recv().unwrap();
}

#[test]
fn a_barrier_that_nobody_waits_at_keeps_neither_the_device_nor_others() {
    let busy = Busy::new();
    drop(busy.off().unwrap());
    let released = vcpu_at(busy.shape.seat(at()).write_config_register(1, 0, &[2, 0]).1.unwrap());
    let own = busy.own;
    let guest = busy.finish();
    released.recv().unwrap();
    guest.unplug(own);
}

#[test]
fn a_guest_that_never_waits_comes_to_an_end_with_what_it_wrote_last() {
    let busy = Busy::new();
    let memory = busy.shape.memory();
    let writer = std::thread::spawn(move || {
        for command in [0, 2].into_iter().cycle().take(1000) {
            drop(memory.write(ECAM, (3 << 15) + COMMAND, &[command, 0]));
        }
        drop(memory.write(ECAM, (3 << 15) + COMMAND, &[0, 0]));
    });
    let own = busy.own;
    let guest = busy.finish();
    writer.join().unwrap();
    guest.unplug(own);
    let story = guest.wires.story();
    assert!(story.last().unwrap().starts_with("unmap"), "{story:?}");
}

/// A guest with a device of Cloud Hypervisor's shape, and a thread that activates what it is handed.
fn with_activated() -> (Guest, Sbdf, mpsc::Receiver<Arc<Barrier>>) {
    let guest = Guest::new();
    let (activator, to_activate) = mpsc::channel();
    let backing = PciDeviceBacking::new(Nic::activated_by(activator)).base(0, BASE);
    guest.wires.meet(at(), backing.barriers());
    let own = guest.plug(at(), endpoint().vendor_capability(8).build(backing).unwrap());
    (guest, own, to_activate)
}

#[test]
fn a_vcpu_goes_on_when_the_barrier_of_its_bar_write_was_met_and_others_read_meanwhile() {
    let (guest, _, to_activate) = with_activated();
    let (tell, written) = mpsc::channel();
    let vcpu = std::thread::spawn({
        let bus = guest.bus.clone();
        move || {
            assert!(bus.bar_write(at(), 0, ACTIVATE, &[1]).wait());
            tell.send(()).unwrap();
        }
    });
    let barrier = to_activate.recv().unwrap();
    let mut data = [0; 1];
    guest.bus.bar_read(at(), 0, ACTIVATE, &mut data);
    assert_eq!(data, [1], "the device's lock is free");
    assert!(written.try_recv().is_err(), "not yet activated");
    barrier.wait();
    written.recv().unwrap();
    vcpu.join().unwrap();
    assert_eq!(guest.wires.story(), ["met"]);
}

#[test]
fn a_barrier_of_a_configuration_write_is_met_without_the_vcpu() {
    let (guest, _, to_activate) = with_activated();
    let places: Vec<_> = endpoint().vendor_capability(8).capabilities().collect();
    let (_, place) = places.into_iter().find(|(id, _)| *id == 9).unwrap();
    assert!(matches!(guest.bus.config_write(at(), place + 4, Width::Dword, 0x0403_0201), Written::Done));
    to_activate.recv().unwrap().wait();
    for (offset, width, value) in
        [(4, Width::Dword, 0x0403_0201), (6, Width::Word, 0x403), (7, Width::Byte, 4), (5, Width::Byte, 2)]
    {
        assert_eq!(guest.bus.config_read(at(), place + offset, width), value);
    }
    assert!(matches!(guest.bus.config_write(at(), place + 6, Width::Byte, 9), Written::Done));
    to_activate.recv().unwrap().wait();
    assert_eq!(guest.bus.config_read(at(), place + 4, Width::Dword), 0x0409_0201);
}

#[test]
fn a_barrier_whose_wish_nobody_carries_out_is_met_when_the_device_goes() {
    let (activator, to_activate) = mpsc::channel();
    let backing = PciDeviceBacking::new(Nic::activated_by(activator)).base(0, BASE);
    let barriers = backing.barriers();
    let mut function = endpoint().build(backing).unwrap();
    // Without a bus effects are only asked for.
    assert!(!function.bar_write(0, ACTIVATE, &[1]).is_nothing());
    let barrier = to_activate.recv().unwrap();
    let released = vcpu_at(barrier);
    assert!(released.try_recv().is_err());
    drop(function);
    released.recv().unwrap();
    barriers.wait();
    assert_eq!(Barriers::WISH, 63);
}
