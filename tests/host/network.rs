//! The network identity of virtual functions: a guest has the one it was promised, and the host gets its own back.

use std::sync::Arc;

use pcidevs::Errno;
use pcidevs::host::fake::{Fake, FakeDriver, FakeFunction, Mishap};
use pcidevs::host::{
    Attachable, Guarding, HostError, HostManager, HostState, KeptNetwork, MacAddress, NetworkIdentity,
    SavedDevice, Tenure, Vlan,
};

use crate::scaffold::{
    CARD, PF, VF, VF_OTHER, at, check, detach, dump, guest, guests_network, hosts_network,
    machine_with_virtual, open, release, reopen, set, state,
};

fn named(text: &str) -> Attachable {
    Attachable::managed(at(text)).with_network(guests_network())
}

fn attach(manager: &HostManager, wanted: &[Attachable]) -> Result<(), HostError> {
    manager.attach(wanted, &guest("vm"), Guarding::On)
}

fn kept(fake: &Fake) -> KeptNetwork {
    fake.kept_network(at(VF)).expect("there is one")
}

fn guests_kept() -> KeptNetwork {
    let settings = guests_network().settings();
    KeptNetwork { mac: settings.mac.expect("one"), vlan: settings.vlan.expect("one") }
}

/// Network writes of a run, as they were written.
fn network_writes(fake: &Fake) -> Vec<String> {
    fake.take_written().into_iter().filter(|line| line.contains("ip link")).collect()
}

#[test]
fn an_attach_saves_the_hosts_identity_and_the_release_restores_it() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    attach(&manager, &[named(VF)]).expect("attached");
    assert_eq!(kept(&fake), guests_kept());
    let network = manager.record(at(VF)).expect("recorded").network.expect("saved");
    assert_eq!(
        (network.saved.mac, network.saved.vlan),
        (Some(hosts_network().mac), Some(hosts_network().vlan))
    );
    assert_eq!(manager.status(at(VF)).expect("known").network, Some(network));
    assert_eq!(release(&manager, &[VF], "vm").returned, set(&[VF]));
    assert_eq!(dump(&fake), dump(&machine_with_virtual()));
    check(&fake, &manager);
}

#[test]
fn it_is_set_after_the_reset_and_restored_after_the_reset() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    fake.take_written();
    attach(&manager, &[named(VF)]).expect("attached");
    release(&manager, &[VF], "vm");
    let written = fake.take_written();
    let steps: Vec<_> = written
        .iter()
        .filter_map(|line| match line {
            line if line.ends_with("/reset") => Some("reset"),
            line if line.contains("vf 0 mac 52:54") => Some("mac"),
            line if line.contains("vf 0 vlan 100") => Some("vlan"),
            line if line.contains("vf 0 mac 02:00") => Some("mac back"),
            line if line.contains("vf 0 vlan 7:3") => Some("vlan back"),
            line if line.contains("ixgbevf/bind") => Some("host driver"),
            _ => None,
        })
        .collect();
    assert_eq!(steps, ["reset", "mac", "vlan", "reset", "mac back", "vlan back", "host driver"]);
}

/// What is on the disk.
fn journals(fake: &Fake) -> Vec<String> {
    let stored = ["journal.a", "journal.b"].into_iter().filter_map(|name| fake.stored(name));
    stored.map(|bytes| String::from_utf8(bytes).expect("text")).collect()
}

#[test]
fn the_journal_has_it_before_the_first_write() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    // The first write that is not the journal's.
    fake.on_write(|_, what| (!what.contains("journal")).then_some(Mishap::Crash));
    attach(&manager, &[named(VF)]).expect_err("killed");
    assert!(fake.is_dead());
    let written = fake.kept_network(at(VF));
    assert_eq!(written, Some(hosts_network()));
    let texts = journals(&fake);
    let saved = hosts_network().mac.to_string();
    assert!(texts.iter().any(|text| text.contains(&saved) && text.starts_with("pcidevs-journal 2 ")));
}

