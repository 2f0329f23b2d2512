//! A hook never aborts: without memory it fails, and it needs none for a requester ID that was named before.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use pcidevs::Errno;
use pcidevs::platform::{Entry, Hook, HookError, Platform};

use super::{ALIAS, GUEST, Machine, NIC, PHANTOM, at, call_all, machine};

std::thread_local! {
    /// Whether this thread gets no memory.
    static STARVED: Cell<bool> = const { Cell::new(false) };
}

struct Failing;

// SAFETY: the system's allocator, or null, which is what an allocator without memory returns.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if STARVED.get() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Runs something on a thread that gets no memory.
fn starved<R>(step: impl FnOnce() -> R) -> R {
    STARVED.set(true);
    let result = step();
    STARVED.set(false);
    result
}

#[test]
fn a_requester_id_on_a_new_bus_or_segment_fails_with_enomem_and_does_nothing() {
    let machine = machine();
    for requester in [ALIAS, at("0001:00:00.0"), at("10000:e1:00.0")] {
        let refused = starved(|| machine.iommu_attach(NIC, requester, GUEST));
        assert_eq!(refused.map_err(HookError::errno), Err(Errno::ENOMEM));
        assert_eq!(machine.entry(requester), Entry::Absent);
        machine.iommu_attach(NIC, requester, GUEST).unwrap();
    }
}

#[test]
fn what_was_named_before_needs_no_memory() {
    let machine = machine();
    let named = [NIC, PHANTOM, ALIAS, at("10000:e1:00.0")];
    let each = |machine: &Machine| {
        for requester in named {
            machine.iommu_attach(NIC, requester, GUEST).unwrap();
            machine.iommu_block(NIC, requester).unwrap();
        }
    };
    each(&machine);
    machine.count(true);
    machine.record(true);
    starved(|| {
        each(&machine);
        call_all(&machine);
    });
    assert_eq!(machine.journal().len(), 8 + Hook::ALL.len() - 2);
}
