//! Devices that can be given to guests: taken from their drivers and put on xen-pciback, and back.
//!
//! pciback takes a device that stands in its list of *slots*. From then on the host's driver does not have it, and in the
//! hypervisor it is in *quarantine*: its DMA reaches no memory. What the host had is written down in xenstore, in
//! `/libxl/pci/<device>`, **before** anything is touched, so that whoever comes after a crash can bring it back; libxl
//! reads and writes the same records.
//!
//! ```text
//! add:     record ─> unbind ─> new_slot ─> bind ─> look ─> quarantine
//! remove:  out of quarantine ─> unbind ─> remove_slot ─> bind the host's ─> look ─> forget the record
//! ```
//!
//! Each of the two happens whole or not at all. If a step fails those before it are undone, and the record goes only
//! after the host's driver was *seen* to have the device again. After a crash [`Assignable::revert`] brings back what the
//! host had, and [`Assignable::add`] goes on where it was cut off.
//!
//! | file | what |
//! |---|---|
//! | `driver` | drivers' and pciback's files |
//! | `record` | what the host had, in xenstore |
//! | `add`, `remove` | the two ways, and how each is undone |
//! | `list` | what there is |
//! | `error` | why not |

mod add;
mod driver;
mod error;
mod list;
mod record;
mod remove;

pub use add::Added;
use driver::PCIBACK;
pub(super) use driver::{all, config, physical_function, resources, write_pciback};
pub use error::{AssignableError, StepsFailed};
pub use list::{AssignableDevice, AssignableState};
pub use remove::Afterwards;

use crate::Sbdf;
use crate::host::{DriverName, Kernel, WriteFailure};
use crate::xen::hypercall::Hypervisor;
use crate::xen::store::Store;

/// How often a transaction on a record that meets another is tried.
const ATTEMPTS: u32 = 32;

/// What making devices assignable needs: the kernel's files, the store with the records, the hypervisor's quarantine.
pub struct Assignable<'a, S: ?Sized> {
    kernel: &'a dyn Kernel,
    hypervisor: &'a dyn Hypervisor,
    store: &'a mut S,
}

impl<'a, S: Store + ?Sized> Assignable<'a, S> {
    /// On this machine.
    pub fn new(kernel: &'a dyn Kernel, hypervisor: &'a dyn Hypervisor, store: &'a mut S) -> Self {
        Self { kernel, hypervisor, store }
    }
}

impl<S: ?Sized> std::fmt::Debug for Assignable<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assignable").finish_non_exhaustive()
    }
}

/// A step's result.
type Step = Result<(), WriteFailure>;

/// Whether pciback has the device now.
pub(super) fn is_on_pciback(kernel: &dyn Kernel, device: Sbdf) -> bool {
    driver::current(kernel, device).is_ok_and(|now| now.is_some_and(|now| now == *PCIBACK))
}

/// The driver that has the device now.
pub(super) fn driver_of(kernel: &dyn Kernel, device: Sbdf) -> Result<Option<DriverName>, AssignableError> {
    Ok(driver::current(kernel, device)?)
}