#[test]
fn without_a_wanted_identity_nothing_is_read_or_written() {
    let fake = machine_with_virtual();
    // Whoever asks is refused.
    fake.refuse_at_interface(2, Some(Errno::EIO));
    let manager = open(&fake);
    fake.take_written();
    let nothing = NetworkIdentity::new(None, None).expect("nothing is no error");
    attach(&manager, &[Attachable::managed(at(VF)).with_network(nothing)]).expect("attached");
    assert_eq!(manager.record(at(VF)).expect("recorded").network, None);
    release(&manager, &[VF], "vm");
    attach(&manager, &[Attachable::managed(at(VF))]).expect("attached");
    release(&manager, &[VF], "vm");
    assert_eq!(network_writes(&fake), [""; 0]);
}

#[test]
fn what_is_not_asked_for_is_left_alone() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    let only_vlan = NetworkIdentity::new(None, Some("9:1".parse().expect("a VLAN"))).expect("a VLAN alone");
    attach(&manager, &[Attachable::managed(at(VF)).with_network(only_vlan)]).expect("attached");
    assert_eq!(kept(&fake).mac, hosts_network().mac);
    // Somebody gives it another address meanwhile, which is not ours to change.
    let mac: MacAddress = "02:00:00:00:00:77".parse().expect("a MAC");
    fake.keep_network(at(VF), KeptNetwork { mac, ..kept(&fake) });
    release(&manager, &[VF], "vm");
    assert_eq!(kept(&fake), KeptNetwork { mac, ..hosts_network() });
}

#[test]
fn it_is_undone_when_a_later_step_fails() {
    for wanted in [vec![named(VF), Attachable::managed(at(VF_OTHER))], vec![named(VF)]] {
        for detached in [false, true] {
            let fake = machine_with_virtual();
            let manager = open(&fake);
            if detached {
                detach(&manager, &[VF]);
            }
            let before = dump(&fake);
            let is_alone = wanted.len() == 1;
            let mut is_set = false;
            // The next member's probe, or the journal's "done".
            fake.on_write(move |_, what| {
                let is_later =
                    is_set && (is_alone || what.contains("drivers_probe") || what.contains("/bind"));
                is_set |= what.contains("vlan 100");
                is_later.then_some(Mishap::Error(Errno::EIO)).filter(|_| !what.contains("ip link"))
            });
            attach(&manager, &wanted).expect_err("a later step fails");
            let written = network_writes(&fake);
            assert!(written.iter().any(|line| line.contains("mac 52:54")), "{written:?}");
            fake.behave();
            assert_eq!(kept(&fake), hosts_network());
            if detached {
                assert_eq!(dump(&fake), before);
                assert_eq!(state(&manager, VF), HostState::Quarantine);
            }
        }
    }
}

#[test]
fn an_undo_that_cannot_restore_it_breaks_the_device_and_says_why() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    // The VLAN cannot be set, and the address not put back.
    fake.on_write(|_, what| {
        (what.contains("vlan 100") || what.contains("mac 02:00")).then_some(Mishap::Error(Errno::EACCES))
    });
    let error = attach(&manager, &[named(VF)]).expect_err("the VLAN is refused");
    assert!(error.to_string().contains("set its vlan 100: EACCES"), "{error}");
    assert!(error.to_string().contains("set its mac 02:00:00:00:00:05: EACCES"), "{error}");
    let HostState::Broken { reason } = state(&manager, VF) else { panic!("{:?}", state(&manager, VF)) };
    assert!(reason.contains("set its mac"), "{reason}");
    // Its driver was put back all the same.
    assert_eq!(fake.driver(at(VF)).as_deref(), Some("ixgbevf"));
    fake.behave();
    drop(manager);
    fake.restart();
    let (manager, _) = reopen(&fake);
    assert!(matches!(state(&manager, VF), HostState::Broken { .. }));
    manager.repair(at(VF)).expect("repaired");
    assert_eq!(kept(&fake), hosts_network());
    manager.reattach(&set(&[VF])).expect("reattached");
    assert_eq!(dump(&fake), dump(&machine_with_virtual()));
}

