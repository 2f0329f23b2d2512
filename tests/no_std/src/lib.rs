//! A hypervisor's view of the crate: no standard library, its own lock, allocator and panic handler.
//!
//! Building it is the test; `.ci/run` does. It is also the smallest embedding to copy from.
#![no_std]

extern crate alloc;

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::num::NonZeroUsize;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pcidevs::sync::{WAIT_BUCKETS, WaitBucket, WaitTable};
use pcidevs::{DomainId, Member, Owner, RawLock, Registry, Sbdf};

/// A spin lock.
pub struct Spin(AtomicBool);

// SAFETY: one compare-exchange admits one thread; Acquire and Release pair.
unsafe impl RawLock for Spin {
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    fn lock(&self) {
        while !self.try_lock() {
            core::hint::spin_loop();
        }
    }

    fn try_lock(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }

    fn current() -> NonZeroUsize {
        // A hypervisor returns its per-CPU pointer; this one has one processor.
        NonZeroUsize::MIN
    }

    fn waiters() -> &'static WaitTable<Self> {
        static WAITERS: WaitTable<Spin> = WaitTable::new(
            [const { WaitBucket::from_raw(Spin(AtomicBool::new(false)), Vec::new()) }; WAIT_BUCKETS],
        );
        &WAITERS
    }
}

/// Adds a device, gives it to a guest, reads it as the guest, takes it away. 0 if all of that works.
#[unsafe(no_mangle)]
pub extern "C" fn pcidevs_try() -> i32 {
    match life_of_a_device() {
        Some(()) => 0,
        None => -1,
    }
}

fn life_of_a_device() -> Option<()> {
    let registry: Registry<u32, Spin> = Registry::new().ok()?;
    let address: Sbdf = "10000:e1:00.0".parse().ok()?;
    registry.add(address, 0x8086).ok()?;
    let guest = registry.create_domain(DomainId::new(1)).ok()?;
    registry.move_devices(&[Member::new(address)], Owner::Guest(guest.id())).ok()?;
    (*guest.lock(Sbdf::default()).ok()? == 0x8086).then_some(())?;
    registry.remove_device(address).err()?;
    registry.move_devices(&[Member::new(address)], Owner::Host).ok()?;
    let mut ticket = registry.begin_removal(address).ok()?;
    ticket.try_complete().ok()?.then_some(())
}

/// Memory that is handed out and never taken back.
struct Bump {
    used: AtomicUsize,
}

const HEAP: usize = 1 << 20;

#[repr(align(4096))]
struct Heap(core::cell::UnsafeCell<[u8; HEAP]>);

// SAFETY: each byte is handed out once.
unsafe impl Sync for Heap {}

static MEMORY: Heap = Heap(core::cell::UnsafeCell::new([0; HEAP]));

#[global_allocator]
static ALLOCATOR: Bump = Bump { used: AtomicUsize::new(0) };

// SAFETY: every allocation is a part of `MEMORY` of its own, aligned as asked.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let room = layout.size() + layout.align();
        let begin = self.used.fetch_add(room, Ordering::Relaxed);
        if layout.align() > 4096 || begin + room > HEAP {
            return core::ptr::null_mut();
        }
        // SAFETY: within `MEMORY`, by the check above.
        unsafe { MEMORY.0.get().cast::<u8>().add(begin.next_multiple_of(layout.align())) }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
