//! What both hypervisors answer alike. The real one is asked where `tests/e2e/xen` has made guests for it and says so:
//!
//! | variable | what |
//! |---|---|
//! | `PCIDEVS_XEN_GUESTS` | numbers of four domains that do not run: two PV guests with passthrough, a PV guest without, and a PVH guest |
//! | `PCIDEVS_XEN_DEVICE` | a device in quarantine, with memory, ports and an interrupt line |

use std::collections::BTreeMap;
use std::env;
use std::fs;

use pcidevs::xen::hypercall::{
    Access, DomainInfo, DomainKind, Frames, Gsi, HypercallError, Hypervisor, Libxenctrl, Passthrough, Ports,
    QUARANTINE, Simulated, Unsuitable,
};
use pcidevs::xen::spec::RdmPolicy::{Relaxed, Strict};
use pcidevs::{DomainId, Errno, Sbdf};

use super::number;
use crate::Tested;

/// A hypervisor, with guests and a device for trying.
struct Bed {
    xen: Box<dyn Hypervisor>,
    guest: DomainId,
    other: DomainId,
    without: DomainId,
    pvh: DomainId,
    device: Sbdf,
    frames: Frames,
    ports: Ports,
    line: Gsi,
}

type Made<T> = Result<T, Box<dyn std::error::Error>>;

fn in_memory() -> Made<Bed> {
    let xen = Simulated::new();
    let [guest, other, without, pvh] = [1, 2, 3, 4].map(DomainId::new);
    let device = "0000:00:03.0".parse()?;
    for domain in [guest, other, without, pvh, DomainId::new(0)] {
        let mut info = DomainInfo::guest(domain);
        if domain == without {
            info.passthrough = Passthrough::Disabled;
        }
        if domain == pvh {
            info.kind = DomainKind::Pvh;
        }
        xen.create(info);
    }
    xen.plug(device);
    xen.assign_device(QUARANTINE, device, Relaxed)?;
    let frames = Frames::covering(0xfe00_0000, 0xfe00_0fff).ok_or("frames")?;
    let (ports, line) = (Ports::new(0xc000, 256).ok_or("ports")?, Gsi::new(20).ok_or("line")?);
    Ok(Bed { xen: Box::new(xen), guest, other, without, pvh, device, frames, ports, line })
}

/// The real one, where there is a bed for it.
fn real() -> Made<Option<Bed>> {
    let (Ok(guests), Ok(device)) = (env::var("PCIDEVS_XEN_GUESTS"), env::var("PCIDEVS_XEN_DEVICE")) else {
        println!("skipped: no Xen (tests/e2e/run xen)");
        return Ok(None);
    };
    let guests: Vec<u32> = guests.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [guest, other, without, pvh] =
        <[u32; 4]>::try_from(guests).map_err(|_| "four guests")?.map(DomainId::new);
    let folder = format!("/sys/bus/pci/devices/{device}");
    // A region's line: first and last address, flags, of which 0x100 are ports and 0x200 is memory.
    let mut regions = BTreeMap::new();
    for line in fs::read_to_string(format!("{folder}/resource"))?.lines() {
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16);
        let fields = line.split_whitespace().map(number).collect::<Result<Vec<_>, _>>()?;
        if let [first, last, flags] = fields[..] {
            regions.insert(flags & 0x300, (first, last));
        }
    }
    let (first, last) = *regions.get(&0x200).ok_or("memory")?;
    let frames = Frames::covering(first, last).ok_or("frames")?;
    let (first, last) = *regions.get(&0x100).ok_or("ports")?;
    let ports = Ports::new(first.try_into()?, (last - first + 1).try_into()?).ok_or("ports")?;
    let line = Gsi::new(fs::read_to_string(format!("{folder}/irq"))?.trim().parse()?).ok_or("line")?;
    let xen = Box::new(Libxenctrl::open()?);
    Ok(Some(Bed { xen, guest, other, without, pvh, device: device.parse()?, frames, ports, line }))
}

/// Each rule, in an order in which each leaves the bed as it was.
fn keeps_the_rules(bed: &Bed) -> Tested {
    domains_are_told_apart(bed)?;
    a_device_has_one_owner(bed)?;
    a_guest_without_passthrough_gets_nothing(bed);
    permissions_can_be_repeated(bed)?;
    interrupts_are_mapped_once(bed)?;
    who_is_not_there_gets_nothing(bed)
}

#[test]
fn the_one_in_memory_keeps_the_rules() -> Tested {
    keeps_the_rules(&in_memory()?)
}

#[test]
fn the_real_one_keeps_the_rules() -> Tested {
    real()?.map_or(Ok(()), |bed| keeps_the_rules(&bed))
}

/// No domain has this number.
const NOBODY: DomainId = DomainId::new(30000);

