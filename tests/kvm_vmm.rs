//! The example VMM, run as a program: with a real guest where there is KVM, and with the stand-in anywhere.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock};

use pcidevs::platform::HookError;
use pcidevs::vpci::{BarId, BarSpace, Message, Piece, Wiring};
use pcidevs::{Errno, Sbdf};

use self::hypervisor::{Hypervisor, Line};
use self::memory::{Memory, PAGE};

// Parts of the example, by themselves.
#[path = "../examples/kvm_vmm/hypervisor.rs"]
mod hypervisor;
#[path = "../examples/kvm_vmm/memory.rs"]
#[expect(dead_code, reason = "the guest's part of it is not here")]
mod memory;
#[path = "../examples/kvm_vmm/wiring.rs"]
#[expect(dead_code, reason = "the story's part of it is not here")]
mod wiring;

/// What must be told, in this order.
const STORY: [&str; 13] = [
    "guest: looked at all device numbers; functions found 0x2",
    "guest: BAR 0 after ones were written 0xffffe004",
    "guest: interrupted by vector 0; interrupts so far 0x1",
    "guest: interrupted by vector 1; interrupts so far 0x101",
    "VMM:   remove: Busy, in use: 2 references, held by assigned to domain 1, doorbell backend",
    "guest: the function reads 0xffffffff",
    "VMM:   remove: Busy, in use: 1 reference, held by doorbell backend",
    "VMM:   remove: Ok",
    "guest: there it is again; its device and vendor ID 0x11b34",
    "guest: interrupted by vector 1; interrupts so far 0x101",
    "VMM:   the doorbell is pulled out of its slot",
    "guest: the function reads 0xffffffff",
    "all as promised",
];

#[test]
fn a_device_is_busy_then_removed_and_found_again_by_a_real_guest_or_its_stand_in() {
    let told = tell(&[]);
    let first = told.lines().next().unwrap_or_default();
    let is_stand_in = first.starts_with("skipped: ")
        && first.ends_with("; a stand-in for the guest drives the same accesses");
    assert!(first == "a real guest, on KVM" || is_stand_in, "{told}");
    check_story(&told);
}

#[test]
fn the_stand_in_makes_the_same_accesses_and_finds_the_same() {
    let (guest, stand_in) = (tell(&[]), tell(&["--stand-in"]));
    check_story(&stand_in);
    let without_first = guest.split_once('\n').map(|(_, rest)| rest);
    assert_eq!(without_first, Some(stand_in.as_str()));
}

#[test]
fn the_rate_is_measured_where_there_is_a_guest() {
    let told = tell(&["--rate", "2"]);
    assert!(told.starts_with("skipped: ") || told.contains("time with / without: "), "{told}");
}

#[test]
fn what_is_not_as_promised_fails() {
    for arguments in [&["--no-such"][..], &["--rate", "0"], &["--stand-in", "x"]] {
        let output = run(arguments);
        assert!(!output.status.success() && output.stderr.starts_with(b"not as promised: "), "{output:?}");
    }
}

/// A hypervisor that knows what is mapped.
#[derive(Default)]
struct Slots(Mutex<BTreeSet<u64>>);

impl Hypervisor for Slots {
    fn connect(&self, _: Line, _: Message) -> Result<(), HookError> {
        Ok(())
    }

    fn disconnect(&self, _: Line) -> Result<(), HookError> {
        Ok(())
    }

    fn send(&self, _: Line) -> Result<(), HookError> {
        Ok(())
    }

    fn map(&self, base: u64, _: &Memory) -> Result<(), HookError> {
        self.0.lock().unwrap().insert(base);
        Ok(())
    }

    fn unmap(&self, base: u64) -> Result<(), HookError> {
        let was = self.0.lock().unwrap().remove(&base);
        if was { Ok(()) } else { Err(HookError::new(Errno::ENODEV, "nothing is mapped there")) }
    }

    fn in_use(&self) -> (usize, usize) {
        (0, self.0.lock().unwrap().len())
    }
}

#[test]
fn a_bar_that_another_was_put_over_in_part_is_unmapped_and_fails_nothing() {
    let slots = Arc::new(Slots::default());
    let wires = wiring::Wires::new(slots.clone());
    let device = Sbdf::from_u32(0x8008);
    wires.share(device, 2, Memory::new(PAGE));
    let id = BarId { device, bar: 2 };
    let piece = |offset: u64, length: u64| {
        let base = 0xc000_0000 + offset;
        Piece { id, offset, space: BarSpace::Memory, base, length }
    };
    let page = u64::from(PAGE);
    for (covered, left) in [(piece(0x800, 16), piece(0, 0x800)), (piece(0, 16), piece(16, page - 16))] {
        wires.map(device, &piece(0, page)).unwrap();
        wires.unmap(device, &covered).unwrap();
        assert_eq!(slots.in_use(), (0, 0), "the guest does not reach what is another's");
        wires.unmap(device, &left).unwrap();
    }
    wires.map(device, &piece(0, page)).unwrap();
    wires.unmap(device, &piece(0, page)).unwrap();
    assert_eq!(slots.in_use(), (0, 0));
}

/// That these lines are among what was told, in this order.
fn check_story(told: &str) {
    let mut lines = told.lines();
    for expected in STORY {
        assert!(lines.any(|line| line == expected), "missing from here on: {expected}\n{told}");
    }
}

fn tell(arguments: &[&str]) -> String {
    let output = run(arguments);
    let told = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    told
}

fn run(arguments: &[&str]) -> Output {
    Command::new(example()).args(arguments).output().expect("the example runs")
}

/// The example, which `cargo test` builds beside the tests; where it was told to build this test alone, an old one may be
/// there, or none.
fn example() -> &'static Path {
    static EXAMPLE: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        let test = env::current_exe().expect("a test has a path");
        let profile = test.parent().and_then(Path::parent).expect("tests are in PROFILE/deps");
        let example = profile.join("examples").join(format!("kvm_vmm{}", env::consts::EXE_SUFFIX));
        if is_old(&example, &test) {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "--example", "kvm_vmm"]).current_dir(env!("CARGO_MANIFEST_DIR"));
            build.arg("--target-dir").arg(profile.parent().expect("a profile is in the target directory"));
            if profile.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().expect("cargo runs").success(), "the example was not built");
        }
        example
    })
}

/// Whether the example is older than its sources, or than this test, which is linked anew when the library changes.
fn is_old(example: &Path, test: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kvm_vmm");
    let sources = sources.read_dir().expect("the example has sources").flatten().map(|file| file.path());
    let newest = sources.chain([test.to_path_buf()]).filter_map(|path| changed(&path)).max();
    changed(example) < newest
}
