//! Kernel writes that may take for ever, and devices that are stuck in one.
//!
//! Such a call runs on a thread of its own, and the caller waits for it until a deadline. Past that the device is
//! *stuck*: every further call for it fails at once, everybody else's goes on, and what the late one says in the end
//! is delivered once. There is at most one call a device, so at most one thread hangs for it.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::book::locked;
use super::kernel::{Kernel, Place};
use super::network::{KeptNetwork, NetworkChange};
use crate::Sbdf;
use crate::errno::Errno;
use crate::platform::GroupId;

/// A call that passed its deadline has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateEnd {
    /// The device; it is not stuck any more.
    pub device: Sbdf,
    /// What was written.
    pub what: String,
    /// How it ended.
    pub result: Result<(), Errno>,
}

/// Runs calls with a deadline.
pub(super) struct Writer {
    kernel: Arc<dyn Kernel>,
    deadline: Duration,
    devices: Arc<Mutex<Devices>>,
}

#[derive(Default)]
struct Devices {
    /// What is under way for whom.
    busy: BTreeMap<Sbdf, Call>,
    ended: Vec<LateEnd>,
}

struct Call {
    what: String,
    since: Instant,
    is_late: bool,
}

impl Writer {
    pub(super) fn new(kernel: Arc<dyn Kernel>, deadline: Duration) -> Self {
        Self { kernel, deadline, devices: Arc::default() }
    }

    pub(super) fn kernel(&self) -> &dyn Kernel {
        &*self.kernel
    }

    /// Writes a file of a device. ETIMEDOUT: it is stuck from now on. EBUSY: it was.
    pub(super) fn write(&self, device: Sbdf, place: Place, bytes: &[u8]) -> Result<(), Errno> {
        let text = String::from_utf8_lossy(bytes).trim_end().escape_debug().to_string();
        let (what, bytes) = (format!("write {text:?} to {place}"), bytes.to_vec());
        self.run(device, what, move |kernel| kernel.write(&place, &bytes))
    }

    /// Resets a device's whole bus.
    pub(super) fn hot_reset(&self, device: Sbdf, groups: Vec<GroupId>) -> Result<(), Errno> {
        self.run(device, format!("hot reset of {device}"), move |kernel| kernel.hot_reset(device, &groups))
    }

    /// Reads a file of a device that may block, as `driver_override` does on some kernels.
    pub(super) fn read(&self, device: Sbdf, place: Place, limit: usize) -> Result<Vec<u8>, Errno> {
        self.ask(device, format!("read {place}"), move |kernel| kernel.read(&place, limit))
    }

    /// What an interface keeps of a device, which is its virtual function of this number. The kernel has one lock for
    /// all interfaces.
    pub(super) fn virtual_network(
        &self,
        device: Sbdf,
        interface: u32,
        number: u16,
    ) -> Result<KeptNetwork, Errno> {
        let what = format!("read virtual function {number} of interface {interface}");
        self.ask(device, what, move |kernel| kernel.virtual_network(interface, number))
    }

    /// Changes that.
    pub(super) fn set_virtual_network(
        &self,
        device: Sbdf,
        interface: u32,
        number: u16,
        change: NetworkChange,
    ) -> Result<(), Errno> {
        let what = format!("set {change} of virtual function {number} of interface {interface}");
        self.run(device, what, move |kernel| kernel.set_virtual_network(interface, number, change))
    }

    fn ask<R: Send + 'static>(
        &self,
        device: Sbdf,
        what: String,
        question: impl FnOnce(&dyn Kernel) -> Result<R, Errno> + Send + 'static,
    ) -> Result<R, Errno> {
        let (answer, answered) = mpsc::channel();
        self.run(device, what, move |kernel| {
            let found = question(kernel)?;
            // Nobody waits for it any more if this fails.
            let _late = answer.send(found);
            Ok(())
        })?;
        answered.try_recv().map_err(|_| Errno::EIO)
    }

    fn run(
        &self,
        device: Sbdf,
        what: String,
        call: impl FnOnce(&dyn Kernel) -> Result<(), Errno> + Send + 'static,
    ) -> Result<(), Errno> {
        let mut devices = locked(&self.devices);
        if devices.busy.contains_key(&device) {
            return Err(Errno::EBUSY);
        }
        devices.busy.insert(device, Call { what, since: Instant::now(), is_late: false });
        drop(devices);
        let (done, end) = mpsc::channel();
        let (kernel, state) = (self.kernel.clone(), self.devices.clone());
        let run = move || {
            let called = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call(&*kernel)));
            let result = called.unwrap_or(Err(Errno::EIO));
            let mut devices = locked(&state);
            if let Some(Call { what, is_late: true, .. }) = devices.busy.remove(&device) {
                devices.ended.push(LateEnd { device, what, result });
            } else {
                // Under the lock: whoever gives up waiting looks here once more.
                let _gave_up = done.send(result);
            }
        };
        let started = std::thread::Builder::new().name(format!("pcidevs {device}")).spawn(run);
        if let Err(error) = started {
            locked(&self.devices).busy.remove(&device);
            return Err(super::kernel::errno(error));
        }
        let waited = end.recv_timeout(self.deadline);
        if let Ok(result) = waited {
            return result;
        }
        let mut devices = locked(&self.devices);
        match (waited, devices.busy.get_mut(&device)) {
            (Err(RecvTimeoutError::Timeout), Some(call)) => {
                call.is_late = true;
                Err(Errno::ETIMEDOUT)
            }
            // It ended between the deadline and the lock, or in a panic.
            _ => end.try_recv().unwrap_or(Err(Errno::EIO)),
        }
    }

    /// What a device is stuck in.
    pub(super) fn stuck_in(&self, device: Sbdf) -> Option<String> {
        let devices = locked(&self.devices);
        devices.busy.get(&device).filter(|call| call.is_late).map(|call| call.what.clone())
    }

    /// What is under way: whose, what, and for how long.
    pub(super) fn under_way(&self) -> Vec<(Sbdf, String, Duration)> {
        let devices = locked(&self.devices);
        devices.busy.iter().map(|(device, call)| (*device, call.what.clone(), call.since.elapsed())).collect()
    }

    /// Calls that were late and have ended, each once.
    pub(super) fn late_ends(&self) -> Vec<LateEnd> {
        std::mem::take(&mut locked(&self.devices).ended)
    }
}