fn domains_are_told_apart(bed: &Bed) -> Tested {
    assert_eq!(bed.xen.domain(bed.guest)?, DomainInfo::guest(bed.guest));
    assert_eq!(bed.xen.domain(bed.other)?.takes_devices(), Ok(()));
    assert_eq!(bed.xen.domain(bed.without)?.takes_devices(), Err(Unsuitable::NoPassthrough(bed.without)));
    let (domain, kind) = (bed.pvh, DomainKind::Pvh);
    assert_eq!(bed.xen.domain(bed.pvh)?.takes_devices(), Err(Unsuitable::Kind { domain, kind }));
    assert_eq!(bed.xen.domain(DomainId::new(0))?.takes_devices(), Err(Unsuitable::Host));
    assert_eq!(bed.xen.domain(NOBODY), Err(HypercallError::NoDomain(NOBODY)));
    Ok(())
}

fn a_device_has_one_owner(bed: &Bed) -> Tested {
    let Bed { xen, guest, other, device, .. } = bed;
    let (guest, other, device) = (*guest, *other, *device);
    xen.test_assign_device(guest, device)?;
    xen.assign_device(guest, device, Relaxed)?;
    assert_eq!(number(xen.assign_device(other, device, Strict)), Err(Errno::EBUSY));
    assert_eq!(number(xen.assign_device(QUARANTINE, device, Strict)), Err(Errno::EBUSY));
    assert_eq!(number(xen.test_assign_device(other, device)), Err(Errno::EINVAL));
    assert_eq!(number(xen.deassign_device(other, device)), Err(Errno::ENODEV));
    assert_eq!(number(xen.deassign_device(QUARANTINE, device)), Err(Errno::ENODEV));
    // To quarantine, from there to the host, and back.
    xen.deassign_device(guest, device)?;
    xen.deassign_device(QUARANTINE, device)?;
    assert_eq!(number(xen.deassign_device(QUARANTINE, device)), Err(Errno::ENODEV));
    xen.assign_device(QUARANTINE, device, Relaxed)?;
    Ok(())
}

fn a_guest_without_passthrough_gets_nothing(bed: &Bed) {
    assert_eq!(number(bed.xen.test_assign_device(bed.without, bed.device)), Err(Errno::EOPNOTSUPP));
    assert_eq!(number(bed.xen.assign_device(bed.without, bed.device, Relaxed)), Err(Errno::EOPNOTSUPP));
    assert_eq!(number(bed.xen.deassign_device(bed.without, bed.device)), Err(Errno::EOPNOTSUPP));
}

fn permissions_can_be_repeated(bed: &Bed) -> Tested {
    for access in [Access::Allow, Access::Allow, Access::Deny, Access::Deny] {
        bed.xen.iomem_permission(bed.guest, bed.frames, access)?;
        bed.xen.ioport_permission(bed.guest, bed.ports, access)?;
    }
    Ok(())
}

fn interrupts_are_mapped_once(bed: &Bed) -> Tested {
    let pirq = bed.xen.map_pirq(bed.guest, bed.line)?;
    assert_eq!(pirq.number(), bed.line.number());
    assert_eq!(bed.xen.map_pirq(bed.guest, bed.line)?, pirq);
    for access in [Access::Allow, Access::Allow, Access::Deny, Access::Deny] {
        bed.xen.irq_permission(bed.guest, pirq, access)?;
    }
    bed.xen.unmap_pirq(bed.guest, pirq)?;
    assert_eq!(number(bed.xen.unmap_pirq(bed.guest, pirq)), Err(Errno::EINVAL));
    Ok(())
}

fn who_is_not_there_gets_nothing(bed: &Bed) -> Tested {
    let nowhere: Sbdf = "0000:fe:1f.7".parse()?;
    assert_eq!(number(bed.xen.test_assign_device(bed.guest, nowhere)), Err(Errno::EINVAL));
    assert_eq!(number(bed.xen.assign_device(bed.guest, nowhere, Relaxed)), Err(Errno::ENODEV));
    assert_eq!(number(bed.xen.deassign_device(bed.guest, nowhere)), Err(Errno::ENODEV));
    assert_eq!(number(bed.xen.assign_device(NOBODY, bed.device, Relaxed)), Err(Errno::ESRCH));
    assert_eq!(number(bed.xen.deassign_device(NOBODY, bed.device)), Err(Errno::ESRCH));
    assert_eq!(number(bed.xen.iomem_permission(NOBODY, bed.frames, Access::Allow)), Err(Errno::ESRCH));
    assert_eq!(number(bed.xen.ioport_permission(NOBODY, bed.ports, Access::Allow)), Err(Errno::ESRCH));
    assert_eq!(number(bed.xen.map_pirq(NOBODY, bed.line)), Err(Errno::ESRCH));
    Ok(())
}
