//! Whose a function is, as far as its driver tells.
//!
//! A recording does not say which guest has a function, only which driver is bound. A function whose driver exists
//! to keep the host away from it counts as quarantined; every other one, also without any driver, is the host's.

use pcidevs::Owner;

/// Drivers that do nothing with a function but keep others away, or export it to Xen guests.
const STUBS: &[&str] = &["pci-stub", "pci_stub", "pci-pf-stub", "pciback", "xen-pciback", "xen_pciback"];

/// The owner that a driver stands for.
pub(super) fn from_driver(driver: Option<&str>) -> Owner {
    // VFIO's variant drivers carry its name at the end: mlx5_vfio_pci.
    let keeps_away = |name: &str| {
        STUBS.contains(&name)
            || name.starts_with("vfio")
            || name.ends_with("vfio_pci")
            || name.ends_with("vfio-pci")
    };
    if driver.is_some_and(keeps_away) { Owner::Quarantine } else { Owner::Host }
}
