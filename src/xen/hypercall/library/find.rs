//! Where the library may be.

use std::path::{Path, PathBuf};

use super::symbols::Library;
use crate::xen::hypercall::error::HypercallError;

/// What the library is called, for the loader's own search: the version is part of the name.
pub(super) fn names() -> Vec<&'static str> {
    vec!["libxenctrl.so.4.17"]
}

/// Where it is looked for otherwise, as `libxenctrl.so*`: places that only root can write to.
pub(super) fn folders() -> Vec<&'static Path> {
    let folders = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/xen-4.17/lib/x86_64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib64",
        "/usr/local/lib",
    ];
    folders.map(Path::new).to_vec()
}

/// The first that can be loaded and has what we need.
pub(super) fn library(names: &[&str], folders: &[&Path]) -> Result<Library, HypercallError> {
    let mut unusable = None;
    for name in names {
        if let Ok(library) = Library::load(Path::new(name)) {
            return Ok(library);
        }
        // Whether it is not there, or there and of no use, the folders tell.
    }
    for file in folders.iter().flat_map(|folder| files(folder)) {
        match Library::load(&file) {
            Ok(library) => return Ok(library),
            Err(reason) => {
                unusable.get_or_insert(HypercallError::BadLibrary { library: file, reason });
            }
        }
    }
    Err(unusable.unwrap_or_else(|| HypercallError::NoLibrary {
        looked_for: names
            .iter()
            .map(PathBuf::from)
            .chain(folders.iter().map(|&folder| folder.to_owned()))
            .collect(),
    }))
}

/// The files of a folder that are called so, the newest name first. A folder that cannot be read has none.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let called_so = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("libxenctrl.so"))
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(called_so).collect();
    files.sort();
    files.reverse();
    files
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process;

    use super::*;
    use crate::errno::Errno;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("pcidevs-find-{name}-{}", process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder can be made");
        folder
    }

    #[test]
    fn a_machine_without_the_library_is_an_error_that_says_where_it_was_looked_for() {
        let empty = folder("empty");
        let missing = empty.join("missing");
        let error = library(&["libxenctrl.so.0.0"], &[&empty, &missing]).err();
        let looked_for = vec!["libxenctrl.so.0.0".into(), empty.clone(), missing];
        assert_eq!(error, Some(HypercallError::NoLibrary { looked_for }));
        assert_eq!(error.map(|error| error.errno()), Some(Errno::ENOENT));
        fs::remove_dir_all(empty).expect("the folder can be removed");
    }

    #[test]
    fn a_file_that_is_no_library_is_named() {
        let folder = folder("text");
        let file = folder.join("libxenctrl.so.4.17");
        fs::write(&file, "not a library").expect("a file can be written");
        match library(&[], &[&folder]) {
            Err(HypercallError::BadLibrary { library, reason }) => {
                assert_eq!(library, file);
                assert!(reason.contains("libxenctrl.so.4.17"), "{reason}");
            }
            other => panic!("{:?}", other.err()),
        }
        fs::remove_dir_all(folder).expect("the folder can be removed");
    }

    #[test]
    fn a_library_of_another_kind_lacks_a_function_by_name() {
        // The C library is there wherever a test runs.
        let reason = Library::load(Path::new("libc.so.6")).err();
        assert!(reason.as_ref().is_some_and(|reason| reason.contains("xc_interface_open")), "{reason:?}");
    }
}
