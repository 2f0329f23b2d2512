//! Asking the real hypervisor, through Xen's own library.
//!
//! The library is looked for at run time, so that a program with this feature starts, and says what is missing, where
//! there is no Xen. Hypercalls for tool stacks have no stable interface: numbers and layouts belong to one version of Xen.
//! This crate knows those of **Xen 4.17 on x86-64** (`XEN_DOMCTL_INTERFACE_VERSION` 0x15) and refuses others, twice: the
//! running hypervisor must say that it is 4.17, and it itself refuses requests of a library whose interface version is not
//! its own.
//!
//! | file | what it does |
//! |---|---|
//! | `find` | where the library may be |
//! | `layout` | the one structure that we read |
//! | `symbols` | the library's functions; all the `unsafe` |

mod find;
mod layout;
mod symbols;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::call::{Access, Frames, Gsi, Hypercall, Pirq, Ports};
use super::domain::{DomainInfo, DomainKind, DomainLife, Passthrough};
use super::error::HypercallError;
use super::{Hypervisor, QUARANTINE};
use crate::address::Sbdf;
use crate::errno::Errno;
use crate::owner::DomainId;
use crate::xen::spec::RdmPolicy;
use layout::DomainInformation;
use symbols::Handle;

/// The versions of Xen whose layouts this crate has.
const KNOWN: [(u16, u16); 1] = [(4, 17)];

/// Xen's answer for what it was built or started without.
const ENOSYS: Errno = Errno::new(38);

/// The hypervisor of this machine, asked through libxenctrl.
pub struct Libxenctrl {
    handle: Handle,
}

impl std::fmt::Debug for Libxenctrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Libxenctrl").field("library", &self.library()).finish_non_exhaustive()
    }
}

impl Libxenctrl {
    /// Finds the library, and the hypervisor behind it.
    ///
    /// # Errors
    /// The first five of [`HypercallError`]: each says which part is missing.
    pub fn open() -> Result<Self, HypercallError> {
        Self::open_among(&find::names(), &find::folders())
    }

    /// As [`open`](Self::open), where the library is looked for said.
    fn open_among(names: &[&str], folders: &[&Path]) -> Result<Self, HypercallError> {
        let opened = Self { handle: Handle::open(find::library(names, folders)?)? };
        opened.check_version()?;
        Ok(opened)
    }

    /// Which file was found.
    pub fn library(&self) -> &Path {
        self.handle.library()
    }

    fn check_version(&self) -> Result<(), HypercallError> {
        let (major, minor) = self.handle.version().map_err(|errno| HypercallError::Unreachable { errno })?;
        if !KNOWN.contains(&(major, minor)) || !cfg!(target_arch = "x86_64") {
            return Err(HypercallError::UnknownVersion { major, minor });
        }
        match self.handle.domain_information(0) {
            Ok(_) => Ok(()),
            Err(Errno::EACCES | Errno::EPERM) => {
                Err(HypercallError::WrongLibrary { library: self.library().to_owned() })
            }
            Err(errno) => Err(HypercallError::Unreachable { errno }),
        }
    }

    fn passthrough(&self, domain: DomainId) -> Result<Passthrough, HypercallError> {
        // There is no question for it. But all that concerns a domain's devices is refused with EOPNOTSUPP before anything
        // else when it was created without; so we ask something harmless, for which host bridge 0000:00:00.0 will do.
        match self.handle.device_group(domain.number(), 0) {
            Ok(()) => Ok(Passthrough::Enabled),
            Err(Errno::EOPNOTSUPP | ENOSYS) => Ok(Passthrough::Disabled),
            Err(Errno::ESRCH) => Err(HypercallError::NoDomain(domain)),
            Err(_) => Ok(Passthrough::Unknown),
        }
    }
}

