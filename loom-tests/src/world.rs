//! A machine of eight functions that depend on each other, and what may happen to them at any time.
//!
//! ```text
//! 00:01.0 a physical function        00:01.1, 00:01.2 its virtual ones
//! 00:02.0, 00:03.0 an IOMMU group
//! 00:1c.0 to conventional PCI -- 05:00.0, 05:01.0 share the requester ID 05:00.0, and the reset of their bus
//! ```

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use pcidevs::address::Bus;
use pcidevs::device::{BusRange, PortType};
use pcidevs::lifecycle::{Added, TransitionError};
use pcidevs::platform::{ConfigBytes, Entry, GroupId, Platform, ResetSupport};
use pcidevs::{DomainId, Owner, Sbdf};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use crate::machine::{
    Live, Machine, add, add_vf, bare, endpoint, owner, plug, reaches, settled_at, with_vpci,
};
use crate::{Destroyed, GUEST, OTHER};

/// A physical function,
pub const PF: Sbdf = Sbdf::from_u32(0x08);
/// its first virtual one,
pub const VF: Sbdf = Sbdf::from_u32(0x09);
/// and its second.
pub const VF_TWO: Sbdf = Sbdf::from_u32(0x0a);
/// One of an IOMMU group,
pub const TWIN: Sbdf = Sbdf::from_u32(0x10);
/// and the other.
pub const TWIN_TWO: Sbdf = Sbdf::from_u32(0x18);
/// A bridge to conventional PCI,
pub const BRIDGE: Sbdf = Sbdf::from_u32(0xe0);
/// behind it a function whose ID is the bridge's alias,
pub const BEHIND: Sbdf = Sbdf::from_u32(0x500);
/// and one that has it as well.
pub const BEHIND_TWO: Sbdf = Sbdf::from_u32(0x508);

/// All of them, what others depend on first.
pub const ALL: [Sbdf; 8] = [PF, VF, VF_TWO, TWIN, TWIN_TWO, BRIDGE, BEHIND, BEHIND_TWO];
/// The group of the twins.
pub const GROUP: GroupId = GroupId(1);
/// The guests.
pub const GUESTS: [DomainId; 2] = [GUEST, OTHER];

/// Something that somebody may do at any time. That it is refused is in order.
pub type Deed = fn(&World);

/// The machine, and what those in it have done. A clone is the same.
#[derive(Clone)]
pub struct World {
    /// The devices.
    pub machine: Machine,
    /// MSI vectors that guests have set up.
    pub vectors: Live,
    destroyed: Destroyed,
    vpcis: Live,
    told: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// All devices with the host, and two guests.
    pub fn begin() -> Self {
        let machine = bare();
        let vpcis = with_vpci(&machine);
        for at in ALL {
            plug(&machine, at, &config(at));
        }
        let platform = machine.platform();
        for at in [TWIN, TWIN_TWO] {
            platform.set_group(at, GROUP);
        }
        for at in [BEHIND, BEHIND_TWO] {
            platform.set_reset(at, ResetSupport::Bus);
        }
        let (vectors, destroyed) = (Live::none(), Destroyed::none());
        let world = Self { machine, vectors, destroyed, vpcis, told: Arc::default() };
        for at in ALL {
            assert!(world.add(at).expect("nobody else is here"), "{at} is new");
        }
        world.machine.platform().record(true);
        world
    }

    /// The host reports a device; whether it is new.
    pub fn add(&self, at: Sbdf) -> Result<bool, TransitionError> {
        let added = match at {
            VF | VF_TWO => add_vf(&self.machine, &self.destroyed, PF, at),
            _ => add(&self.machine, &self.destroyed, at),
        };
        added.map(|added| matches!(added, Added::New)).map_err(|error| error.reason)
    }

    /// A guest ends, and another one begins under its number.
    pub fn release(&self, guest: DomainId) -> Result<(), TransitionError> {
        self.machine.release_domain(guest)?;
        // Its memory is free now. Only who released it creates the next one, so until then nothing may reach it; but
        // for what has gone, and sends nothing any more: that is cleared up after it.
        for at in ALL.into_iter().filter(|at| self.machine.lock(*at).is_ok()) {
            let entry = self.machine.platform().entry(at);
            assert_ne!(entry, Entry::Attached(Owner::Guest(guest)), "{at} reaches freed memory of {guest}");
            let reached = reaches(&self.machine, at);
            assert_ne!(reached, Some(Owner::Guest(guest)), "{at} reaches freed memory of {guest}");
        }
        self.machine.create_domain(guest).expect("the number is free");
        Ok(())
    }

