//! The IOMMU: where requests land, and what a missing flush leaves behind.

use std::sync::atomic::{AtomicU32, Ordering};

use pcidevs::platform::{Dma, Entry, Platform, Width};
use pcidevs::{DomainId, Owner};

use super::{ALIAS, COMMAND, GUEST, MASTER, NIC, PHANTOM, at, machine};

#[test]
fn an_unflushed_change_stays_visible() {
    let machine = machine();
    machine.iommu_attach(NIC, NIC, Owner::Host).unwrap();
    assert_eq!(machine.dma(NIC), Dma::Reaches(Owner::Host), "there was nothing to cache");
    machine.iommu_block(NIC, NIC).unwrap();
    machine.iommu_attach(NIC, NIC, GUEST).unwrap();
    assert_eq!((machine.entry(NIC), machine.dma(NIC)), (Entry::Attached(GUEST), Dma::Reaches(Owner::Host)));
    assert_eq!(machine.cached_entry(NIC), Some(Entry::Attached(Owner::Host)));
    assert_eq!(machine.unflushed(), [NIC]);
    machine.iommu_flush(NIC).unwrap();
    assert_eq!((machine.cached_entry(NIC), machine.dma(NIC)), (None, Dma::Reaches(GUEST)));
    machine.iommu_detach(NIC, NIC).unwrap();
    assert_eq!(machine.dma(NIC), Dma::Reaches(GUEST));
    machine.iommu_flush(NIC).unwrap();
    assert_eq!((machine.entry(NIC), machine.dma(NIC)), (Entry::Absent, Dma::NoEntry));
}

#[test]
fn a_flush_is_of_every_requester_id_changed_through_the_device_and_of_no_other() {
    let machine = machine();
    let (neighbour, far) = (at("03:01.0"), at("0001:03:00.0"));
    let of_nic = [NIC, PHANTOM, ALIAS, far];
    for owner in [Owner::Host, GUEST] {
        for requester in of_nic {
            machine.iommu_attach(NIC, requester, owner).unwrap();
        }
        machine.iommu_attach(neighbour, neighbour, owner).unwrap();
    }
    assert_eq!(machine.unflushed(), [NIC, PHANTOM, neighbour, ALIAS, far]);
    machine.iommu_flush(NIC).unwrap();
    assert_eq!(machine.unflushed(), [neighbour]);
    let entries: Vec<_> = machine.entries().into_iter().map(|(requester, _)| requester).collect();
    assert_eq!(entries, [NIC, PHANTOM, neighbour, ALIAS, far]);
}

#[test]
fn every_owner_can_be_attached() {
    let machine = machine();
    let last = Owner::Guest(DomainId::new(u32::MAX));
    for owner in [Owner::Unowned, Owner::Host, Owner::Quarantine, Owner::Hidden, GUEST, last] {
        machine.iommu_attach(NIC, NIC, owner).unwrap();
        machine.iommu_flush(NIC).unwrap();
        assert_eq!((machine.entry(NIC), machine.dma(NIC)), (Entry::Attached(owner), Dma::Reaches(owner)));
    }
}

#[test]
fn only_a_present_function_that_masters_the_bus_sends_requests() {
    let machine = machine();
    machine.iommu_attach(NIC, NIC, GUEST).unwrap();
    machine.iommu_attach(NIC, ALIAS, GUEST).unwrap();
    assert_eq!(machine.dma_as(NIC, ALIAS), Dma::Reaches(GUEST));
    assert_eq!(machine.dma(ALIAS), Dma::Silent, "no function is there");
    machine.config_write(NIC, COMMAND, Width::Word, 2);
    assert_eq!((machine.dma(NIC), machine.dma_as(NIC, ALIAS)), (Dma::Silent, Dma::Silent));
    assert_eq!(machine.dma_raw(NIC), Dma::Reaches(GUEST), "it may not ask its command register");
    machine.config_write(NIC, COMMAND, Width::Byte, MASTER);
    assert_eq!(machine.dma(NIC), Dma::Reaches(GUEST));
    machine.unplug(NIC);
    assert_eq!(machine.dma(NIC), Dma::Silent);
    assert_eq!(machine.entry(NIC), Entry::Attached(GUEST), "until it is detached");
}

#[test]
fn dma_is_blocked_when_no_requester_id_reaches_memory_not_even_from_the_cache() {
    let machine = machine();
    assert_eq!(machine.dma_blocked(NIC), Ok(true), "no entry at all");
    machine.iommu_attach(NIC, NIC, GUEST).unwrap();
    machine.iommu_attach(NIC, ALIAS, GUEST).unwrap();
    machine.iommu_block(NIC, NIC).unwrap();
    machine.iommu_flush(NIC).unwrap();
    assert_eq!(machine.dma_blocked(NIC), Ok(false), "the alias");
    machine.iommu_detach(NIC, ALIAS).unwrap();
    assert_eq!(machine.dma_blocked(NIC), Ok(false), "the cache");
    machine.iommu_flush(NIC).unwrap();
    assert_eq!(machine.dma_blocked(NIC), Ok(true));
}

#[test]
fn dma_is_not_blocked_by_what_is_only_cached() {
    let machine = machine();
    machine.iommu_block(NIC, NIC).unwrap();
    machine.iommu_attach(NIC, NIC, GUEST).unwrap();
    assert_eq!((machine.dma(NIC), machine.cached_entry(NIC)), (Dma::Blocked, Some(Entry::Blocked)));
    assert_eq!(machine.dma_blocked(NIC), Ok(false), "the cached entry may go any time");
}

/// Another processor's requests: once an entry is blocked and flushed, none reaches the guest any more.
#[test]
fn no_request_reaches_a_guest_after_block_and_flush() {
    let machine = machine();
    let blocked = AtomicU32::new(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..20_000 {
                // Odd while the guest has no access.
                blocked.store(2 * round, Ordering::SeqCst);
                machine.iommu_attach(NIC, NIC, GUEST).unwrap();
                machine.iommu_flush(NIC).unwrap();
                machine.iommu_block(NIC, NIC).unwrap();
                machine.iommu_flush(NIC).unwrap();
                blocked.store(2 * round + 1, Ordering::SeqCst);
            }
        });
        while blocked.load(Ordering::SeqCst) < 39_999 {
            let before = blocked.load(Ordering::SeqCst);
            let dma = machine.dma(NIC);
            if before % 2 == 1 && blocked.load(Ordering::SeqCst) == before {
                assert_ne!(dma.reaches(), Some(GUEST), "round {}", before / 2);
            }
        }
    });
}