#[test]
fn a_repair_restores_it_and_fails_while_that_cannot_be() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    fake.on_write(|_, what| {
        (what.contains("vlan 100") || what.contains("mac 02:00")).then_some(Mishap::Error(Errno::EACCES))
    });
    attach(&manager, &[named(VF)]).expect_err("the VLAN is refused");
    manager.repair(at(VF)).expect_err("the address as well");
    assert!(matches!(state(&manager, VF), HostState::Broken { .. }));
    fake.behave();
    manager.repair(at(VF)).expect("repaired");
    assert_eq!((kept(&fake), state(&manager, VF)), (hosts_network(), HostState::Quarantine));
    assert_eq!(manager.record(at(VF)).expect("detached").network, None);
    manager.reattach(&set(&[VF])).expect("reattached");
    assert_eq!(dump(&fake), dump(&machine_with_virtual()));
}

#[test]
fn the_next_guest_that_asks_for_none_has_the_hosts() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    attach(&manager, &[named(VF)]).expect("attached");
    // Nothing can be asked or set.
    fake.refuse_at_interface(2, Some(Errno::EIO));
    manager.release(&set(&[VF]), &guest("vm")).expect("the guest gets rid of it");
    assert_eq!((kept(&fake), state(&manager, VF)), (guests_kept(), HostState::Deferred));
    fake.refuse_at_interface(2, None);
    attach(&manager, &[Attachable::managed(at(VF))]).expect("attached");
    assert_eq!((kept(&fake), manager.record(at(VF)).expect("a guest's").network), (hosts_network(), None));
    release(&manager, &[VF], "vm");
    assert_eq!(dump(&fake), dump(&machine_with_virtual()));
}

#[test]
fn a_release_that_cannot_restore_it_leaves_it_due_and_nobody_gets_the_device_without() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    attach(&manager, &[named(VF)]).expect("attached");
    fake.on_write(|_, what| what.contains("ip link").then_some(Mishap::Error(Errno::EIO)));
    // The guest gets rid of it.
    let released = manager.release(&set(&[VF]), &guest("vm")).expect("released");
    assert!(released.failures.iter().any(|failure| failure.what.contains("set its mac")), "{released:?}");
    assert_eq!(released.failed.len(), 1, "{released:?}");
    assert_eq!(state(&manager, VF), HostState::Deferred);
    attach(&manager, &[Attachable::managed(at(VF))]).expect_err("it is still the other guest's");
    manager.reattach(&set(&[VF])).expect("tried").failed.pop().expect("the host neither");
    check(&fake, &manager);
    drop(manager);
    fake.behave();
    fake.restart();
    // Also after a restart.
    let (manager, _) = reopen(&fake);
    assert_eq!(kept(&fake), guests_kept());
    assert_eq!(manager.reattach(&set(&[VF])).expect("reattached").returned, set(&[VF]));
    assert_eq!(dump(&fake), dump(&machine_with_virtual()));
}

#[test]
fn the_next_guest_does_not_make_the_first_ones_identity_the_hosts() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    attach(&manager, &[named(VF)]).expect("attached");
    fake.on_write(|_, what| what.contains("ip link").then_some(Mishap::Error(Errno::EIO)));
    manager.release(&set(&[VF]), &guest("vm")).expect("released");
    fake.behave();
    let mac: MacAddress = "52:54:00:00:00:02".parse().expect("a MAC");
    let other = NetworkIdentity::new(Some(mac), None).expect("assignable");
    manager
        .attach(&[Attachable::managed(at(VF)).with_network(other)], &guest("other"), Guarding::On)
        .expect("attached");
    // Its own address, and the host's VLAN.
    assert_eq!(kept(&fake), KeptNetwork { mac, ..hosts_network() });
    check(&fake, &manager);
    release(&manager, &[VF], "other");
    assert_eq!(dump(&fake), dump(&machine_with_virtual()));
}