    /// Notes what became of something, for who has to find out why a schedule failed.
    pub fn tell(&self, what: impl FnOnce() -> String, became: &dyn Debug) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.push(format!("{:?}: {} {became:?}", thread::current().id(), what()));
    }

    /// Threads that each do so much of what they may, drawn at random; and then everything comes to its end.
    pub fn live(&self, deeds: usize, threads: &[&'static [Deed]]) {
        let draw = |may: &[Deed]| may[thread_rng().gen_range(0..may.len())];
        let lives = threads.iter().map(|may| {
            let may = *may;
            self.spawn(move |world| (0..deeds).for_each(|_| draw(may)(world)))
        });
        for life in lives.collect::<Vec<_>>() {
            life.join().expect("a thread that ends");
        }
        self.end();
    }

    /// A thread in this world.
    pub fn spawn<R: Send + 'static>(
        &self,
        life: impl FnOnce(&Self) -> R + Send + 'static,
    ) -> thread::JoinHandle<R> {
        let world = self.clone();
        thread::spawn(move || {
            let _told = OnFailure(&world);
            life(&world)
        })
    }

    /// Nothing is half done, and everything can be brought to its end from here.
    pub fn end(&self) {
        let _told = OnFailure(self);
        let machine = &self.machine;
        machine.platform().clear_faults();
        machine.platform().set_group_in_use(GROUP, false);
        self.machine.run_deferred();
        settled_at(machine, &ALL);
        for vf in [VF, VF_TWO] {
            assert!(
                owner(machine, vf).is_none() || owner(machine, PF).is_some(),
                "{vf} without its function"
            );
        }
        // What is broken stays, and keeps its guest; what is whole and shares an ID with it leaves it alone.
        let whole = GUESTS.map(|guest| self.release(guest));
        settled_at(machine, &ALL);
        for at in ALL {
            self.repair(at);
        }
        for (guest, released) in GUESTS.into_iter().zip(whole) {
            released
                .or_else(|_| self.release(guest))
                .unwrap_or_else(|error| panic!("domain {guest}: {error}"));
        }
        // Nobody has the group any more, so nobody waits for it.
        assert_eq!(machine.run_deferred(), 0, "left to be done");
        settled_at(machine, &ALL);
        for at in ALL.into_iter().rev() {
            match owner(machine, at) {
                None => {}
                Some(Owner::Hidden) => machine.report_gone(at).expect("known"),
                Some(_) => machine.remove_device(at).unwrap_or_else(|error| panic!("{at}: {error}")),
            }
        }
        assert_eq!(machine.run_deferred(), 0, "left to be done");
        settled_at(machine, &ALL);
        assert_eq!((self.vpcis.count(), self.vectors.count()), (0, 0), "attachments are left");
        assert_eq!(self.destroyed.count(), self.destroyed.made(), "each was destroyed once");
        for at in ALL {
            assert!(!machine.platform().msix_prepared(at), "{at}");
        }
    }

    /// The administrator blocks the DMA of a device that is broken, and says so. One that is with the host is the
    /// host's to remove.
    fn repair(&self, at: Sbdf) {
        let machine = &self.machine;
        let requesters = match machine.lock(at) {
            Ok(device) if device.broken().is_some() && device.owner() != Owner::Host => {
                device.requesters().to_vec()
            }
            _ => return,
        };
        let shares = |other: &Sbdf| {
            let Ok(device) = machine.lock(*other) else { return false };
            device.owner() == Owner::Host && device.requesters().iter().any(|id| requesters.contains(id))
        };
        // Whoever shares an ID with it would be blocked as well, and had better leave.
        for other in ALL.into_iter().filter(shares) {
            machine.remove_device(other).unwrap_or_else(|error| panic!("{other}, for {at}: {error}"));
        }
        for id in &requesters {
            machine.platform().iommu_block(at, *id).expect("no faults any more");
        }
        machine.platform().iommu_flush(at).expect("no faults any more");
        machine.repair(at).unwrap_or_else(|error| panic!("repair of {at}: {error}"));
    }
}

fn config(at: Sbdf) -> ConfigBytes {
    match at {
        BRIDGE => {
            let bus = Bus::new(5);
            let buses = BusRange { primary: Bus::new(0), secondary: bus, subordinate: bus };
            ConfigBytes::bridge(0x8086, 0x244e, buses).express_port(PortType::PcieToPci)
        }
        BEHIND | BEHIND_TWO => ConfigBytes::endpoint(0x8086, 0x100e).msix(1),
        _ => endpoint(),
    }
}

/// Prints what was done if the schedule failed.
struct OnFailure<'a>(&'a World);

impl Drop for OnFailure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.iter().for_each(|what| eprintln!("{what}"));
            self.0.machine.platform().journal().iter().for_each(|call| eprintln!("  {call}"));
        }
    }
}
