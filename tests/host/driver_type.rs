//! Seed 004: configuration keeps `default`; what that is, is decided in the transition and recorded with the guest.

use std::fmt::Write;

use pcidevs::host::fake::{FakeDriver, FakeFunction};
use pcidevs::host::{
    Attachable, DriverChoice, DriverName, DriverType, Guarding, HostError, InvalidName, Root,
    UnsupportedDriver,
};

use crate::scaffold::{CARD, NIC, at, detach, guest, machine, open, set};

const ALIASES: &str = "6.12.0-fake/modules.alias";
const IGB_VARIANT: &str = "alias vfio_pci:v00008086d00001533sv*sd*bc*sc*i* igb_vfio_pci\n";

#[test]
fn reading_a_configuration_and_writing_it_back_changes_nothing() {
    for text in ["default", "vfio", "xen", "mlx5_vfio_pci", "vfio-pci", "VFIO"] {
        assert_eq!(text.parse::<DriverType>().expect(text).to_string(), text);
    }
    assert_eq!(DriverType::default(), DriverType::Default);
}

#[test]
fn names_that_are_none_are_refused() {
    let long = "x".repeat(64 << 10);
    let texts = ["", "a/b", "..", ".", "a\nb", "a\0b", "a b", &long, "x\u{7f}", "ä"];
    for text in texts {
        assert!(text.parse::<DriverType>().is_err(), "{:?}", &text[..text.len().min(9)]);
    }
    assert_eq!("a\nb".parse::<DriverName>(), Err(InvalidName::Character('\n')));
    for text in ["", "a\nb", &long] {
        assert!(pcidevs::host::GuestName::new("qemu", text).is_err());
        assert!(pcidevs::host::GuestName::new(text, "vm").is_err());
    }
}

#[test]
fn a_type_that_the_platform_cannot_do_is_refused_before_anything_is_touched() {
    let fake = machine();
    let manager = open(&fake);
    fake.take_written();
    for text in ["xen", "igb", "pci-stub"] {
        let wanted: DriverType = text.parse().expect("a type");
        let unsupported = UnsupportedDriver(wanted.clone());
        assert_eq!(wanted.check(), Err(unsupported.clone()), "when the configuration is read");
        let refused = manager.detach(&set(&[CARD]), &wanted, Guarding::On);
        assert_eq!(refused, Err(HostError::UnsupportedDriver(unsupported)));
    }
    assert_eq!(fake.take_written(), [""; 0]);
}

#[test]
fn in_driver_names_a_dash_and_an_underscore_are_the_same() {
    let name = |text: &str| text.parse::<DriverName>().expect("a name");
    assert_eq!(name("vfio_pci"), name("vfio-pci"));
    assert_ne!(name("vfio_pci"), name("vfio-pc"));
    assert!(name("vfio_pci").is_stub() && name("mlx5-vfio-pci").is_stub() && !name("vmxnet3").is_stub());
    let fake = machine();
    let manager = open(&fake);
    manager.detach(&set(&[CARD]), &DriverType::Named(name("vfio_pci")), Guarding::On).expect("detached");
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("vfio-pci"), "as the kernel spells it");
}

#[test]
fn the_best_variant_driver_is_taken_and_vfio_pci_where_there_is_none() {
    let fake = machine();
    fake.put_file(Root::Modules, ALIASES, IGB_VARIANT);
    let manager = open(&fake);
    // Its module cannot be loaded: then the driver that every device can have.
    detach(&manager, &[CARD]);
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("vfio-pci"));
    manager.reattach(&set(&[CARD])).expect("reattached");
    fake.add_module("igb_vfio_pci", FakeDriver::vfio());
    detach(&manager, &[CARD]);
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("igb_vfio_pci"));
    assert_eq!(manager.record(at(CARD)).expect("ours").stub.as_str(), "igb_vfio_pci");
    manager.reattach(&set(&[CARD])).expect("reattached");
    manager.detach(&set(&[CARD]), &"vfio-pci".parse().expect("a type"), Guarding::On).expect("detached");
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("vfio-pci"), "by name");
}

