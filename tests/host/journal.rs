//! The journal: written before and after, read whole or not at all, never a panic, never a rebind by guess.

use pcidevs::Errno;
use pcidevs::host::fake::{Fake, Mishap};
use pcidevs::host::{
    DriverType, Guarding, HostError, HostManager, HostState, JournalDamage, LockRefused, Options, Recovered,
};

use crate::scaffold::{
    CARD, OTHER, at, attach_managed, check, detach, dump, guest, machine, open, reopen, set, state, states,
};

const SLOTS: [&str; 2] = ["journal.a", "journal.b"];

/// The slot that was written last.
fn newest(fake: &Fake) -> &'static str {
    let number = |slot: &str| -> u64 {
        let bytes = fake.stored(slot).unwrap_or_default();
        String::from_utf8_lossy(&bytes).split(' ').nth(2).and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    SLOTS.into_iter().max_by_key(|slot| number(slot)).expect("two")
}

#[test]
fn a_new_manager_knows_what_the_old_one_did() {
    let fake = machine();
    let manager = open(&fake);
    detach(&manager, &[OTHER]);
    attach_managed(&manager, &[CARD], "vm");
    let before = (states(&manager), dump(&fake));
    drop(manager);
    fake.take_written();
    let (manager, recovery) = reopen(&fake);
    assert_eq!(recovery.devices, [(at(CARD), Recovered::Kept), (at(OTHER), Recovered::Kept)]);
    assert_eq!((states(&manager), dump(&fake)), before);
    assert_eq!(fake.take_written(), [""; 0], "nothing was to be done");
    // And goes on where that one was.
    assert_eq!(manager.release(&set(&[CARD]), &guest("vm")).expect("released").returned, set(&[CARD]));
    manager.reattach(&set(&[OTHER])).expect("reattached");
    check(&fake, &manager);
}

#[test]
fn one_manager_at_a_time() {
    let fake = machine();
    let manager = open(&fake);
    let second = || {
        let kernel = std::sync::Arc::new(fake.clone());
        HostManager::open(kernel.clone(), kernel, Options::default()).map(drop)
    };
    let Err(HostError::Locked(LockRefused::Taken(who))) = second() else { panic!("two managers") };
    assert!(who.contains(&std::process::id().to_string()) && who.contains("boot 1"), "{who}");
    drop(manager);
    second().expect("the first has ended");
}

#[test]
fn a_damaged_journal_leaves_the_last_good_one() {
    let damage: [fn(&mut Vec<u8>); 6] = [
        |bytes| bytes.truncate(bytes.len() / 2),
        Vec::clear,
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| *bytes.last_mut().expect("some") = b'x',
        |bytes| bytes[40] ^= 1,
        |bytes| *bytes = b"something else\n{}".to_vec(),
    ];
    for harm in damage {
        let fake = machine();
        let manager = open(&fake);
        detach(&manager, &[OTHER]);
        let before = dump(&fake);
        drop(manager);
        let slot = newest(&fake);
        let mut bytes = fake.stored(slot).expect("written");
        harm(&mut bytes);
        fake.store(slot, &bytes);
        let (manager, recovery) = reopen(&fake);
        assert_eq!(recovery.damage, Some(JournalDamage::LastGood(slot)));
        // The one before has the intent: it is undone, as after a crash, and nothing is forgotten.
        assert_eq!(recovery.devices, [(at(OTHER), Recovered::RolledBack)]);
        assert_ne!(dump(&fake), before);
        assert_eq!(fake.driver(at(OTHER)).as_deref(), Some("nvme"));
        detach(&manager, &[OTHER]);
        check(&fake, &manager);
        drop(manager);
        open(&fake);
    }
}

