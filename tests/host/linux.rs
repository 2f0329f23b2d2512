//! The running kernel's side: real files, in folders made for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pcidevs::Errno;
use pcidevs::host::{Directory, Kernel, Linux, LockRefused, NetworkChange, Place, Root, Store};

/// A folder of its own that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("pcidevs-host-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("made");
        Self(folder)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _removed = fs::remove_dir_all(&self.0);
    }
}

fn sys(path: &str) -> Place {
    Place::new(Root::Sys, path).expect("a place")
}

#[test]
fn reads_are_bounded_links_are_read_as_they_are_and_folders_sorted() {
    let folder = Folder::new("reads");
    let kernel = Linux::new().with_root(Root::Sys, folder.path());
    fs::write(folder.path().join("file"), "0123456789").expect("written");
    fs::create_dir(folder.path().join("folder")).expect("made");
    for name in ["b", "a", "c"] {
        fs::write(folder.path().join("folder").join(name), "").expect("written");
    }
    symlink("../../nowhere/0000:01:00.0", folder.path().join("link")).expect("linked");
    assert_eq!(kernel.read(&sys("file"), 10).expect("read"), b"0123456789");
    assert_eq!(kernel.read(&sys("file"), 9), Err(Errno::EFBIG));
    assert_eq!(kernel.read(&sys("none"), 9), Err(Errno::ENOENT));
    assert!(kernel.read(&sys("folder"), 9).is_err());
    let mut bytes = [0; 4];
    assert_eq!((kernel.read_at(&sys("file"), 8, &mut bytes), &bytes[..2]), (Ok(2), &b"89"[..]));
    assert_eq!(kernel.read_link(&sys("link")).expect("read"), "../../nowhere/0000:01:00.0");
    assert_eq!(kernel.read_link(&sys("file")), Err(Errno::EINVAL));
    assert_eq!(kernel.list(&sys("folder"), 9).expect("listed"), ["a", "b", "c"]);
    assert_eq!(kernel.list(&sys("folder"), 2).expect("listed").len(), 2);
    assert!(kernel.list(&sys("file"), 9).is_err());
}

#[test]
fn writes_make_no_files_and_go_where_they_are_told() {
    let folder = Folder::new("writes");
    let kernel = Linux::new().with_root(Root::Sys, folder.path());
    assert_eq!(kernel.write(&sys("none"), b"x"), Err(Errno::ENOENT));
    fs::write(folder.path().join("file"), "0123456789").expect("written");
    kernel.write_at(&sys("file"), 4, b"xy").expect("written");
    assert_eq!(fs::read(folder.path().join("file")).expect("read"), b"0123xy6789");
}

#[test]
fn a_pipe_in_a_copied_tree_blocks_nobody() {
    let folder = Folder::new("pipe");
    let made = std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status();
    assert!(made.expect("there is a mkfifo").success());
    let kernel = Linux::new().with_root(Root::Sys, folder.path());
    assert_eq!(kernel.read(&sys("pipe"), 9), Ok(vec![]));
    assert!(kernel.write(&sys("pipe"), b"x").is_err());
}

#[test]
fn a_group_without_file_is_not_open() {
    let folder = Folder::new("group");
    let kernel = Linux::new().with_root(Root::Dev, folder.path());
    let opened = kernel.open_group(pcidevs::platform::GroupId(7)).map(drop);
    assert_eq!(opened, Err(Errno::ENOENT));
}

#[test]
fn a_store_replaces_whole_files_and_is_bounded() {
    let folder = Folder::new("store");
    let store = Directory::new(folder.path().join("state")).expect("made");
    assert_eq!(store.read("journal.a", 9), Ok(None));
    store.replace("journal.a", b"first").expect("written");
    store.replace("journal.a", b"second").expect("written");
    assert_eq!(store.read("journal.a", 9), Ok(Some(b"second".to_vec())));
    assert_eq!(store.read("journal.a", 5), Err(Errno::EFBIG));
    // What an earlier process left of a write that did not end is in nobody's way.
    fs::write(folder.path().join("state/journal.a.new"), "torn").expect("written");
    assert_eq!(store.read("journal.a", 9), Ok(Some(b"second".to_vec())));
    store.replace("journal.a", b"third").expect("written");
    assert_eq!(store.read("journal.a", 9), Ok(Some(b"third".to_vec())));
}

#[test]
fn a_store_has_one_user_at_a_time_and_names_him() {
    let folder = Folder::new("lock");
    let store = Directory::new(folder.path()).expect("made");
    let locked = store.lock("pid 1 of boot x\n").expect("locked");
    let second = Directory::new(folder.path()).expect("made").lock("pid 2").map(drop);
    assert_eq!(second, Err(LockRefused::Taken("pid 1 of boot x\\n".into())));
    drop(locked);
    store.lock("pid 2").map(drop).expect("unlocked");
}

/// The loopback interface is the first one everywhere, and no card.
#[test]
fn an_interface_without_virtual_functions_says_so_over_rtnetlink() {
    let kernel = Linux::new();
    assert_eq!(kernel.virtual_network(1, 0), Err(Errno::EOPNOTSUPP));
    assert_eq!(kernel.virtual_network(0x7fff_fff0, 0), Err(Errno::ENODEV));
    let mac = NetworkChange::Mac("52:54:00:00:00:01".parse().expect("a MAC"));
    let vlans = ["5:2", "5:2:802.1ad"].map(|text| NetworkChange::Vlan(text.parse().expect("a VLAN")));
    for change in [mac, vlans[0], vlans[1]] {
        // EINVAL would say that the message makes no sense; EPERM is for who may not set anything.
        let set = kernel.set_virtual_network(1, 0, change);
        assert!(matches!(set, Err(Errno::EOPNOTSUPP | Errno::EPERM)), "{change}: {set:?}");
    }
}

/// Its numbers are those of another machine's interfaces.
#[test]
fn a_copied_tree_does_not_ask_the_running_kernel() {
    let folder = Folder::new("network");
    let kernel = Linux::new().with_root(Root::Sys, folder.path());
    assert_eq!(kernel.virtual_network(0x7fff_fff0, 0), Err(Errno::EOPNOTSUPP));
    let mac = NetworkChange::Mac("52:54:00:00:00:01".parse().expect("a MAC"));
    assert_eq!(kernel.set_virtual_network(0x7fff_fff0, 0, mac), Err(Errno::EOPNOTSUPP));
}
