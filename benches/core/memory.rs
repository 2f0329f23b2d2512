//! What a device costs beside its own state, in bytes asked of the allocator.

use pcidevs::address::Segment;
use pcidevs::{DomainId, Holder, Member, Owner, Registry, Sbdf};

use crate::devices::{self, Device};
use crate::measuring::allocation::bytes_kept;
use crate::measuring::requirement::Bytes;

const ALL: usize = 65536;

/// Bytes for each device over `D`, with these devices in a registry that had none.
fn each<D>(addresses: &[Sbdf], new: impl Fn() -> D) -> f64 {
    let (registry, empty) = bytes_kept(|| Registry::<D>::new().expect("memory"));
    let ((), grown) = bytes_kept(|| {
        for address in addresses {
            registry.add(*address, new()).expect("each address once");
        }
    });
    // What an empty registry costs is its own row; it is counted here too, as it is not free either.
    (empty + grown) as f64 / addresses.len() as f64 - size_of::<D>() as f64
}

fn dense() -> Vec<Sbdf> {
    devices::addresses(ALL)
}

/// 256 segments of 256 buses with one device each.
fn one_a_bus() -> Vec<Sbdf> {
    (0..256).flat_map(|segment| (0..256).map(move |bus| at(segment, bus, 0))).collect()
}

fn at(segment: u32, bus: u16, devfn: u16) -> Sbdf {
    Sbdf::from_bdf(Segment::new(segment), bus << 8 | devfn)
}

/// A registry whose lists have room, so that what is counted next is not their growth.
fn with_room(devices: u16) -> Registry<Device> {
    let registry = devices::registry(&(0..devices).map(|bdf| at(0, 0, bdf)).collect::<Vec<_>>());
    (0..devices).for_each(|bdf| registry.remove_device(at(0, 0, bdf)).expect("unused"));
    registry
}

/// The table of one segment: its first device against a device on one more bus.
fn segment(number: u32) -> f64 {
    let registry = with_room(8);
    let add = |address| {
        bytes_kept(|| registry.add(address, Device::at(address)).expect("each address once")).1 as f64
    };
    let first = add(at(number, 0, 0));
    first - add(at(number, 1, 0))
}

/// A guest's tables for this many devices on a bus: the domain with its first bus, and a further bus.
fn domain(devices: u16) -> (f64, f64) {
    let registry = with_room(0);
    for bus in [1, 2] {
        for bdf in 0..devices {
            registry.add(at(0, bus, bdf), Device::at(at(0, bus, bdf))).expect("each address once");
        }
    }
    let give = |bus: u16, to: Owner, guest_bus: u16| {
        let member = |bdf| Member::at(at(0, bus, bdf), at(0, guest_bus, bdf));
        let members: Vec<_> = (0..devices).map(member).collect();
        bytes_kept(|| registry.move_devices(&members, to).expect("nobody is in the way")).1 as f64
    };
    let (guest, empty) = bytes_kept(|| registry.create_domain(DomainId::new(2)).expect("the second"));
    let guest = Owner::Guest(guest.id());
    // Elsewhere and back, first: then the names and the lists have what they keep, which is in other rows.
    for (to, elsewhere) in [(guest, 8), (Owner::Host, 0)] {
        give(1, to, elsewhere);
        give(2, to, elsewhere + 16);
    }
    let first = give(1, guest, 32);
    let second = give(2, guest, 33);
    (empty as f64 + first, second)
}

/// What the first name costs a device, which it keeps.
fn first_name() -> f64 {
    let registry: Registry<Device> = devices::registry(&devices::addresses(1));
    let (_, bytes) = bytes_kept(|| registry.hold(Sbdf::default(), Holder::Named("bench")).map(drop));
    bytes as f64
}

pub(crate) fn count() -> Vec<Bytes> {
    let dense = dense();
    let device = || Device { registers: [0; 16] };
    let (_, empty) = bytes_kept(|| Registry::<Device>::new().expect("memory"));
    let (few, few_more) = domain(1);
    let (full, full_more) = domain(256);
    vec![
        Bytes::new("a device, dense segment, state 64 bytes", each(&dense, device), Some(112.0)),
        Bytes::new("a device, dense segment, state 0 bytes", each(&dense, || ()), Some(112.0)),
        Bytes::new("a device, dense segment, state 8 bytes", each(&dense, || 0_u64), Some(112.0)),
        Bytes::new("a device, dense segment, state 72 bytes", each(&dense, || [0_u64; 9]), Some(112.0)),
        Bytes::new("a device, dense segment, state 256 bytes", each(&dense, || [0_u64; 32]), Some(112.0)),
        Bytes::new("a device, one on each bus, state 64 bytes", each(&one_a_bus(), device), Some(600.0)),
        Bytes::new("an empty registry", empty as f64, Some(8192.0)),
        Bytes::new("a segment", segment(1), Some(4096.0)),
        Bytes::new("a segment with a five-digit number", segment(0x10000), Some(4096.0)),
        Bytes::new("a domain with its first bus, 1 device", few, None),
        Bytes::new("a domain's table for one more bus, 1 device", few_more, Some(3072.0)),
        Bytes::new("a domain with its first bus, 256 devices", full, None),
        Bytes::new("a domain's table for one more bus, 256 devices", full_more, Some(3072.0)),
        Bytes::new("a device's first name (kept)", first_name(), None),
    ]
}
