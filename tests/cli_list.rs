//! The command `pcidevs list`, run as a user runs it.
mod recordings;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use recordings::{Config, Folder, Tree, shared_data};
use serde_json::{Value, json};

/// What the command wrote, and how it ended.
struct Ran {
    out: String,
    err: String,
    status: Option<i32>,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            out: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            err: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
            status: output.status.code(),
        }
    }
}

/// The command, in an environment that says nothing about width and colour.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pcidevs"));
    for variable in ["COLUMNS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    command.arg("list").args(arguments);
    command
}

fn list(arguments: &[&str]) -> Ran {
    command(arguments).output().expect("the command runs").into()
}

fn list_at(columns: usize, arguments: &[&str]) -> Ran {
    command(arguments).env("COLUMNS", columns.to_string()).output().expect("the command runs").into()
}

fn list_json(source: &Path) -> Value {
    let ran = list(&["--json", "--from", source.to_str().unwrap()]);
    assert_eq!(ran.status, Some(0), "{}: {}", source.display(), ran.err);
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{}: {error}", source.display()))
}

/// The recording that is bundled, as a file.
fn bundled() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/src/topology/q35-sriov-sysfs.tar.xz").into()
}

fn function<'j>(listing: &'j Value, address: &str) -> &'j Value {
    let mut functions = listing["functions"].as_array().unwrap().iter();
    functions.find(|function| function["address"] == address).unwrap()
}

/// Functions, virtual functions, functions in groups, groups, warnings.
fn counts(listing: &Value) -> [usize; 5] {
    let functions = listing["functions"].as_array().unwrap();
    let with = |field: &str| functions.iter().filter(|function| !function[field].is_null()).count();
    let groups: BTreeSet<_> = functions.iter().filter_map(|function| function["group"].as_u64()).collect();
    let warnings = listing["warnings"].as_array().unwrap().len();
    [functions.len(), with("physfn"), with("group"), groups.len(), warnings]
}

#[test]
fn json_has_the_bundled_machine() {
    let listing = list_json(bundled().as_ref());
    assert_eq!(counts(&listing), [59, 37, 59, 53, 1]);
    assert_eq!(
        function(&listing, "0000:00:03.0"),
        &json!({
            "address": "0000:00:03.0", "vendor": 0x1b36, "device": 0x000c, "class": 0x06_0400, "header_type": 1,
            "bridge": {"primary": 0, "secondary": 1, "subordinate": 1}, "group": 2, "physfn": null,
            "driver": "pcieport", "config_bytes": 4096, "capabilities": [16, 17, 13], "ext_capabilities": [1, 13],
        })
    );
    let vf = function(&listing, "0000:01:00.1");
    assert_eq!((&vf["physfn"], &vf["vendor"]), (&json!("0000:01:00.0"), &json!(0x1b36)));
    assert_eq!(
        listing["warnings"],
        json!([{
            "line": null, "address": "0000:04:02.0", "kind": "capability-pointer-without-list",
            "message": "capability pointer 0xdc, but no capability list is announced",
        }])
    );
}

#[test]
fn json_says_null_for_what_the_source_does_not_tell() {
    let folder = Folder::empty();
    let path = folder.path().join("lspci.txt");
    fs::write(&path, "00:01.0 Ethernet controller: Somebody's card\n").unwrap();
    assert_eq!(
        list_json(&path),
        json!({"functions": [{
            "address": "0000:00:01.0", "vendor": null, "device": null, "class": null, "header_type": null,
            "bridge": null, "group": null, "physfn": null, "driver": null, "config_bytes": 0,
            "capabilities": [], "ext_capabilities": [],
        }], "warnings": []})
    );
}

#[test]
fn json_keeps_chain_order_repeats_and_drops_the_multifunction_bit() {
    let config = Config::endpoint(256).with8(0xe, 0x80).list(0x40);
    let config = config.capability(0x40, 9, 0x50).capability(0x50, 1, 0x60).capability(0x60, 9, 0);
    let folder = Tree::default().function("sys/devices/pci0000:00/0000:00:01.0", &config).on_disk();
    let listing = list_json(folder.path());
    let function = function(&listing, "0000:00:01.0");
    assert_eq!(function["capabilities"], json!([9, 1, 9]));
    assert_eq!(function["header_type"], json!(0));
    assert_eq!(function["config_bytes"], json!(256));
}

#[test]
fn json_says_at_which_line_of_a_text_something_is_wrong() {
    let folder = Folder::empty();
    let path = folder.path().join("lspci.txt");
    fs::write(&path, "00:01.0 0200: 1234:5678\n00: 34 12\nzz: 00\n10: xx\n").unwrap();
    let listing = list_json(&path);
    assert!(
        listing["warnings"].as_array().unwrap().iter().any(|it| it["line"] == 4 && it["kind"] == "hex-row")
    );
}

