//! The hypervisor: the one in memory, and what it has in common with the real one.

mod same;
mod simulated;

use pcidevs::Errno;
use pcidevs::xen::hypercall::HypercallError;

/// The number, of a refusal; the rest of it is what was asked.
fn number<T>(answer: Result<T, HypercallError>) -> Result<(), Errno> {
    answer.map(|_| ()).map_err(|error| error.errno())
}
