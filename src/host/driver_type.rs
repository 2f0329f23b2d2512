//! Which driver is asked for, as configuration says it, and as the record of a running guest says it.
//!
//! Configuration keeps `default`: reading it and writing it back changes nothing. What `default` is today is decided
//! inside the attach transition, by the platform in use, and only the result is recorded. A restore brings that result
//! along and does not decide again.

use std::fmt;
use std::str::FromStr;

use super::name::{DriverName, InvalidName};

/// A driver type, as a configuration says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DriverType {
    /// Whatever the platform in use takes when the guest gets the device.
    #[default]
    Default,
    /// VFIO: the best variant driver, or `vfio-pci`.
    Vfio,
    /// Xen's pciback.
    Xen,
    /// A certain driver, a variant of `vfio-pci`.
    Named(DriverName),
}

/// A text that is no driver type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no driver type: {0}; say default, vfio, xen, or the name of a driver")]
pub struct InvalidDriverType(#[from] pub InvalidName);

/// This platform cannot do this driver type: say `default` or `vfio`, or name a VFIO driver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a Linux host with VFIO cannot do the driver type {0}: say default, vfio, or name a VFIO driver")]
pub struct UnsupportedDriver(pub DriverType);

impl DriverType {
    /// Whether a Linux host can do this. For whoever reads a configuration: before anything is touched.
    pub fn check(&self) -> Result<(), UnsupportedDriver> {
        let is_possible = match self {
            Self::Default | Self::Vfio => true,
            Self::Xen => false,
            // `pci-stub` keeps a device from the host and gives it to nobody.
            Self::Named(name) => name.is_stub() && *name != *"pci-stub",
        };
        if is_possible { Ok(()) } else { Err(UnsupportedDriver(self.clone())) }
    }
}

impl FromStr for DriverType {
    type Err = InvalidDriverType;

    fn from_str(text: &str) -> Result<Self, InvalidDriverType> {
        Ok(match text {
            "default" => Self::Default,
            "vfio" => Self::Vfio,
            "xen" => Self::Xen,
            name => Self::Named(name.parse()?),
        })
    }
}

impl fmt::Display for DriverType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.pad("default"),
            Self::Vfio => f.pad("vfio"),
            Self::Xen => f.pad("xen"),
            Self::Named(name) => f.pad(name.as_str()),
        }
    }
}

/// Which driver a device shall get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// As a configuration says: decided in the transition.
    Configured(DriverType),
    /// As the saved state of a guest says: decided when it got the device first.
    Recorded(DriverName),
}

impl Default for DriverChoice {
    fn default() -> Self {
        Self::Configured(DriverType::Default)
    }
}

impl From<DriverType> for DriverChoice {
    fn from(asked: DriverType) -> Self {
        Self::Configured(asked)
    }
}
