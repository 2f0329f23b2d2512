//! Which bus a number is, behind emulated ports: the guest programs the numbers, and moves them.
//!
//! A device has a *home*: the guest address it was assigned to. Behind an emulated port homes have a bus of their own
//! that stands for what is behind that port, whatever number the guest gives it. An access names a number; the ports
//! say which home that is. All 256 answers are worked out whenever a port is programmed and published one by one, so an
//! access pays one load; a guest without ports pays a look whether there are any.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::address::{Bus, Sbdf, Segment};
use crate::errno::Errno;
use crate::memory::{NoMemory, OnceBox};
use crate::sync::{AtomicU16, Lock, Ordering, RawLock};

/// No bus has this number.
const NONE: u16 = 1 << 8;
/// More ports than this cannot be one behind the other.
const DEPTH: usize = 256;

/// A port and the bus behind it.
#[derive(Clone, Copy, Debug)]
struct Port {
    /// Where the port is at home.
    at: Sbdf,
    /// The home bus of what is behind it.
    behind: Bus,
    secondary: u8,
    subordinate: u8,
}

/// The numbers of one guest's buses.
pub(super) struct Buses<L: RawLock> {
    ports: Lock<Vec<Port>, L>,
    /// The home bus of each number, for the one segment that has ports.
    published: OnceBox<Published>,
}

struct Published {
    segment: Segment,
    homes: Box<[AtomicU16; 256]>,
}

/// A port cannot be there. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// Its home, or the home bus of what is behind it, is another port's, or the port would be behind itself (EEXIST).
    #[error("the port or the bus behind it is there already")]
    Taken,
    /// Ports are emulated in one segment of a guest (EOPNOTSUPP).
    #[error("this guest has its ports in another segment")]
    OtherSegment,
    /// There is no memory for it (ENOMEM).
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

impl PortError {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Taken => Errno::EEXIST,
            Self::OtherSegment => Errno::EOPNOTSUPP,
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}

impl<L: RawLock> Buses<L> {
    pub(super) fn new() -> Self {
        Self { ports: Lock::new(Vec::new()), published: OnceBox::new() }
    }

    /// Where the device at home is that the guest names so; `None` if no bus has that number.
    #[inline]
    pub(super) fn home(&self, named: Sbdf) -> Option<Sbdf> {
        let Some(published) = self.published.get() else { return Some(named) };
        if published.segment != named.segment() {
            return Some(named);
        }
        // Relaxed: a number means what it meant a moment ago until the write that changes it has taken effect.
        let home = published.homes[usize::from(named.bus().number())].load(Ordering::Relaxed);
        let bus = Bus::new(u8::try_from(home).ok()?);
        Some(Sbdf::new(named.segment(), bus, named.devfn()))
    }

    /// A port is at this home; what is behind it is at home on `behind`. It has no number until it is programmed.
    pub(super) fn add(&self, at: Sbdf, behind: Bus) -> Result<(), PortError> {
        let mut ports = self.ports.lock();
        let taken = |port: &Port| port.at == at || port.behind == behind;
        if at.bus() == behind || ports.iter().any(taken) {
            return Err(PortError::Taken);
        }
        ports.try_reserve(1).map_err(NoMemory::from)?;
        let homes = crate::memory::try_box([const { 0 }; 256].map(AtomicU16::new))?;
        let published = self.published.get_or_make(|| Published { segment: at.segment(), homes })?;
        if published.segment != at.segment() {
            return Err(PortError::OtherSegment);
        }
        ports.push(Port { at, behind, secondary: 0, subordinate: 0 });
        publish(published, &ports);
        Ok(())
    }

    /// The guest has programmed the port at this home: primary, secondary and subordinate.
    pub(super) fn program(&self, at: Sbdf, [_, secondary, subordinate]: [u8; 3]) {
        let mut ports = self.ports.lock();
        let Some(port) = ports.iter_mut().find(|port| port.at == at) else { return };
        (port.secondary, port.subordinate) = (secondary, subordinate);
        if let Some(published) = self.published.get() {
            publish(published, &ports);
        }
    }
}

fn publish(published: &Published, ports: &[Port]) {
    for (number, home) in (0..=u8::MAX).zip(published.homes.iter()) {
        home.store(resolve(ports, number).map_or(NONE, |bus| bus.number().into()), Ordering::Relaxed);
    }
}

