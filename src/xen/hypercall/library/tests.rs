//! What arrives in the library, and what becomes of its answers: on a stand-in that a C compiler makes of `standin.c`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use super::super::Unsuitable;
use super::*;

type Tested = Result<(), Box<dyn std::error::Error>>;

/// A folder with a library of its own: the loader gives the same file out twice.
struct StandIn {
    folder: PathBuf,
}

impl StandIn {
    /// `None` where there is no C compiler.
    fn new(name: &str) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let folder = std::env::temp_dir().join(format!("pcidevs-xenctrl-{name}-{}", process::id()));
        fs::create_dir_all(&folder)?;
        let stand_in = Self { folder };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/xen/hypercall/library/standin.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
            .arg(stand_in.folder.join("libxenctrl.so.4.17"))
            .arg(source)
            .status();
        match compiled {
            Ok(status) if status.success() => Ok(Some(stand_in)),
            Ok(status) => Err(format!("the stand-in does not compile: {status}").into()),
            Err(_) => {
                println!("skipped: there is no C compiler");
                Ok(None)
            }
        }
    }

    fn open(&self) -> Result<Libxenctrl, HypercallError> {
        Libxenctrl::open_among(&[], &[&self.folder])
    }

    fn fail(&self, call: &str, errno: i32) -> std::io::Result<()> {
        fs::write(self.folder.join("fail"), format!("{call} {errno}\n"))
    }

    /// What arrived since this was asked last.
    fn calls(&self) -> std::io::Result<Vec<String>> {
        let file = self.folder.join("calls");
        let calls = fs::read_to_string(&file)?.lines().map(str::to_owned).collect();
        fs::write(file, "")?;
        Ok(calls)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // Nothing depends on it; what stays is a temporary folder.
        let _removed = fs::remove_dir_all(&self.folder);
    }
}

const GUEST: DomainId = DomainId::new(1);

#[test]
fn every_argument_arrives() -> Tested {
    let Some(library) = StandIn::new("arguments")? else { return Ok(()) };
    let xen = library.open()?;
    assert_eq!(library.calls()?, ["open 0 0 0", "version 0 0", "getinfolist 0 1"]);
    assert!(xen.library().ends_with("libxenctrl.so.4.17"));

    let device: Sbdf = "0012:ab:1f.7".parse()?;
    xen.test_assign_device(GUEST, device)?;
    xen.assign_device(GUEST, device, RdmPolicy::Strict)?;
    xen.assign_device(GUEST, device, RdmPolicy::Relaxed)?;
    xen.assign_device(QUARANTINE, device, RdmPolicy::Strict)?;
    xen.deassign_device(QUARANTINE, device)?;
    let sbdf = "0x12abff";
    assert_eq!(
        library.calls()?,
        [
            format!("test_assign 1 {sbdf}"),
            format!("assign 1 {sbdf} 0"),
            format!("assign 1 {sbdf} 1"),
            format!("assign 32753 {sbdf} 1"),
            format!("deassign 32753 {sbdf}"),
        ]
    );

    let frames = Frames::new(0xf_ffff_ffff, 0x10_0000).ok_or("frames")?;
    xen.iomem_permission(GUEST, frames, Access::Allow)?;
    xen.iomem_permission(GUEST, frames, Access::Deny)?;
    let ports = Ports::new(0xc000, 0x4000).ok_or("ports")?;
    xen.ioport_permission(GUEST, ports, Access::Allow)?;
    xen.ioport_permission(GUEST, ports, Access::Deny)?;
    let pirq = xen.map_pirq(GUEST, Gsi::new(22).ok_or("line")?)?;
    assert_eq!(pirq.number(), 22);
    xen.irq_permission(GUEST, pirq, Access::Allow)?;
    xen.irq_permission(GUEST, pirq, Access::Deny)?;
    xen.unmap_pirq(GUEST, pirq)?;
    drop(xen);
    assert_eq!(
        library.calls()?,
        [
            "iomem 1 0xfffffffff 0x100000 1",
            "iomem 1 0xfffffffff 0x100000 0",
            "ioport 1 0xc000 0x4000 1",
            "ioport 1 0xc000 0x4000 0",
            "map_pirq 1 22 22",
            "irq 1 22 1",
            "irq 1 22 0",
            "unmap_pirq 1 22",
            "close 1",
        ]
    );
    Ok(())
}