#[test]
fn without_a_good_journal_nothing_is_written_and_nobody_is_rebound() {
    let cases: [(&[u8], JournalDamage); 3] = [
        (b"", JournalDamage::Unusable),
        (b"pcidevs-journal 3 9 0\n{}", JournalDamage::Newer(3)),
        (&[0xff; 4096], JournalDamage::Unusable),
    ];
    for (bytes, expected) in cases {
        let fake = machine();
        detach(&open(&fake), &[OTHER]);
        let before = dump(&fake);
        for slot in SLOTS {
            fake.store(slot, bytes);
        }
        fake.take_written();
        let (manager, recovery) = reopen(&fake);
        assert_eq!((recovery.damage, recovery.foreign), (Some(expected.clone()), set(&[OTHER])));
        assert_eq!(state(&manager, OTHER), HostState::Foreign, "whose it is, is unknown");
        let read_only = HostError::ReadOnly(expected);
        assert_eq!(manager.reattach(&set(&[OTHER])), Err(read_only.clone()));
        assert_eq!(manager.adopt(&set(&[OTHER])), Err(read_only.clone()));
        assert_eq!(manager.detach(&set(&[CARD]), &DriverType::Default, Guarding::On), Err(read_only.clone()));
        assert_eq!(
            (manager.repair(at(OTHER)), manager.retry_deferred()),
            (Err(read_only.clone()), Err(read_only))
        );
        assert_eq!((dump(&fake), fake.take_written()), (before, vec![]));
    }
}

#[test]
fn a_newer_journal_counts_beside_an_older_one_as_well() {
    let fake = machine();
    detach(&open(&fake), &[OTHER]);
    let slot = if newest(&fake) == SLOTS[0] { SLOTS[1] } else { SLOTS[0] };
    fake.store(slot, b"pcidevs-journal 7 999 0\n{}");
    let (_, recovery) = reopen(&fake);
    assert_eq!(recovery.damage, Some(JournalDamage::Newer(7)));
}

#[test]
fn every_truncation_and_every_flipped_byte_is_survived() {
    let fake = machine();
    detach(&open(&fake), &[OTHER]);
    let good = SLOTS.map(|slot| fake.stored(slot).expect("written"));
    let slot = newest(&fake);
    let place = usize::from(slot == SLOTS[1]);
    for n in (0..good[place].len()).step_by(7) {
        let (mut flipped, mut short) = (good[place].clone(), good[place].clone());
        flipped[n] ^= 0x20;
        short.truncate(n);
        for bytes in [flipped, short] {
            let fake = machine();
            SLOTS.iter().zip(&good).for_each(|(slot, bytes)| fake.store(slot, bytes));
            fake.store(slot, &bytes);
            let (manager, recovery) = reopen(&fake);
            let damage = recovery.damage.expect("noticed");
            assert!(damage == JournalDamage::LastGood(slot) || matches!(damage, JournalDamage::Newer(_)));
            manager.list().expect("listed");
        }
    }
}

#[test]
fn another_boot_voids_what_the_kernel_knew() {
    let fake = machine();
    let before = dump(&fake);
    let manager = open(&fake);
    detach(&manager, &[OTHER]);
    attach_managed(&manager, &[CARD], "vm");
    drop(manager);
    fake.reboot("2");
    let (manager, recovery) = reopen(&fake);
    assert_eq!(recovery.devices, [(at(CARD), Recovered::Rebooted), (at(OTHER), Recovered::Rebooted)]);
    assert_eq!(dump(&fake), before);
    assert!(manager.record(at(CARD)).is_none());
    check(&fake, &manager);
}

#[test]
fn what_the_journal_could_not_take_is_written_by_the_next_try() {
    let fake = machine();
    let manager = open(&fake);
    // The stub's probe and the journal's last write fail: the undo is whole, and the journal does not know.
    fake.on_write(|number, what| {
        let fails = what.contains("drivers_probe") || what.contains("/bind") && what.contains("vfio-pci");
        (fails || number > 6 && what.contains("journal")).then_some(Mishap::Error(Errno::ENOSPC))
    });
    manager.detach(&set(&[CARD]), &DriverType::Default, Guarding::On).expect_err("no space");
    assert!(manager.retry_deferred().is_err(), "still none");
    fake.behave();
    manager.retry_deferred().expect("written");
    drop(manager);
    let (_, recovery) = reopen(&fake);
    assert_eq!((recovery.damage, recovery.devices), (None, vec![]), "nothing was left to undo");
}