#[test]
fn every_recorded_machine_gives_valid_json_and_both_views() {
    // Functions, virtual functions, functions in groups, groups.
    let expected = [
        ("emulated/q35-sriov-sysfs.tar.xz", [59, 37, 59, 53]),
        ("emulated/q35-sriov-lspci-vvv-xxxx.txt", [59, 37, 59, 53]),
        ("lspci-hex/amd-server-root20-mi300x.txt", [28, 0, 0, 0]),
        ("lspci-hex/arm-n1sdp-2domains.txt", [16, 0, 0, 0]),
        ("lspci-hex/asus-p6t6-x58.txt", [53, 0, 0, 0]),
        ("lspci-hex/fsl-p2020-3domains.txt", [6, 0, 0, 0]),
        ("lspci-hex/huananzhi-x99-bd4.txt", [87, 0, 0, 0]),
        ("lspci-hex/hwloc-pcidomain32bits.txt", [9, 0, 0, 0]),
        ("lspci-hex/hwloc-xeon-e5-mic-nvme.txt", [137, 0, 0, 0]),
        ("lspci-hex/thinkpad-t60.txt", [20, 0, 0, 0]),
        ("lspci-text/alderlake-laptop-vmd-10000-dock.txt", [36, 0, 36, 25]),
        ("lspci-text/amd-matisse-49fn.txt", [49, 0, 47, 34]),
        ("lspci-text/epyc-naples-192fn.txt", [192, 0, 0, 0]),
        ("lspci-text/power9-9domains.txt", [20, 0, 7, 6]),
        ("sysfs/ghw-i7-1270p.tar.gz", [23, 0, 23, 15]),
        ("sysfs/thinkpad-t60.tar.xz", [21, 0, 0, 0]),
    ];
    let Some(data) = shared_data() else { return };
    for file in files_below(&data) {
        let name = file.strip_prefix(&data).unwrap().to_str().unwrap();
        let source = file.to_str().unwrap();
        let ran = list(&["--json", "--from", source]);
        if ran.status != Some(0) {
            assert_refused(&ran, name);
            println!("skipped: {name}: {}", ran.err.trim_end());
            continue;
        }
        let listing: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{name}: {error}"));
        let [functions, vfs, in_groups, groups, _] = counts(&listing);
        if let Some((_, expected)) = expected.iter().find(|(known, _)| *known == name) {
            assert_eq!([functions, vfs, in_groups, groups], *expected, "{name}");
        }
        for columns in [80, 200] {
            for view in [&["--from", source][..], &["--tree", "--from", source]] {
                let ran = list_at(columns, view);
                assert_eq!(ran.status, Some(0), "{name}: {}", ran.err);
                assert_fits(&ran.out, columns, name);
                assert_eq!(rows(&ran.out).len(), functions, "{name}: a row for each function");
            }
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// The lines that show a function: an address stands at the end of their first word that is no branch.
fn rows(text: &str) -> Vec<&str> {
    let is_row = |line: &&str| {
        let first = line.trim_start_matches(['│', '├', '└', '─', ' ']).split(' ').next().unwrap_or_default();
        let function = first.rsplit_once('.').map(|(_, function)| function);
        first.contains(':') && function.is_some_and(|it| it.len() == 1)
    };
    text.lines().filter(is_row).collect()
}

fn assert_fits(text: &str, columns: usize, what: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= columns, "{what}: wider than {columns}: {line}");
        assert_eq!(line, line.trim_end(), "{what}: spaces at the end");
    }
}

/// Where a column begins or ends, from the line of titles.
fn column_of(text: &str, title: &str) -> usize {
    let titles = text.lines().find(|line| line.starts_with("ADDRESS")).expect("a line of titles");
    let at = titles.find(title).unwrap_or_else(|| panic!("no column {title} in {titles:?}"));
    titles[..at].chars().count()
}

/// What a line shows from a column on.
fn from_column(line: &str, column: usize) -> String {
    line.chars().skip(column).collect()
}

#[test]
fn columns_line_up_at_80_and_at_200() {
    for (columns, view) in [(80, "--from"), (200, "--from"), (80, "--tree"), (200, "--tree")] {
        let source = bundled();
        let arguments =
            if view == "--tree" { vec!["--tree", "--from", &source] } else { vec!["--from", &source] };
        let Ran { out, .. } = list_at(columns, &arguments);
        assert_fits(&out, columns, view);
        let owner = column_of(&out, "OWNER");
        let rows = rows(&out);
        assert_eq!(rows.len(), 59);
        for row in rows {
            assert!(from_column(row, owner).starts_with("host"), "{columns} {view}: {row}");
            assert_eq!(row.chars().nth(owner - 1), Some(' '), "{columns} {view}: {row}");
        }
    }
}

#[test]
fn eighty_columns_shorten_names_and_never_addresses() {
    for view in [&["--from"][..], &["--tree", "--from"]] {
        let source = bundled();
        let Ran { out, .. } = list_at(80, &[view, &[&source]].concat());
        for address in ["00:00.0", "01:00.5", "09:00.0", "81:04.0"] {
            let shown = rows(&out).iter().any(|row| row.contains(&format!("{address} ")));
            assert!(shown, "{address} in\n{out}");
        }
        assert!(rows(&out).iter().any(|row| row.contains('…')));
        assert!(column_of(&out, "CAPABIL") > 0);
    }
}

#[test]
fn very_narrow_leaves_columns_out_and_still_fits() {
    for columns in [40, 50, 60] {
        let Ran { out, status, .. } = list_at(columns, &["--tree", "--from", &bundled()]);
        assert_eq!(status, Some(0));
        assert_fits(&out, columns, "narrow");
        assert_eq!(rows(&out).len(), 59);
    }
}

#[test]
fn a_pipe_gets_whole_lines_without_colour() {
    for view in [&["--from"][..], &["--tree", "--from"]] {
        let source = bundled();
        let Ran { out, err, .. } = list(&[view, &[&source]].concat());
        assert!(!out.contains('\u{1b}') && !err.contains('\u{1b}'), "no escape codes");
        assert!(!out.contains('…'), "nothing is shortened");
        assert!(out.contains("Realtek Semiconductor RTL-8100/8101L/8139 PCI Fast Ethernet Adapter"));
    }
}

#[test]
fn colour_can_be_asked_for_and_nothing_else_changes() {
    let source = bundled();
    let plain = list_at(120, &["--from", &source]);
    let coloured = command(&["--from", &source]).env("COLUMNS", "120").env("CLICOLOR_FORCE", "1").output();
    let coloured = Ran::from(coloured.unwrap());
    assert!(coloured.out.contains("\u{1b}["));
    assert_eq!(without_escapes(&coloured.out), plain.out);
    let refused = command(&["--from", &source]).env("NO_COLOR", "1").output();
    assert!(!Ran::from(refused.unwrap()).out.contains('\u{1b}'));
}

fn without_escapes(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').unwrap().1);
    }
    plain
}