#[test]
fn a_release_that_is_cut_off_and_a_guest_that_keeps_it_agree() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    attach(&manager, &[named(VF)]).expect("attached");
    fake.take_written();
    // Killed once the host's address is back, before the journal says that the guest is rid of it.
    fake.on_write(|_, what| what.contains("vlan 7:3").then_some(Mishap::Crash));
    let _killed = manager.release(&set(&[VF]), &guest("vm"));
    assert!(fake.is_dead());
    assert_eq!(kept(&fake).mac, hosts_network().mac);
    drop(manager);
    fake.behave();
    fake.restart();
    let (manager, _) = reopen(&fake);
    assert_eq!(manager.record(at(VF)).expect("known").tenure, Tenure::Guest(guest("vm")));
    assert_eq!(kept(&fake), guests_kept());
    release(&manager, &[VF], "vm");
    assert_eq!(dump(&fake), dump(&machine_with_virtual()));
}

/// An attach that must not write anything.
fn refused(fake: &Fake, wanted: Attachable) -> HostError {
    let manager = open(fake);
    fake.take_written();
    let error = attach(&manager, &[wanted]).expect_err("refused");
    assert_eq!(fake.take_written(), [""; 0], "{error}");
    error
}

#[test]
fn what_is_no_virtual_function_of_a_network_card_is_refused_before_the_first_write() {
    let fake = machine_with_virtual();
    assert_eq!(refused(&fake, named(CARD)), HostError::NotVirtual(at(CARD)));
    let bare = machine_with_virtual();
    let pf = at("0000:07:00.0");
    bare.add_driver("nic", FakeDriver { makes_vfs: true, ..FakeDriver::of((0x8086, 0x2000)) });
    bare.add(pf, FakeFunction { total_vfs: 1, ..FakeFunction::endpoint((0x8086, 0x2000), 16) });
    bare.write_as_somebody("bus/pci/devices/0000:07:00.0/sriov_numvfs", "1").expect("switched on");
    let error = refused(&bare, named("0000:07:10.0"));
    assert_eq!(error, HostError::NoInterface { device: at("0000:07:10.0"), physical_function: pf });
    assert_eq!(error.errno(), Errno::EOPNOTSUPP);
}

#[test]
fn a_driver_that_keeps_nothing_is_refused_before_the_first_write() {
    let fake = machine_with_virtual();
    fake.refuse_at_interface(2, Some(Errno::EOPNOTSUPP));
    let error = refused(&fake, named(VF));
    assert!(error.to_string().contains(&format!("ask {PF} for its network identity: EOPNOTSUPP")), "{error}");
    assert_eq!(error.errno(), Errno::EOPNOTSUPP);
    let manager = open_again(&fake);
    assert_eq!(state(&manager, VF), HostState::Host);
}

fn open_again(fake: &Fake) -> HostManager {
    fake.restart();
    open(fake)
}

#[test]
fn an_interface_that_knows_no_virtual_functions_is_passed_over() {
    // An embedded switch: its ports are interfaces of the same function, and come first by name.
    let fake = machine_with_virtual();
    let port = fake.add_interface(at(PF), "a-port");
    fake.refuse_at_interface(port, Some(Errno::EOPNOTSUPP));
    let manager = open(&fake);
    attach(&manager, &[named(VF)]).expect("attached");
    assert_eq!(kept(&fake), guests_kept());
}

#[test]
fn an_interface_that_is_renamed_is_found_again() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    attach(&manager, &[named(VF)]).expect("attached");
    fake.rename_interface(2, "eth9");
    release(&manager, &[VF], "vm");
    assert_eq!(kept(&fake), hosts_network());
}