/// What was asked for, should it fail.
fn asked<T>(call: Hypercall, domain: DomainId, answer: Result<T, Errno>) -> Result<T, HypercallError> {
    answer.map_err(|errno| match (call, errno) {
        (Hypercall::Domain, Errno::ESRCH) => HypercallError::NoDomain(domain),
        _ => HypercallError::Refused { call, domain, errno },
    })
}

fn kind(information: &DomainInformation) -> DomainKind {
    if !information.is_hardware_virtualised() {
        DomainKind::Pv
    } else if information.emulates_a_pc() {
        DomainKind::Hvm
    } else {
        DomainKind::Pvh
    }
}

fn life(information: &DomainInformation) -> DomainLife {
    if information.is_dying() {
        DomainLife::Dying
    } else if information.is_shut_down() {
        DomainLife::ShutDown
    } else {
        DomainLife::Alive
    }
}

impl Hypervisor for Libxenctrl {
    fn domain(&self, domain: DomainId) -> Result<DomainInfo, HypercallError> {
        // The library answers with the first domain from this number on.
        let information = asked(Hypercall::Domain, domain, self.handle.domain_information(domain.number()))?
            .filter(|information| information.number() == domain.number())
            .ok_or(HypercallError::NoDomain(domain))?;
        Ok(DomainInfo {
            domain,
            kind: kind(&information),
            life: life(&information),
            passthrough: self.passthrough(domain)?,
            serves_xenstore: information.serves_xenstore(),
        })
    }

    fn test_assign_device(&self, domain: DomainId, device: Sbdf) -> Result<(), HypercallError> {
        let answer = self.handle.test_assign_device(domain.number(), device.to_u32()?);
        asked(Hypercall::TestAssign(device), domain, answer)
    }

    fn assign_device(
        &self,
        domain: DomainId,
        device: Sbdf,
        reserved: RdmPolicy,
    ) -> Result<(), HypercallError> {
        let relaxed = reserved == RdmPolicy::Relaxed || domain == QUARANTINE;
        let answer = self.handle.assign_device(domain.number(), device.to_u32()?, relaxed);
        asked(Hypercall::Assign(device), domain, answer)
    }

    fn deassign_device(&self, domain: DomainId, device: Sbdf) -> Result<(), HypercallError> {
        let answer = self.handle.deassign_device(domain.number(), device.to_u32()?);
        asked(Hypercall::Deassign(device), domain, answer)
    }

    fn iomem_permission(
        &self,
        domain: DomainId,
        frames: Frames,
        access: Access,
    ) -> Result<(), HypercallError> {
        let answer = self.handle.iomem_permission(domain.number(), frames, access == Access::Allow);
        asked(Hypercall::Iomem(frames, access), domain, answer)
    }

    fn ioport_permission(
        &self,
        domain: DomainId,
        ports: Ports,
        access: Access,
    ) -> Result<(), HypercallError> {
        let answer = self.handle.ioport_permission(domain.number(), ports, access == Access::Allow);
        asked(Hypercall::Ioport(ports, access), domain, answer)
    }

    fn map_pirq(&self, domain: DomainId, gsi: Gsi) -> Result<Pirq, HypercallError> {
        let call = Hypercall::MapPirq(gsi);
        let pirq = asked(call, domain, self.handle.map_pirq(domain.number(), gsi))?;
        u32::try_from(pirq).ok().and_then(Pirq::new).ok_or(HypercallError::Nonsense { call, domain })
    }

    fn unmap_pirq(&self, domain: DomainId, pirq: Pirq) -> Result<(), HypercallError> {
        asked(Hypercall::UnmapPirq(pirq), domain, self.handle.unmap_pirq(domain.number(), pirq))
    }

    fn irq_permission(&self, domain: DomainId, pirq: Pirq, access: Access) -> Result<(), HypercallError> {
        let answer = self.handle.irq_permission(domain.number(), pirq, access == Access::Allow);
        asked(Hypercall::Irq(pirq, access), domain, answer)
    }
}
