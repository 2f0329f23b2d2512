//! Any text: what parses prints and parses again as itself, and what does not names a place in the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pcidevs::Sbdf;

fuzz_target!(|text: &str| {
    match text.parse::<Sbdf>() {
        Ok(address) => {
            let printed = address.to_string();
            assert_eq!(printed.parse(), Ok(address));
            assert!(printed.len() >= 12 && !printed.contains(char::is_uppercase));
            if let Ok(number) = address.to_u32() {
                assert_eq!(Sbdf::from_u32(number), address);
            }
        }
        Err(error) => assert!(error.position <= text.len(), "{error}"),
    }
});