#[test]
fn a_list_of_aliases_of_8_mib_is_read_and_one_without_end_is_not() {
    let fake = machine();
    fake.add_driver("igb_vfio_pci", FakeDriver::vfio());
    let mut aliases = String::new();
    while aliases.len() < 8 << 20 {
        writeln!(aliases, "alias vfio_pci:v*d{:08X}sv*sd*bc*sc*i* other_{}", aliases.len(), aliases.len())
            .expect("written");
    }
    aliases.push_str(IGB_VARIANT);
    fake.put_file(Root::Modules, ALIASES, &aliases);
    let manager = open(&fake);
    detach(&manager, &[CARD]);
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("igb_vfio_pci"));
    manager.reattach(&set(&[CARD])).expect("reattached");
    fake.put_file(Root::Modules, ALIASES, aliases.repeat(3));
    detach(&manager, &[CARD]);
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("vfio-pci"));
}

#[test]
fn default_is_decided_in_the_transition_and_a_restore_does_not_decide_again() {
    let fake = machine();
    fake.add_driver("igb_vfio_pci", FakeDriver::vfio());
    let configured = Attachable::managed(at(CARD));
    let manager = open(&fake);
    manager.attach(std::slice::from_ref(&configured), &guest("vm"), Guarding::On).expect("attached");
    let saved = manager.saved_devices(&guest("vm"));
    assert_eq!((saved.len(), saved[0].driver.as_str(), saved[0].managed), (1, "vfio-pci", true));
    assert_eq!(
        configured.driver,
        DriverChoice::Configured(DriverType::Default),
        "the configuration keeps it"
    );
    manager.release(&set(&[CARD]), &guest("vm")).expect("released");
    // The next kernel knows better. A new start takes that; a restore does not.
    fake.put_file(Root::Modules, ALIASES, IGB_VARIANT);
    let text = serde_json::to_string(&saved[0]).expect("written");
    let restored: pcidevs::host::SavedDevice = serde_json::from_str(&text).expect("read");
    let restored = Attachable { driver: DriverChoice::Recorded(restored.driver), ..configured.clone() };
    manager.attach(&[restored], &guest("vm"), Guarding::On).expect("attached");
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("vfio-pci"));
    manager.release(&set(&[CARD]), &guest("vm")).expect("released");
    manager.attach(&[configured], &guest("vm"), Guarding::On).expect("attached");
    assert_eq!(fake.driver(at(CARD)).as_deref(), Some("igb_vfio_pci"));
}

#[test]
fn a_driver_that_is_not_there_is_said_to_be_missing() {
    let fake = machine();
    let manager = open(&fake);
    let wanted: DriverType = "mlx5_vfio_pci".parse().expect("a type");
    let refused = manager.detach(&set(&[CARD]), &wanted, Guarding::On).expect_err("not loaded");
    assert!(refused.to_string().contains("there is no driver mlx5_vfio_pci: load its module"), "{refused}");
    assert!(manager.record(at(CARD)).is_none());
}

#[test]
fn a_device_that_is_detached_with_one_driver_is_not_given_with_another() {
    let fake = machine();
    fake.add_driver("igb_vfio_pci", FakeDriver::vfio());
    fake.add(at("0000:05:00.0"), FakeFunction::endpoint(NIC, 20));
    let manager = open(&fake);
    detach(&manager, &[CARD]);
    let choice = DriverChoice::Configured("igb_vfio_pci".parse().expect("a type"));
    let wanted = Attachable { driver: choice, ..Attachable::detached(at(CARD)) };
    let refused = manager.attach(&[wanted], &guest("vm"), Guarding::On).expect_err("another");
    assert!(matches!(refused, HostError::OtherDriver { .. }), "{refused}");
}
