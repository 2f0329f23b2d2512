//! `kill -9` of a real process at every write it makes to a real kernel, or to its journal; the matrix for the kernel in
//! memory is `crash`.
//!
//! The process that is killed is this test, started again: [`dies`] is no test of its own.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pcidevs::host::{
    Attachable, Directory, GroupFile, Guarding, HostManager, HostState, KeptNetwork, Kernel, LockRefused,
    Locked, NetworkChange, Options, Place, Recovered, Store,
};
use pcidevs::platform::GroupId;
use pcidevs::{Errno, Sbdf};

use super::rig::{Card, Rig};
use crate::scaffold::guest;

/// Kills this process before the n-th write of either.
struct Deadly<T: ?Sized> {
    inner: Arc<T>,
    left: Arc<AtomicU32>,
}

impl<T: ?Sized> Deadly<T> {
    fn strike(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let pid = std::process::id().to_string();
            let killed = Command::new("kill").args(["-9", &pid]).status();
            panic!("still alive: {killed:?}");
        }
    }
}

impl Kernel for Deadly<dyn Kernel> {
    fn read(&self, place: &Place, limit: usize) -> Result<Vec<u8>, Errno> {
        self.inner.read(place, limit)
    }

    fn read_at(&self, place: &Place, offset: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
        self.inner.read_at(place, offset, bytes)
    }

    fn write(&self, place: &Place, bytes: &[u8]) -> Result<(), Errno> {
        self.strike();
        self.inner.write(place, bytes)
    }

    fn write_at(&self, place: &Place, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.strike();
        self.inner.write_at(place, offset, bytes)
    }

    fn read_link(&self, place: &Place) -> Result<String, Errno> {
        self.inner.read_link(place)
    }

    fn list(&self, place: &Place, limit: usize) -> Result<Vec<String>, Errno> {
        self.inner.list(place, limit)
    }

    fn open_group(&self, group: GroupId) -> Result<Box<dyn GroupFile>, Errno> {
        self.inner.open_group(group)
    }

    fn hot_reset(&self, device: Sbdf, groups: &[GroupId]) -> Result<(), Errno> {
        self.strike();
        self.inner.hot_reset(device, groups)
    }

    fn load_module(&self, name: &str) -> Result<(), Errno> {
        self.inner.load_module(name)
    }

    fn virtual_network(&self, interface: u32, number: u16) -> Result<KeptNetwork, Errno> {
        self.inner.virtual_network(interface, number)
    }

    fn set_virtual_network(&self, interface: u32, number: u16, change: NetworkChange) -> Result<(), Errno> {
        self.strike();
        self.inner.set_virtual_network(interface, number, change)
    }
}

impl Store for Deadly<dyn Store> {
    fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Errno> {
        self.inner.read(name, limit)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Errno> {
        self.strike();
        self.inner.replace(name, bytes)
    }

    fn lock(&self, holder: &str) -> Result<Box<dyn Locked>, LockRefused> {
        self.inner.lock(holder)
    }
}

/// What is cut off, by its name in the environment.
fn act(manager: &HostManager, name: &str, rig: &Rig) {
    let set = subjects(rig).map(Card::at);
    let done = match name {
        "attach" => manager.attach(&set.map(Attachable::managed), &guest("vm"), Guarding::On),
        "release" => manager.release(&set, &guest("vm")).map(drop),
        name => panic!("no operation {name}"),
    };
    done.expect("it succeeds, unless it is killed");
}

/// A group.
fn subjects(rig: &Rig) -> [&Card; 2] {
    [&rig.ports[0], &rig.ports[1]]
}

#[test]
#[ignore = "is started by the other one"]
fn dies() {
    let get = |name: &str| std::env::var(name).expect(name);
    let left: u32 = get("PCIDEVS_KILL_AT").parse().expect("a number");
    // Not `each`: that would bring in order what the test has prepared.
    let rig = Rig::as_it_is(&get("PCIDEVS_RIG"));
    let left = Arc::new(AtomicU32::new(left));
    let kernel = Arc::new(Deadly { inner: rig.kernel.clone(), left: left.clone() });
    let store: Arc<dyn Store> = Arc::new(Directory::existing(get("PCIDEVS_KILL_STATE")));
    let store = Arc::new(Deadly { inner: store, left });
    let (manager, _) = HostManager::open(kernel, store, Options::default()).expect("opened");
    act(&manager, &get("PCIDEVS_KILL_IN"), &rig);
}

/// Whether a process that does this is killed at this write; else it ends well.
fn is_killed(name: &str, write: u32, folder: &std::path::Path) -> bool {
    let mut child = Command::new(std::env::current_exe().expect("this test"));
    child.args(["--exact", "same::kills::dies", "--ignored", "--nocapture"]);
    child.env("PCIDEVS_KILL_IN", name).env("PCIDEVS_KILL_AT", write.to_string());
    child.env("PCIDEVS_KILL_STATE", folder);
    let output = child.output().expect("started");
    if output.status.code().is_some() {
        assert!(output.status.success(), "{name} at write {write}: {output:?}");
    }
    output.status.code().is_none()
}

/// Everything back to the host.
fn bring_back(manager: &HostManager, rig: &Rig, context: &str) {
    for card in subjects(rig) {
        let state = manager.status(card.at()).expect("known").state;
        if let HostState::Guest(guest) = state {
            manager.release(&[card.at()], &guest).unwrap_or_else(|error| panic!("{context}: {error}"));
        }
    }
    let released = manager.reattach(&subjects(rig).map(Card::at));
    let released = released.unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(released.failed.is_empty() && released.deferred.is_empty(), "{context}: {released:?}");
}

#[test]
#[ignore = "needs a machine whose devices may be moved: tests/e2e/run host"]
fn a_process_that_is_killed_at_any_write_leaves_what_recovery_makes_whole() {
    // They write all that a detach and a reattach write.
    for name in ["attach", "release"] {
        let mut kills = 0;
        for write in 1.. {
            let [rig] = &Rig::each()[..] else { panic!("on a real machine only") };
            let before = rig.dump();
            let folder = rig.folder().expect("a real machine").to_owned();
            let (manager, _) = rig.reopen();
            if name == "release" {
                act(&manager, "attach", rig);
            }
            drop(manager);
            let was_killed = is_killed(name, write, &folder);
            let context = format!("{name}, killed at write {write}");
            let (manager, recovery) = rig.reopen();
            assert_eq!((recovery.damage.as_ref(), recovery.unsaved), (None, None), "{context}");
            let is_broken = |(_, what): &(Sbdf, Recovered)| matches!(what, Recovered::Broken(_));
            assert!(!recovery.devices.iter().any(is_broken), "{context}: {recovery:?}");
            for card in subjects(rig) {
                let is_ours = manager.record(card.at()).is_some();
                let driver = if is_ours { "vfio-pci" } else { card.driver.as_str() };
                assert_eq!(card.bound_to().as_deref(), Some(driver), "{context}: {}", card.address);
            }
            bring_back(&manager, rig, &context);
            assert_eq!(rig.dump(), before, "{context}");
            if !was_killed {
                break;
            }
            kills += 1;
        }
        assert!(kills > 4, "{name}: {kills} kills");
        println!("{name}: {kills} kills");
    }
}
