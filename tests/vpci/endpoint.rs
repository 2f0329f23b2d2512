//! The builder: what it refuses, by the rule that is broken.

use pcidevs::Errno;
use pcidevs::vpci::{Bar, BarFault, Endpoint, EndpointError, MsixFault, MsixPlace};

use crate::guest::Memory;

fn refused(endpoint: Endpoint) -> EndpointError {
    endpoint.build(Memory::new(0)).map(drop).unwrap_err()
}

fn new() -> Endpoint {
    Endpoint::new(1, 2)
}

#[test]
fn bars_that_cannot_be_are_refused_with_the_rule_they_break() {
    let cases = [
        (new().bar(6, Bar::memory32(16)), 6, BarFault::NoSuchSlot),
        (new().bar(0, Bar::memory32(24)), 0, BarFault::NoPowerOfTwo),
        (new().bar(0, Bar::memory32(0)), 0, BarFault::NoPowerOfTwo),
        (new().bar(0, Bar::memory32(8)), 0, BarFault::TooSmall),
        (new().bar(0, Bar::memory64(8)), 0, BarFault::TooSmall),
        (new().bar(0, Bar::io(2)), 0, BarFault::TooSmall),
        (new().bar(0, Bar::io(512)), 0, BarFault::TooLarge),
        (new().bar(0, Bar::io(64).prefetchable()), 0, BarFault::PrefetchableIo),
        (new().bar(5, Bar::memory64(16)), 5, BarFault::NoUpperHalf),
        (new().bar(1, Bar::memory32(16)).bar(0, Bar::memory64(16)), 0, BarFault::SlotTaken),
        (new().bar(0, Bar::memory64(16)).bar(1, Bar::memory32(16)), 1, BarFault::SlotTaken),
        (new().bar(2, Bar::io(4)).bar(2, Bar::io(4)), 2, BarFault::SlotTaken),
        (new().rom(1024), 6, BarFault::TooSmall),
        (new().rom(32 << 20), 6, BarFault::TooLarge),
        (new().rom(3000), 6, BarFault::NoPowerOfTwo),
    ];
    for (endpoint, bar, fault) in cases {
        let error = refused(endpoint);
        assert_eq!(error, EndpointError::Bar { bar, fault });
        assert_eq!(error.errno(), Errno::EINVAL);
    }
}

#[test]
fn msix_that_cannot_be_is_refused() {
    let place = |table_bar, table, pending| MsixPlace { table_bar, table, pending_bar: table_bar, pending };
    let memory = || new().bar(0, Bar::memory32(0x1000)).bar(1, Bar::io(64));
    let cases = [
        (memory().msix(0, place(0, 0, 0x800)), MsixFault::Vectors),
        (memory().msix(2049, place(0, 0, 0x800)), MsixFault::Vectors),
        (memory().msix(1, place(0, 4, 0x800)), MsixFault::Misaligned),
        (memory().msix(1, place(0, 0, 0x804)), MsixFault::Misaligned),
        (memory().msix(1, place(1, 0, 0x20)), MsixFault::NoMemoryBar),
        (memory().msix(1, place(2, 0, 0x20)), MsixFault::NoMemoryBar),
        (memory().msix(1, place(6, 0, 0x20)), MsixFault::NoMemoryBar),
        (memory().msix(1, place(0, 0xff8, 0)), MsixFault::Outside),
        (memory().msix(128, place(0, 0, 0x7f8)), MsixFault::Overlap),
    ];
    for (endpoint, fault) in cases {
        assert_eq!(refused(endpoint), EndpointError::Msix(fault));
    }
    assert!(memory().msix(128, place(0, 0, 0x800)).build(Memory::new(0)).is_ok());
}

#[test]
fn the_rest_of_what_cannot_be_is_refused() {
    assert_eq!(refused(new().class(1 << 24)), EndpointError::Class(1 << 24));
    assert_eq!(refused(new().pin(5)), EndpointError::Pin(5));
    assert_eq!(refused(new().pin(0)), EndpointError::Pin(0));
    for vectors in [0, 3, 33, 64] {
        assert_eq!(refused(new().msi(vectors)), EndpointError::MsiVectors(vectors));
    }
    assert_eq!(refused(new().vendor_capability(2)), EndpointError::VendorCapability(2));
    let full = (0..7).fold(new(), |endpoint, _| endpoint.vendor_capability(32));
    assert_eq!(refused(full), EndpointError::NoRoom { needed: 224 });
    let far_too_full = (0..300).fold(new(), |endpoint, _| endpoint.vendor_capability(255));
    assert_eq!(far_too_full.capabilities().count(), 300);
    assert!(matches!(refused(far_too_full), EndpointError::NoRoom { .. }));
    assert_eq!(
        refused(new().class(1 << 24).pin(9)),
        EndpointError::Class(1 << 24),
        "the first mistake is told"
    );
}

#[test]
fn capabilities_are_where_they_are_said_to_be_and_lead_to_each_other() {
    use pcidevs::platform::Width::Byte;
    let endpoint = new()
        .bar(0, Bar::memory32(0x1000))
        .power_management()
        .msi(1)
        .msix(1, MsixPlace { table_bar: 0, table: 0, pending_bar: 0, pending: 0x800 })
        .function_level_reset()
        .vendor_capability(5)
        .vendor_capability(16);
    let places: Vec<(u8, u16)> = endpoint.capabilities().collect();
    let mut function = endpoint.build(Memory::new(0x1000)).unwrap();
    let mut found = Vec::new();
    let mut next = function.config_read(0x34, Byte);
    while next != 0 {
        let at = u16::try_from(next).unwrap();
        found.push((u8::try_from(function.config_read(at, Byte)).unwrap(), at));
        next = function.config_read(at + 1, Byte);
    }
    assert_eq!(found, places);
    assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 5, 0x11, 0x13, 9, 9]);
}

#[test]
fn a_refusal_names_the_section_of_the_standard() {
    let place = MsixPlace { table_bar: 0, table: 4, pending_bar: 0, pending: 0 };
    let mistakes = [
        (new().bar(0, Bar::memory32(24)), "BAR 0: its size is no power of two (PCIe 6.0 §7.5.1.2.1)"),
        (new().msix(0, place), "MSI-X: there are 1 to 2048 vectors (PCIe 6.0 §7.7.2)"),
        (new().pin(5), "there is no interrupt pin 5 (PCIe 6.0 §7.5.1.1.13)"),
        (new().msi(3), "MSI cannot have 3 vectors (PCIe 6.0 §7.7.1.2)"),
    ];
    for (endpoint, text) in mistakes {
        assert_eq!(refused(endpoint).to_string(), text);
    }
}