#[test]
fn each_virtual_function_has_its_own() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    attach(&manager, &[named(VF_OTHER)]).expect("attached");
    assert_eq!((kept(&fake), fake.kept_network(at(VF_OTHER))), (hosts_network(), Some(guests_kept())));
    release(&manager, &[VF_OTHER], "vm");
    // Nobody had set one, and nobody has.
    assert_eq!(fake.kept_network(at(VF_OTHER)), Some(KeptNetwork::default()));
}

#[test]
fn a_driver_that_only_says_that_it_has_set_it_is_not_believed() {
    let fake = machine_with_virtual();
    fake.deafen_interface(2);
    let manager = open(&fake);
    let error = attach(&manager, &[named(VF)]).expect_err("nothing is set");
    assert!(error.to_string().contains("set its mac 52:54:00:00:00:01: it is not so: EIO"), "{error}");
    assert_eq!((dump(&fake), state(&manager, VF)), (dump(&machine_with_virtual()), HostState::Host));
}

#[test]
fn what_could_not_be_put_back_is_not_taken() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    let before = dump(&fake);
    let refuses_zero = |what: &str| what.contains("mac 00:00").then_some(Mishap::Error(Errno::EINVAL));
    fake.on_write(move |_, what| refuses_zero(what));
    let error = attach(&manager, &[named(VF_OTHER)]).expect_err("zeros are refused");
    assert!(error.to_string().contains("set one by hand before the attach: EINVAL"), "{error}");
    assert_eq!((dump(&fake), state(&manager, VF_OTHER)), (before, HostState::Host));
    assert_eq!(fake.kept_network(at(VF_OTHER)), Some(KeptNetwork::default()));
    // With one it goes there and back.
    fake.keep_network(at(VF_OTHER), hosts_network());
    attach(&manager, &[named(VF_OTHER)]).expect("attached");
    assert_eq!(release(&manager, &[VF_OTHER], "vm").returned, set(&[VF_OTHER]));
    assert_eq!(fake.kept_network(at(VF_OTHER)), Some(hosts_network()));
}

#[test]
fn what_somebody_has_restored_already_is_not_written_again() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    attach(&manager, &[named(VF)]).expect("attached");
    fake.keep_network(at(VF), hosts_network());
    fake.take_written();
    release(&manager, &[VF], "vm");
    assert_eq!(network_writes(&fake), [""; 0]);
}

#[test]
fn a_saved_guest_has_it() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    attach(&manager, &[named(VF)]).expect("attached");
    let saved = manager.saved_devices(&guest("vm"));
    assert_eq!(saved[0].network, Some(guests_network()));
    let text = serde_json::to_string(&saved[0]).expect("saved");
    assert_eq!(serde_json::from_str::<SavedDevice>(&text).expect("read"), saved[0]);
    // What was saved before there was such a thing.
    let old = r#"{"address":"0000:01:00.0","managed":true,"driver":"vfio-pci"}"#;
    assert_eq!(serde_json::from_str::<SavedDevice>(old).expect("read").network, None);
    let group = text.replace("52:54", "53:54");
    serde_json::from_str::<SavedDevice>(&group).expect_err("no card has a group's address");
}

#[test]
fn a_journal_without_network_identities_is_one_that_older_versions_read() {
    let fake = machine_with_virtual();
    let manager = open(&fake);
    attach(&manager, &[named(VF)]).expect("attached");
    release(&manager, &[VF], "vm");
    detach(&manager, &[CARD]);
    drop(manager);
    let texts = journals(&fake);
    assert_eq!(texts.len(), 2);
    for text in &texts {
        assert!(text.starts_with("pcidevs-journal 1 ") && !text.contains("network"), "{text}");
    }
    // And such a one is read: it is what older versions wrote.
    fake.restart();
    let (manager, recovery) = reopen(&fake);
    assert_eq!((recovery.damage, state(&manager, CARD)), (None, HostState::Quarantine));
}