#[test]
fn the_table_says_who_holds_a_function_and_what_it_is_to_others() {
    let Ran { out, err, status } = list(&["--from", &bundled()]);
    assert_eq!(status, Some(0));
    let row = |address: &str| {
        let start = format!("{address} ");
        out.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{address} in\n{out}"))
    };
    let pf = row("0000:01:00.0");
    for shown in ["PF, 5 of 8 VFs", " 5 VFs ", " nvme ", "SR-IOV PCIe MSI-X PM ARI"] {
        assert!(pf.contains(shown), "{shown} in {pf}");
    }
    assert!(row("0000:01:00.1").contains("VF of 0000:01:00.0"));
    // The physical function and its five virtual ones are behind the port.
    let port = row("0000:00:03.0");
    assert!(port.contains("root port to 01") && port.contains("6 devices"), "{port}");
    assert!(out.contains("emulated, not real hardware"));
    let totals =
        "59 functions, 1 segment, 11 buses, 53 IOMMU groups, 37 VFs of 2 PFs, 85 references held, 1 warning";
    assert_eq!(out.lines().last(), Some(totals));
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.starts_with("pcidevs: warning: 0000:04:02.0: "), "{err}");
}

#[test]
fn the_tree_draws_virtual_functions_below_their_pf_and_devices_below_their_bridge() {
    let Ran { out, .. } = list(&["--tree", "--from", &bundled()]);
    let place = |start: &str| {
        let found = out.lines().position(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("{start} in\n{out}"))
    };
    let order = [
        place("bus 00"),
        place("├─ 0000:00:03.0 "),
        place("│  └─ 0000:01:00.0 "),
        place("│     └─ 0000:01:00.5 "),
        place("├─ 0000:00:03.1 "),
        place("│  └─ 0000:02:00.0 "),
        place("bus 80"),
        place("└─ 0000:80:00.0 "),
        place("   └─ 0000:81:00.0 "),
        // A virtual function on the next bus but still below its physical one is drawn there.
        place("      └─ 0000:81:04.0 "),
    ];
    assert!(order.is_sorted(), "{order:?}");
}

/// A machine of functions with these drivers, at 00:01.0, 00:02.0 and so on.
fn with_drivers(drivers: &[&str]) -> Folder {
    let mut tree = Tree::default();
    for (index, driver) in drivers.iter().enumerate() {
        let path = format!("sys/devices/pci0000:00/0000:00:{:02x}.0", index + 1);
        tree = tree.function(&path, &Config::endpoint(64));
        tree = tree.link(&format!("{path}/driver"), &format!("../../../bus/pci/drivers/{driver}"));
    }
    tree.on_disk()
}

