//! The same accesses under locks as Xen has them, written anew from what its code does.
//!
//! An access takes its domain's reader-writer lock: shared for a read, exclusively for every write, whichever device it
//! is for. It walks the domain's list of devices, takes the device's own lock, and walks the device's list of
//! registers, which is in the order of their offsets. Both locks are fair and spin.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};

use pcidevs::Sbdf;

use crate::registers::{Values, offsets};

/// First come, first served.
#[derive(Default)]
struct TicketLock {
    next: AtomicU32,
    served: AtomicU32,
}

impl TicketLock {
    #[inline]
    fn lock(&self) {
        let mine = self.next.fetch_add(1, Ordering::Relaxed);
        while self.served.load(Ordering::Acquire) != mine {
            spin_loop();
        }
    }

    #[inline]
    fn unlock(&self) {
        self.served.store(self.served.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }
}

const READER: u32 = 1 << 10;
const WAITS: u32 = 1 << 9;
const WRITES: u32 = 1;

/// One word of readers and a writer; who cannot have it at once queues up for it.
#[derive(Default)]
struct QueuedRwLock {
    word: AtomicU32,
    queue: TicketLock,
}

impl QueuedRwLock {
    #[inline]
    fn read_lock(&self) {
        if self.word.fetch_add(READER, Ordering::Acquire) & (READER - 1) != 0 {
            self.read_lock_queued();
        }
    }

    #[cold]
    fn read_lock_queued(&self) {
        self.word.fetch_sub(READER, Ordering::Relaxed);
        self.queue.lock();
        // At the head of the queue: no writer waits before this one.
        self.word.fetch_add(READER, Ordering::Relaxed);
        while self.word.load(Ordering::Acquire) & (READER - 1) != 0 {
            spin_loop();
        }
        self.queue.unlock();
    }

    #[inline]
    fn read_unlock(&self) {
        self.word.fetch_sub(READER, Ordering::Release);
    }

    #[inline]
    fn write_lock(&self) {
        if self.word.compare_exchange(0, WRITES, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.write_lock_queued();
        }
    }

    #[cold]
    fn write_lock_queued(&self) {
        self.queue.lock();
        // From here on no reader comes in.
        self.word.fetch_or(WAITS, Ordering::Relaxed);
        while self.word.compare_exchange_weak(WAITS, WRITES, Ordering::Acquire, Ordering::Relaxed).is_err() {
            spin_loop();
        }
        self.queue.unlock();
    }

    #[inline]
    fn write_unlock(&self) {
        self.word.fetch_sub(WRITES, Ordering::Release);
    }
}

type ReadHandler = fn(&mut Values, u16) -> u32;
type WriteHandler = fn(&mut Values, u16, u32);

struct Register {
    offset: u16,
    read: ReadHandler,
    write: WriteHandler,
    next: Option<Box<Register>>,
}

/// A device on its domain's list.
#[repr(align(128))]
struct Device {
    at: Sbdf,
    lock: TicketLock,
    values: UnsafeCell<Values>,
    registers: Option<Box<Register>>,
    next: Option<Box<Device>>,
}

// SAFETY: `values` is reached by the holder of `lock` only; the rest does not change but for the locks.
unsafe impl Sync for Device {}

impl Device {
    fn register(&self, offset: u16) -> Option<&Register> {
        let mut next = self.registers.as_deref();
        while let Some(register) = next {
            if register.offset >= offset {
                return Some(register).filter(|found| found.offset == offset);
            }
            next = register.next.as_deref();
        }
        None
    }

    /// Runs `step` on a register under the device's lock.
    #[inline]
    fn access<R>(&self, offset: u16, step: impl FnOnce(&Register, &mut Values) -> R) -> Option<R> {
        self.lock.lock();
        // SAFETY: the lock is held until after the last use.
        let values = unsafe { &mut *self.values.get() };
        let result = self.register(offset).map(|register| step(register, values));
        self.lock.unlock();
        result
    }
}

/// A guest and its devices.
#[repr(align(128))]
pub(crate) struct Domain {
    lock: QueuedRwLock,
    devices: Option<Box<Device>>,
}

impl Domain {
    /// With devices of so many registers at these addresses.
    pub(crate) fn with(addresses: impl Iterator<Item = Sbdf>, registers: u16) -> Self {
        let devices = addresses.fold(None, |next, at| {
            let values = UnsafeCell::new(Values::new());
            let registers = list_of(registers);
            Some(Box::new(Device { at, lock: TicketLock::default(), values, registers, next }))
        });
        Self { lock: QueuedRwLock::default(), devices }
    }

    fn device(&self, at: Sbdf) -> Option<&Device> {
        let mut next = self.devices.as_deref();
        while let Some(device) = next {
            if device.at == at {
                return Some(device);
            }
            next = device.next.as_deref();
        }
        None
    }

    #[inline]
    pub(crate) fn read(&self, at: Sbdf, offset: u16) -> u32 {
        self.lock.read_lock();
        let read = self.device(at).and_then(|device| {
            device.access(offset, |register, values| (register.read)(values, register.offset))
        });
        self.lock.read_unlock();
        read.unwrap_or(u32::MAX)
    }

    #[inline]
    pub(crate) fn write(&self, at: Sbdf, offset: u16, value: u32) -> bool {
        self.lock.write_lock();
        let written = self.device(at).and_then(|device| {
            device.access(offset, |register, values| (register.write)(values, register.offset, value))
        });
        self.lock.write_unlock();
        written.is_some()
    }
}

/// Registers in the order of their offsets, allocated in that order.
fn list_of(count: u16) -> Option<Box<Register>> {
    let mut registers: Vec<Box<Register>> = offsets(count)
        .map(|offset| {
            let read: ReadHandler = |values, offset| *values.at(offset);
            let write: WriteHandler = |values, offset, value| *values.at(offset) = value;
            Box::new(Register { offset, read, write, next: None })
        })
        .collect();
    let mut list = None;
    while let Some(mut register) = registers.pop() {
        register.next = list;
        list = Some(register);
    }
    list
}