/// Which home bus a number is, as a configuration request finds its way down from the root (PCIe 6.0 §7.3.3).
fn resolve(ports: &[Port], number: u8) -> Option<Bus> {
    let is_behind = |bus: Bus| ports.iter().any(|port| port.behind == bus);
    let forwards =
        |port: &&Port| port.secondary != 0 && (port.secondary..=port.subordinate).contains(&number);
    let mut port = ports.iter().filter(forwards).find(|port| !is_behind(port.at.bus()));
    for _ in 0..DEPTH {
        let Some(at) = port else { break };
        if at.secondary == number {
            return Some(at.behind);
        }
        port = ports.iter().filter(forwards).find(|next| next.at.bus() == at.behind);
        port?;
    }
    // A bus of the root complex has its own number.
    let bus = Bus::new(number);
    (!is_behind(bus)).then_some(bus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::DefaultLock;

    /// A root port at 00:01.0, and a switch behind it with two ports: homes on f0 to f3.
    fn tree() -> Buses<DefaultLock> {
        let buses = Buses::new();
        for (at, behind) in [("00:01.0", 0xf0), ("f0:00.0", 0xf1), ("f1:01.0", 0xf2), ("f1:02.0", 0xf3)] {
            buses.add(at.parse().unwrap(), Bus::new(behind)).unwrap();
        }
        buses
    }

    fn home(buses: &Buses<DefaultLock>, bus: u8) -> Option<u8> {
        let named = Sbdf::new(Segment::new(0), Bus::new(bus), crate::address::DevFn::from_bits(0));
        buses.home(named).map(|home| home.bus().number())
    }

    fn program(buses: &Buses<DefaultLock>, at: &str, numbers: [u8; 3]) {
        buses.program(at.parse().unwrap(), numbers);
    }

    #[test]
    fn without_ports_a_bus_is_at_home_at_its_number() {
        let buses = Buses::<DefaultLock>::new();
        assert!((0..=255).all(|bus| home(&buses, bus) == Some(bus)));
    }

    #[test]
    fn what_is_behind_a_port_has_no_number_until_it_is_programmed() {
        let buses = tree();
        assert_eq!(home(&buses, 0), Some(0));
        assert!((0xf0..=0xf3).all(|bus| home(&buses, bus).is_none()), "a home is not a number");
    }

    #[test]
    fn numbers_lead_through_every_port_on_the_way_and_move_with_them() {
        let buses = tree();
        program(&buses, "00:01.0", [0, 1, 4]);
        program(&buses, "f0:00.0", [1, 2, 4]);
        program(&buses, "f1:01.0", [2, 3, 3]);
        program(&buses, "f1:02.0", [2, 4, 4]);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|bus| home(&buses, bus)), [0, 0xf0, 0xf1, 0xf2, 0xf3, 5].map(Some));
        program(&buses, "00:01.0", [0, 0x10, 0x20]);
        assert_eq!(home(&buses, 0x10), Some(0xf0));
        assert_eq!(home(&buses, 0x12), None, "forwarded, and nobody there has it");
        assert_eq!(home(&buses, 2), Some(2), "the root's again");
        program(&buses, "f0:00.0", [0x10, 0x11, 0x20]);
        program(&buses, "f1:02.0", [0x11, 0x20, 0x20]);
        assert_eq!(home(&buses, 0x20), Some(0xf3));
    }

    #[test]
    fn numbers_that_make_no_sense_lead_nowhere_and_end() {
        let buses = tree();
        program(&buses, "00:01.0", [0, 9, 3]);
        assert_eq!(home(&buses, 9), Some(9), "an empty range");
        // Every port claims all numbers.
        for at in ["00:01.0", "f0:00.0", "f1:01.0", "f1:02.0"] {
            program(&buses, at, [0, 1, 255]);
        }
        assert_eq!([1, 2].map(|bus| home(&buses, bus)), [Some(0xf0), None]);
    }

    #[test]
    fn ports_that_are_there_already_are_refused() {
        let buses = tree();
        let add = |at: &str, behind| buses.add(at.parse().unwrap(), Bus::new(behind)).unwrap_err();
        assert_eq!(add("00:01.0", 0xe0), PortError::Taken);
        assert_eq!(add("00:02.0", 0xf1), PortError::Taken);
        assert_eq!(add("e0:02.0", 0xe0), PortError::Taken);
        assert_eq!(add("0001:00:02.0", 0xe0), PortError::OtherSegment);
    }
}