#[test]
fn drivers_that_keep_the_host_away_mean_quarantine() {
    let stubs = ["vfio-pci", "pci-stub", "pciback", "xen-pciback", "mlx5_vfio_pci", "pci-pf-stub"];
    let folder = with_drivers(&[&stubs[..], &["e1000e", "uio_pci_generic"]].concat());
    let Ran { out, .. } = list(&["--from", folder.path().to_str().unwrap()]);
    let owner = column_of(&out, "OWNER");
    for (row, index) in rows(&out).into_iter().zip(0..) {
        let expected = if index < stubs.len() { "quarantine" } else { "host" };
        assert!(from_column(row, owner).starts_with(expected), "{row}");
    }
    assert!(out.contains("6 in quarantine"), "{out}");
}

#[test]
fn a_name_cannot_move_the_cursor() {
    let folder = Folder::empty();
    let path = folder.path().join("lspci.txt");
    fs::write(
        &path,
        "00:01.0 Ether\u{7}net: Evil\u{1b}[2J\u{202e} card\n\tKernel driver in use: \u{1b}]0;x\n",
    )
    .unwrap();
    let Ran { out, .. } = list(&["--from", path.to_str().unwrap()]);
    let control = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!out.contains(control), "{out:?}");
    assert!(out.contains("Evil?[2J? card"), "{out}");
}

#[test]
fn bridges_behind_each_other_are_each_drawn_once() {
    let tree = Tree::default()
        .function("sys/devices/pci0000:00/0000:01:00.0", &Config::bridge(64, [1, 2, 2]))
        .function("sys/devices/pci0000:00/0000:02:00.0", &Config::bridge(64, [2, 1, 1]));
    let folder = tree.on_disk();
    let Ran { out, status, err } = list(&["--tree", "--from", folder.path().to_str().unwrap()]);
    assert_eq!(status, Some(0), "{err}");
    assert_eq!(rows(&out).len(), 2, "{out}");
}

#[test]
fn many_warnings_of_a_kind_are_said_once() {
    let folder = Folder::empty();
    let path = folder.path().join("lspci.txt");
    let functions = (0..20).map(|device| format!("00:{device:02x}.0 0200: 1234:5678"));
    let text = functions.collect::<Vec<_>>().join("\n00: 34 12\n") + "\n00: 34 12\n";
    fs::write(&path, text).unwrap();
    let Ran { err, out, .. } = list(&["--from", path.to_str().unwrap()]);
    assert!(err.lines().count() < 6, "{err}");
    assert!(err.contains("19 more like it"), "{err}");
    assert!(out.trim_end().ends_with("20 warnings"), "{out}");
}

#[test]
fn without_a_source_this_host_or_the_bundled_machine_is_shown() {
    for arguments in [&[][..], &["--tree"], &["--json"]] {
        let ran = list(arguments);
        assert_eq!(ran.status, Some(0), "{}", ran.err);
        let named = ran.out.starts_with("this host") || ran.out.starts_with("the bundled machine");
        assert!(named || arguments == ["--json"], "{}", ran.out);
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    for arguments in [&["--from"][..], &["--tree", "--from"], &["--json", "--from"]] {
        let source = bundled();
        let mut child = command(&[arguments, &[&source]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Closed before anything was read: every write of the command fails.
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{err}");
        assert!(!err.contains("panic"), "{err}");
    }
    let mut child = command(&["--from", &bundled()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(child.wait().unwrap().success() && first.contains("q35"), "{first}");
}

fn assert_refused(ran: &Ran, what: &str) {
    assert_eq!(ran.status, Some(2), "{what}: {}", ran.err);
    assert_eq!(ran.out, "", "{what}");
    assert_eq!(ran.err.lines().count(), 1, "{what}: {}", ran.err);
    assert!(ran.err.contains("expected"), "{what}: {}", ran.err);
}

#[test]
fn a_bad_source_is_one_line_that_says_what_was_expected() {
    let folder = Folder::empty();
    let inside = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let no_sysfs = folder.path().join("folder");
    fs::create_dir(&no_sysfs).unwrap();
    let sources = [
        folder.path().join("missing"),
        inside("empty", b""),
        no_sysfs,
        inside("text", b"Dear all,\nthis is neither.\n"),
        inside("binary", &[0, 1, 2, 3]),
        inside("cut.xz", &[0xfd, b'7', b'z', b'X', b'Z', 0, 0]),
    ];
    for source in sources {
        for view in [&["--from"][..], &["--tree", "--from"], &["--json", "--from"]] {
            let path = source.to_str().unwrap();
            assert_refused(&list(&[view, &[path]].concat()), path);
        }
    }
}
