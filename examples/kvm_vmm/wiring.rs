//! What the guest's bus asks of this VMM: interrupts and mappings.
//!
//! Whatever is set up here the bus takes back when the guest loses the device: live vectors and mapped BARs end with
//! the vPCI, which is an attachment of the device, and each live vector counts as one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pcidevs::platform::HookError;
use pcidevs::vpci::{Message, Piece, Target, VectorWork, Wiring};
use pcidevs::{Errno, Sbdf};

use super::hypervisor::{Hypervisor, Line};
use super::memory::Memory;

/// Lines below are those of the interrupt controllers' pins.
const FIRST_LINE: u32 = 24;

/// Between the guest's devices and the hypervisor.
pub(crate) struct Wires {
    hypervisor: Arc<dyn Hypervisor>,
    /// The lines of vectors that are live.
    lines: Mutex<HashMap<(Sbdf, u16), Line>>,
    /// The memory behind BARs that are mapped directly.
    shared: Mutex<HashMap<(Sbdf, u8), Memory>>,
    /// Where those are that are mapped.
    mapped: Mutex<HashMap<(Sbdf, u8), u64>>,
    /// What a VMM would write to its log.
    failures: Mutex<Vec<HookError>>,
}

const NOT_SHARED: HookError = HookError::new(Errno::ENODEV, "no memory is behind this BAR");
const NOT_WHOLE: HookError = HookError::new(Errno::EINVAL, "only whole BARs are mapped here");
const NOT_LIVE: HookError = HookError::new(Errno::ENODEV, "the vector is not live");

impl Wires {
    pub(crate) fn new(hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self {
            hypervisor,
            lines: Mutex::default(),
            shared: Mutex::default(),
            mapped: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// What is behind a directly mapped BAR.
    pub(crate) fn share(&self, device: Sbdf, bar: u8, memory: Memory) {
        locked(&self.shared).insert((device, bar), memory);
    }

    /// What could not be done so far.
    pub(crate) fn failures(&self) -> Vec<HookError> {
        locked(&self.failures).clone()
    }

    /// A vector is live from now on, or sends something else.
    fn route(&self, vector: (Sbdf, u16), message: Message) -> Result<(), HookError> {
        let mut lines = locked(&self.lines);
        let is_taken = |line: &Line| lines.values().any(|taken| taken == line);
        let known = lines.get(&vector).copied();
        let free = || (FIRST_LINE..u32::MAX).map(Line).find(|line| !is_taken(line));
        let line = known.or_else(free).ok_or(NOT_LIVE)?;
        self.hypervisor.connect(line, message)?;
        lines.insert(vector, line);
        Ok(())
    }

    /// It is not any more, unless this fails.
    fn unroute(&self, vector: (Sbdf, u16)) -> Result<(), HookError> {
        let mut lines = locked(&self.lines);
        self.hypervisor.disconnect(*lines.get(&vector).ok_or(NOT_LIVE)?)?;
        lines.remove(&vector);
        Ok(())
    }
}

impl Wiring for Wires {
    fn vector(&self, target: Target, vector: u16, work: VectorWork) -> Result<(), HookError> {
        let vector = (target.device, vector);
        match work {
            VectorWork::Route(message) => self.route(vector, message),
            VectorWork::Unroute => self.unroute(vector),
            VectorWork::Send(_) => {
                let line = locked(&self.lines).get(&vector).copied().ok_or(NOT_LIVE)?;
                self.hypervisor.send(line)
            }
        }
    }

    fn map(&self, device: Sbdf, piece: &Piece) -> Result<(), HookError> {
        let memory = locked(&self.shared).get(&(device, piece.id.bar)).cloned().ok_or(NOT_SHARED)?;
        if (piece.offset, piece.length) != (0, memory.size()) {
            return Err(NOT_WHOLE);
        }
        self.hypervisor.map(piece.base, &memory)?;
        locked(&self.mapped).insert((device, piece.id.bar), piece.base);
        Ok(())
    }

    /// A guest may put another BAR over a part of one. Then none of it is mapped any more: all of it comes to the model.
    fn unmap(&self, device: Sbdf, piece: &Piece) -> Result<(), HookError> {
        let mut mapped = locked(&self.mapped);
        let Some(base) = mapped.get(&(device, piece.id.bar)) else { return Ok(()) };
        self.hypervisor.unmap(*base)?;
        mapped.remove(&(device, piece.id.bar));
        Ok(())
    }

    fn failed(&self, _: Target, error: HookError) {
        locked(&self.failures).push(error);
    }
}

/// Only whole values are put in, so a panic of an earlier holder left nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