#[test]
fn a_domain_is_read_from_its_bits() -> Tested {
    let Some(library) = StandIn::new("domains")? else { return Ok(()) };
    let xen = library.open()?;
    let id = DomainId::new;
    assert_eq!(xen.domain(GUEST)?, DomainInfo::guest(GUEST));
    assert_eq!(xen.domain(id(2))?.kind, DomainKind::Hvm);
    assert_eq!(xen.domain(id(3))?.kind, DomainKind::Pvh);
    assert_eq!(xen.domain(id(5))?.life, DomainLife::Dying);
    assert_eq!(xen.domain(id(6))?.life, DomainLife::ShutDown);
    assert_eq!(xen.domain(id(7))?.takes_devices(), Err(Unsuitable::Xenstore(id(7))));
    // The library would answer with the next one, and with none.
    assert_eq!(xen.domain(id(4)), Err(HypercallError::NoDomain(id(4))));
    assert_eq!(xen.domain(id(8)), Err(HypercallError::NoDomain(id(8))));

    library.fail("get_device_group", 95)?;
    assert_eq!(xen.domain(GUEST)?.passthrough, Passthrough::Disabled);
    library.fail("get_device_group", 1)?;
    assert_eq!(xen.domain(GUEST)?.passthrough, Passthrough::Unknown);
    library.fail("get_device_group", 3)?;
    assert_eq!(xen.domain(GUEST), Err(HypercallError::NoDomain(GUEST)));
    library.fail("getinfolist", 12)?;
    let (call, errno) = (Hypercall::Domain, Errno::ENOMEM);
    assert_eq!(xen.domain(GUEST), Err(HypercallError::Refused { call, domain: GUEST, errno }));
    Ok(())
}

#[test]
fn a_refusal_keeps_the_number_and_the_call() -> Tested {
    let Some(library) = StandIn::new("refusals")? else { return Ok(()) };
    let xen = library.open()?;
    let device: Sbdf = "0000:03:00.0".parse()?;
    library.fail("assign", 16)?;
    let refused = xen.assign_device(GUEST, device, RdmPolicy::Strict).err().ok_or("it was assigned")?;
    assert_eq!(refused.to_string(), "cannot assign 0000:03:00.0 to domain 1: EBUSY (another guest has it)");
    assert_eq!(refused.errno(), Errno::EBUSY);
    // A failure without a number is one all the same.
    library.fail("deassign", 0)?;
    assert_eq!(xen.deassign_device(GUEST, device).map_err(|error| error.errno()), Err(Errno::EIO));
    let line = Gsi::new(99).ok_or("line")?;
    let call = Hypercall::MapPirq(line);
    assert_eq!(xen.map_pirq(GUEST, line), Err(HypercallError::Nonsense { call, domain: GUEST }));
    library.calls()?;
    let far: Sbdf = "10000:03:00.0".parse()?;
    assert_eq!(xen.test_assign_device(GUEST, far), Err(HypercallError::Segment(far)));
    assert_eq!(library.calls()?, [""; 0]);
    Ok(())
}

#[test]
fn only_the_version_that_is_known_is_used() -> Tested {
    let Some(library) = StandIn::new("versions")? else { return Ok(()) };
    library.fail("open", 2)?;
    assert_eq!(library.open().err(), Some(HypercallError::Unreachable { errno: Errno::ENOENT }));
    library.fail("version", 0x0004_0012)?;
    assert_eq!(library.open().err(), Some(HypercallError::UnknownVersion { major: 4, minor: 18 }));
    library.fail("version", 1)?;
    assert_eq!(library.open().err(), Some(HypercallError::Unreachable { errno: Errno::EPERM }));
    library.fail("getinfolist", 13)?;
    let file = library.folder.join("libxenctrl.so.4.17");
    assert_eq!(library.open().err(), Some(HypercallError::WrongLibrary { library: file }));
    // Each handle that was opened was closed.
    let calls = library.calls()?;
    let count = |name: &str| calls.iter().filter(|call| call.starts_with(name)).count();
    assert_eq!((count("open"), count("close")), (4, 3));
    Ok(())
}
