//! The command `pcidevs`.
fn main() {}
