//! One device from its plugging in to its destructor: what it holds, and what outlives it so that it can be told on.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use pcidevs::Sbdf;

use super::judge::Judge;
use super::party::{AtomicParty, Party};

/// How many DMAs a device keeps in mind.
const QUEUE: usize = 4;

/// One life of one device, as everyone else sees it. It outlives the device.
pub(crate) struct Life {
    /// Which function of the machine.
    pub(crate) place: usize,
    pub(crate) address: Sbdf,
    judge: Arc<Judge>,
    /// Its removal, or its loss, has been reported to the one who asked: nothing may reach it any more.
    over: AtomicBool,
    /// It has been pulled out of its slot.
    pulled: AtomicBool,
    destroyed: AtomicU32,
    /// Handles that certainly exist.
    pub(crate) handles: AtomicU32,
    /// Who sees it: whose vPCI is on.
    pub(crate) view: AtomicParty,
    /// Who gets its interrupts.
    pub(crate) vector: AtomicParty,
    /// Under which requester IDs it was known.
    pub(crate) requesters: OnceLock<Vec<Sbdf>>,
}

impl Life {
    pub(crate) fn new(place: usize, address: Sbdf, judge: &Arc<Judge>) -> Arc<Self> {
        Arc::new(Self {
            place,
            address,
            judge: Arc::clone(judge),
            over: AtomicBool::new(false),
            pulled: AtomicBool::new(false),
            destroyed: AtomicU32::new(0),
            handles: AtomicU32::new(0),
            view: AtomicParty::default(),
            vector: AtomicParty::default(),
            requesters: OnceLock::new(),
        })
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(crate) fn pull(&self) {
        self.pulled.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_pulled(&self) -> bool {
        self.pulled.load(Ordering::SeqCst)
    }

    pub(crate) fn times_destroyed(&self) -> u32 {
        self.destroyed.load(Ordering::SeqCst)
    }
}

/// A DMA that was programmed and comes when it comes.
#[derive(Clone, Copy)]
pub(crate) struct Dma {
    /// Who programmed it.
    pub(crate) by: Party,
    /// How often the function had been reset: a reset forgets it.
    pub(crate) resets: u32,
}

/// What the core keeps per device.
pub(crate) struct Model {
    pub(crate) life: Arc<Life>,
    queue: [Option<Dma>; QUEUE],
}

impl Model {
    pub(crate) fn new(life: Arc<Life>) -> Self {
        Self { life, queue: [None; QUEUE] }
    }

    /// Programs a DMA, in place of the oldest if there are too many.
    pub(crate) fn program(&mut self, dma: Dma) {
        self.queue.rotate_right(1);
        self.queue[0] = Some(dma);
    }

    /// The DMA that comes next, of those that no reset has made the function forget.
    pub(crate) fn next_dma(&mut self, resets: u32) -> Option<Dma> {
        self.queue = self.queue.map(|dma| dma.filter(|dma| dma.resets == resets));
        self.queue.iter().rev().copied().flatten().next()
    }

    /// It is done.
    pub(crate) fn finish_dma(&mut self) {
        if let Some(last) = self.queue.iter_mut().rev().find(|dma| dma.is_some()) {
            *last = None;
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        if self.life.destroyed.fetch_add(1, Ordering::SeqCst) > 0 {
            self.life.judge.violation(format_args!("the destructor of {} ran twice", self.life.address));
        }
    }
}
