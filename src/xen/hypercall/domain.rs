//! The answer about a guest.

use std::fmt;

use crate::errno::Errno;
use crate::owner::DomainId;

/// What the hypervisor knows of a domain.
///
/// It does not know which domain emulates devices for which: whether this one is another's *stub domain* stands in
/// xenstore, as `target` below the domain's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DomainInfo {
    /// Its number.
    pub domain: DomainId,
    /// How it sees the machine.
    pub kind: DomainKind,
    /// Whether it lives.
    pub life: DomainLife,
    /// Whether it was created to be given devices.
    pub passthrough: Passthrough,
    /// It serves xenstore to the others.
    pub serves_xenstore: bool,
}

/// How a domain sees the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DomainKind {
    /// Paravirtualised: it knows of the hypervisor and asks it. The only one that has a PCI front end.
    Pv,
    /// Hardware virtual machine, with the devices of a PC emulated.
    Hvm,
    /// Hardware virtual machine without emulated devices.
    Pvh,
}

impl fmt::Display for DomainKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pv => "PV",
            Self::Hvm => "HVM",
            Self::Pvh => "PVH",
        })
    }
}

/// Whether a domain lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DomainLife {
    /// It runs, waits or is paused.
    Alive,
    /// It has stopped by itself, and its tool stack has not destroyed it yet.
    ShutDown,
    /// It is being destroyed.
    Dying,
}

/// Whether a domain was created to be given devices. This cannot be changed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Passthrough {
    /// Yes: the IOMMU has tables for it.
    Enabled,
    /// No; or the machine has no IOMMU that the hypervisor uses.
    Disabled,
    /// The hypervisor does not let us ask.
    Unknown,
}

/// Why a domain cannot be given devices through xen-pciback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Unsuitable {
    /// Domain 0 has what no guest has (EINVAL).
    #[error("domain 0 is the host, not a guest")]
    Host,
    /// Only paravirtualised guests have a PCI front end (EXDEV).
    #[error("domain {domain} is {kind}: only PV guests are given devices")]
    Kind {
        /// The domain.
        domain: DomainId,
        /// What it is.
        kind: DomainKind,
    },
    /// It serves the others (EXDEV).
    #[error("domain {0} serves xenstore, and is not given devices")]
    Xenstore(DomainId),
    /// Its tool stack did not ask for passthrough, or there is no IOMMU (EXDEV).
    #[error(
        "domain {0} was not created with passthrough, or Xen has no IOMMU: create it with `passthrough = \"enabled\"` (and `e820_host = 1`)"
    )]
    NoPassthrough(DomainId),
    /// It has shut down, or is being destroyed (ESRCH).
    #[error("domain {0} is at its end")]
    Ending(DomainId),
}

impl Unsuitable {
    /// What a C caller gets.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Host => Errno::EINVAL,
            Self::Kind { .. } | Self::Xenstore(_) | Self::NoPassthrough(_) => Errno::EXDEV,
            Self::Ending(_) => Errno::ESRCH,
        }
    }
}

impl DomainInfo {
    /// A paravirtualised guest that lives and was created with passthrough; change what is otherwise.
    pub const fn guest(domain: DomainId) -> Self {
        Self {
            domain,
            kind: DomainKind::Pv,
            life: DomainLife::Alive,
            passthrough: Passthrough::Enabled,
            serves_xenstore: false,
        }
    }

    /// Can it be given devices through xen-pciback?
    ///
    /// [`Passthrough::Unknown`] is let through: the assignment itself will say.
    pub fn takes_devices(&self) -> Result<(), Unsuitable> {
        let domain = self.domain;
        if domain.number() == 0 {
            return Err(Unsuitable::Host);
        }
        if self.life != DomainLife::Alive {
            return Err(Unsuitable::Ending(domain));
        }
        if self.kind != DomainKind::Pv {
            return Err(Unsuitable::Kind { domain, kind: self.kind });
        }
        if self.serves_xenstore {
            return Err(Unsuitable::Xenstore(domain));
        }
        if self.passthrough == Passthrough::Disabled {
            return Err(Unsuitable::NoPassthrough(domain));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: DomainInfo = DomainInfo::guest(DomainId::new(3));

    #[test]
    fn a_living_pv_guest_with_passthrough_takes_devices() {
        assert_eq!(GUEST.takes_devices(), Ok(()));
        assert_eq!(DomainInfo { passthrough: Passthrough::Unknown, ..GUEST }.takes_devices(), Ok(()));
    }

    #[test]
    fn others_do_not_and_are_told_why() {
        let domain = GUEST.domain;
        let host = DomainInfo::guest(DomainId::new(0));
        assert_eq!(host.takes_devices(), Err(Unsuitable::Host));
        for kind in [DomainKind::Hvm, DomainKind::Pvh] {
            let refused = DomainInfo { kind, ..GUEST }.takes_devices();
            assert_eq!(refused, Err(Unsuitable::Kind { domain, kind }));
        }
        for life in [DomainLife::ShutDown, DomainLife::Dying] {
            assert_eq!(DomainInfo { life, ..GUEST }.takes_devices(), Err(Unsuitable::Ending(domain)));
        }
        let without = DomainInfo { passthrough: Passthrough::Disabled, ..GUEST };
        assert_eq!(without.takes_devices().map_err(|error| error.errno()), Err(Errno::EXDEV));
        let serves = DomainInfo { serves_xenstore: true, ..GUEST };
        assert_eq!(serves.takes_devices(), Err(Unsuitable::Xenstore(domain)));
    }
}
