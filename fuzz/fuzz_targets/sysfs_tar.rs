//! Any bytes as an archive: an error or a machine with at least one function, never more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pcidevs::topology::Machine;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(machine) = Machine::from_tar(bytes) {
        assert!(!machine.functions.is_empty());
        assert!(machine.functions.windows(2).all(|pair| pair[0].address < pair[1].address));
        assert!(machine.functions.iter().all(|function| function.config.len() <= 4096));
    }
});
