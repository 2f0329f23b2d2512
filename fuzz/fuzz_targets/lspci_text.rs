//! Any text: the reader ends, functions are sorted and unique, and questions about the tree have answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pcidevs::topology::Machine;

fuzz_target!(|text: &str| {
    let machine = Machine::from_lspci(text);
    assert!(machine.functions.windows(2).all(|pair| pair[0].address < pair[1].address));
    let lines = text.lines().count();
    for warning in &machine.warnings {
        assert!(warning.line.is_none_or(|line| (1..=lines).contains(&(line as usize))), "{warning}");
    }
    for function in machine.functions.iter().take(16) {
        assert!(function.config.len() <= 4096);
        assert!(machine.parent(function.address).is_none_or(|parent| parent.address != function.address));
        let _ = machine.children(function.address).count();
        let _ = machine.virtual_functions(function.address).count();
        let _ = function.phantom_stride();
    }
});
