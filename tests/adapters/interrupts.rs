//! Devices that interrupt by themselves, from threads of their own.

use pcidevs::Sbdf;
use pcidevs::adapters::Interrupts;
use pcidevs::platform::Width;
use pcidevs::vpci::Level;

use crate::devices::{self, Nic, endpoint};
use crate::guest::Guest;

#[test]
fn what_another_thread_raises_comes_to_the_model_at_once() {
    let guest = Guest::new();
    let at: Sbdf = "00:03.0".parse().unwrap();
    guest.plug(at, endpoint().build(Nic::new()).unwrap());
    let line = devices::line(&guest, at);
    let raise = |vector| {
        let line = line.clone();
        std::thread::spawn(move || line.raise(vector)).join().unwrap();
    };
    raise(1);
    assert!(guest.wires.story().is_empty(), "MSI-X is off, and what is raised then is nothing");
    for vector in 0..3_u64 {
        for (offset, value) in [(0, 0xfee0_0000_u32), (8, u32::try_from(vector).unwrap()), (12, 0)] {
            assert!(guest.bus.bar_write(at, 0, 0x2000 + 16 * vector + offset, &value.to_le_bytes()).wait());
        }
    }
    assert!(guest.bus.config_write(at, 0x42, Width::Word, 1 << 15).wait());
    guest.wires.story();
    raise(2);
    assert_eq!(guest.wires.story(), ["send 2 0xfee00000 0x2"]);
    for beyond in [3, 64, 2047, 2048, u16::MAX] {
        raise(beyond);
    }
    assert!(guest.wires.story().is_empty());
    assert!(guest.bus.config_write(at, 0x42, Width::Word, 0).wait());
    guest.wires.story();
    for level in [Level::High, Level::High, Level::Low] {
        line.set_pin(level);
    }
    assert_eq!(guest.wires.story(), ["intx High", "intx Low"]);
}

#[test]
fn what_is_raised_while_nobody_takes_it_is_taken_once_and_in_order() {
    let guest = Guest::new();
    let at: Sbdf = "00:03.0".parse().unwrap();
    guest.plug(at, endpoint().build(Nic::new()).unwrap());
    for (offset, value) in [(0, 0xfee0_0000_u32), (8, 9), (12, 0)] {
        for vector in 0..3 {
            assert!(guest.bus.bar_write(at, 0, 0x2000 + 16 * vector + offset, &value.to_le_bytes()).wait());
        }
    }
    assert!(guest.bus.config_write(at, 0x42, Width::Word, 1 << 15).wait());
    guest.wires.story();
    let line = Interrupts::new(|_| {});
    for vector in [2, 0, 2, 0, 70] {
        line.raise(vector);
    }
    assert!(guest.bus.signal(at, |signals| line.deliver(signals)).wait());
    assert_eq!(guest.wires.story(), ["send 0 0xfee00000 0x9", "send 2 0xfee00000 0x9"]);
    assert!(guest.bus.signal(at, |signals| line.deliver(signals)).wait());
    assert!(guest.wires.story().is_empty());
}