#[test]
fn a_dry_run_shows_it_and_changes_nothing() {
    let fake = machine_with_virtual();
    let copy = Fake::copy_of(Arc::new(fake.clone()), &fake).expect("copied");
    let manager = open(&copy);
    copy.take_written();
    attach(&manager, &[named(VF)]).expect("attached");
    assert_eq!(
        network_writes(&copy),
        ["ip link set enp6s0 vf 0 mac 52:54:00:00:00:01", "ip link set enp6s0 vf 0 vlan 100"]
    );
    assert_eq!(kept(&fake), hosts_network());
    // The virtual functions are of the copy as well, so what they forbid is.
    let error =
        manager.attach(&[Attachable::managed(at(PF))], &guest("vm"), Guarding::On).expect_err("has some");
    assert_eq!(error, HostError::HasVirtualFunctions { device: at(PF), count: 2 });
}

#[test]
fn hostile_folders_name_no_keeper() {
    use pcidevs::host::Root;
    let fake = machine_with_virtual();
    let index = format!("bus/pci/devices/{PF}/net/enp6s0/ifindex");
    for text in ["", "0", "-1", "99999999999", "two", "\u{0}"] {
        fake.put_file(Root::Sys, &index, text);
        let error = refused(&fake, named(VF));
        assert!(matches!(error, HostError::NoInterface { .. }), "{text:?}: {error}");
        fake.restart();
    }
    let fake = machine_with_virtual();
    // virtfn1 leads to the first one, and virtfn0 nowhere.
    fake.put_link(Root::Sys, &format!("bus/pci/devices/{PF}/virtfn0"), "../../nowhere");
    assert_eq!(refused(&fake, named(VF)), HostError::NotVirtual(at(VF)));
    fake.restart();
    fake.put_link(Root::Sys, &format!("bus/pci/devices/{PF}/virtfn1"), &format!("../{VF}"));
    let manager = open(&fake);
    attach(&manager, &[named(VF)]).expect("whatever its number is");
    let written = network_writes(&fake);
    assert!(written.iter().all(|line| line.starts_with("ip link set enp6s0 vf 1 ")), "{written:?}");
    assert_eq!(written.last().expect("written"), "ip link set enp6s0 vf 1 vlan 100");
}

#[test]
fn texts_that_are_no_mac_address_are_refused() {
    for text in [
        "",
        ":",
        "52:54:00:00:00",
        "52:54:00:00:00:01:02",
        "52:54:00:00:00:1",
        "52:54:00:00:00:001",
        "52-54-00-00-00-01",
        "525400000001",
        "+2:54:00:00:00:01",
        "52:54:00:00:00:0g",
        " 52:54:00:00:00:01",
        "52:54:00:00:00:01\n",
        "52:54:00:00:00:é",
    ] {
        text.parse::<MacAddress>().expect_err(text);
    }
    let mac = |text: &str| NetworkIdentity::new(Some(text.parse().expect("six pairs")), None);
    mac("00:00:00:00:00:00").expect_err("zero");
    mac("ff:ff:ff:ff:ff:ff").expect_err("broadcast");
    mac("01:00:5e:00:00:01").expect_err("a group");
    mac("02:00:00:00:00:00").expect("local, and unicast");
}

#[test]
fn texts_that_are_no_vlan_are_refused() {
    for text in
        ["", "4095", "-1", "+1", "1:8", "1:", ":1", "1:1:", "1:1:802.1q", "1:1:802.1ad:1", "65536", "1 "]
    {
        text.parse::<Vlan>().expect_err(text);
    }
    for (text, shown) in
        [("0", "0"), ("4094", "4094"), ("007:0", "7"), ("5:7", "5:7"), ("5:0:802.1ad", "5:0:802.1ad")]
    {
        assert_eq!(text.parse::<Vlan>().expect(text).to_string(), shown);
    }
}
