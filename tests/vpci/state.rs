//! Saving a function's state and restoring it into another one of its kind.

use pcidevs::Errno;
use pcidevs::device::PortType;
use pcidevs::platform::Width::{Byte, Dword, Word};
use pcidevs::vpci::{Bar, Endpoint, Function, RestoreError, RestoreFailed};
use proptest::prelude::*;

use crate::guest::{Guest, Memory, load, nic};

fn rich() -> Function {
    let rich = nic().bar(2, Bar::io(64)).rom(0x800).msi(4).power_management();
    rich.express(PortType::RootComplexEndpoint).function_level_reset().build(Memory::new(0x4000)).unwrap()
}

fn all(function: &mut Function) -> Vec<u32> {
    (0..1024).map(|dword| function.config_read(dword * 4, Dword)).collect()
}

#[test]
fn a_restored_function_is_mapped_routed_and_pending_as_the_saved_one_was() {
    let old = Guest::new();
    let at = old.plug("00:03.0", nic().build(Memory::new(0x4000)).unwrap());
    old.write(at, 0x10, Dword, 0xc000_0000);
    old.write(at, 4, Word, 6);
    old.write(at, 0x3c, Byte, 5);
    for (vector, mask) in [(0, 0), (1, 1_u32)] {
        for (offset, value) in [(0, 0xfee0_0000), (8, vector), (12, mask)] {
            let offset = 0x2000 + u64::from(vector) * 16 + offset;
            assert!(old.bus.bar_write(at, 0, offset, &value.to_le_bytes()).wait());
        }
    }
    old.write(at, 0x42, Word, 1 << 15);
    assert!(old.bus.bar_write(at, 0, 0, &[1]).wait(), "raises vector 1, which is masked");
    let own = "80:03.0".parse().unwrap();
    let state = old.registry.lock(own).unwrap().as_ref().unwrap().save().unwrap();

    let new = Guest::new();
    assert_eq!(new.plug("00:03.0", nic().build(Memory::new(0x4000)).unwrap()), at);
    assert!(new.bus.restore(at, &state).unwrap().wait());
    let story = [
        "power D0",
        "map 0000:80:03.0.0 +0x0 at 0xc0000000 for 0x2000",
        "route 0 to 0xfee00000 0x0",
        "bus master On",
    ];
    assert_eq!(new.wiring.story(), story);
    for offset in (0..256).step_by(4) {
        assert_eq!(new.read(at, offset, Dword), old.read(at, offset, Dword), "{offset:#x}");
    }
    assert_eq!(load(&mut new.bus.vcpu(), 0xc000_3000, 8), Some(2), "still pending");
    assert_eq!(load(&mut new.bus.vcpu(), 0xc000_0000, 1), Some(1), "the device's own state");
    assert!(matches!(new.bus.restore(at, &state), Err(RestoreFailed::State(RestoreError::Mapped))));
    assert_eq!(new.bus.restore("00:04.0".parse().unwrap(), &state).unwrap_err().errno(), Errno::ENODEV);
}

#[test]
fn a_restored_function_that_is_no_bus_master_is_none_outside_either() {
    let guest = Guest::new();
    let at = guest.plug("00:03.0", nic().build(Memory::new(0x4000)).unwrap());
    let state = nic().build(Memory::new(0x4000)).unwrap().save().unwrap();
    guest.write(at, 4, Word, 4);
    assert!(guest.bus.restore(at, &state).unwrap().wait());
    assert_eq!(guest.wiring.story(), ["bus master On", "power D0", "bus master Off"]);
}

#[test]
fn what_is_no_state_of_this_function_is_refused_and_changes_nothing() {
    let mut function = rich();
    let state = function.save().unwrap();
    let before = all(&mut function);
    let mut refused = |state: &[u8]| {
        let error = function.restore(state).map(drop).unwrap_err();
        assert_eq!(all(&mut function), before);
        error
    };
    for length in 0..state.len() {
        assert_eq!(refused(&state[..length]), RestoreError::Malformed, "{length} bytes");
    }
    let mut longer = state.clone();
    longer.push(0);
    assert_eq!(refused(&longer), RestoreError::Malformed);
    let mut newer = state.clone();
    newer[4] = 2;
    assert_eq!(refused(&newer), RestoreError::Version(2));
    let other = Endpoint::new(1, 2).build(Memory::new(0)).unwrap().save().unwrap();
    assert_eq!(refused(&other), RestoreError::Shape);
    let mut device = nic().build(Memory::new(0x2000)).unwrap();
    let larger = nic().build(Memory::new(0x4000)).unwrap().save().unwrap();
    assert_eq!(device.restore(&larger).map(drop), Err(RestoreError::Device));
}

proptest! {
    #[test]
    fn damaged_states_never_panic_and_what_is_restored_is_saved_again(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let mut state = rich().save().unwrap();
        for (index, byte) in damage {
            let at = index.index(state.len());
            state[at] = byte;
        }
        let mut function = rich();
        if function.restore(&state).is_ok() {
            let saved = function.save().unwrap();
            let mut again = rich();
            prop_assert!(again.restore(&saved).is_ok());
            prop_assert_eq!(again.save().unwrap(), saved);
            prop_assert_eq!(all(&mut again), all(&mut function));
        }
    }
}
