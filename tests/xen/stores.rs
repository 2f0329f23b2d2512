//! The stores that the same tests run on: the one in memory, and the real one where it is.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use pcidevs::DomainId;
use pcidevs::xen::client::connect_socket;
use pcidevs::xen::memory::Server;
use pcidevs::xen::store::{Store, StoreError};

use crate::Tested;

/// Makes connections.
pub(crate) type Connector = Box<dyn Fn() -> Result<Box<dyn Store + Send>, StoreError> + Send + Sync>;

/// A store, empty but for what a real one begins with.
#[derive(Clone)]
pub(crate) enum World {
    Memory(Server),
    Real(Arc<Daemon>),
}

impl World {
    /// A connection of the host.
    pub(crate) fn connect(&self) -> Box<dyn Store + Send> {
        match self {
            Self::Memory(server) => Box::new(server.connect()),
            Self::Real(daemon) => {
                Box::new(connect_socket(&daemon.folder.join("socket")).expect("the daemon's socket"))
            }
        }
    }

    /// Makes connections of the host, wherever this is kept.
    pub(crate) fn connector(&self) -> Connector {
        match self {
            Self::Memory(server) => {
                let server = server.clone();
                Box::new(move || Ok(Box::new(server.connect())))
            }
            Self::Real(daemon) => {
                let socket = daemon.folder.join("socket");
                Box::new(move || Ok(Box::new(connect_socket(&socket)?)))
            }
        }
    }

    /// A guest of this number lives again, and the store knows it.
    pub(crate) fn revive(&self, guest: DomainId) -> Tested {
        if let Self::Real(daemon) = self {
            fs::remove_file(daemon.folder.join(format!("dead-{guest}")))?;
        }
        self.connect().introduce(guest, 1, 2)?;
        Ok(())
    }

    /// The guest dies, and the store is told.
    pub(crate) fn kill(&self, guest: DomainId) {
        match self {
            Self::Memory(server) => server.with_database(|database| database.domain_dies(guest)),
            Self::Real(daemon) => daemon.kill(guest),
        }
    }
}

/// Runs a test on both.
pub(crate) fn on_every_store(test: impl Fn(&World) -> Tested) -> Tested {
    test(&World::Memory(Server::new())).map_err(|error| format!("in memory: {error}"))?;
    match real_store() {
        Some(real) => test(&real).map_err(|error| format!("real: {error}").into()),
        None => Ok(()),
    }
}

/// The real one, if it is here.
pub(crate) fn real_store() -> Option<World> {
    let Some(folder) = env::var_os("PCIDEVS_XENSTORED") else {
        println!("skipped: the real xenstored (tests/e2e/run xenstored fetches and uses it)");
        return None;
    };
    Some(World::Real(Arc::new(Daemon::start(Path::new(&folder)))))
}

/// A `xenstored` of its own, without Xen.
pub(crate) struct Daemon {
    folder: PathBuf,
    process: Child,
}

impl Daemon {
    fn start(from: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("pcidevs-xenstored-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the daemon");
        let root = from.join("root");
        let libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib/xen-4.17/lib/x86_64-linux-gnu"];
        let process = Command::new(root.join("usr/lib/xen-4.17/bin/xenstored"))
            .args(["--no-fork", "--internal-db", "--pid-file"])
            .arg(folder.join("pid"))
            .env("LD_PRELOAD", from.join("shim.so"))
            .env(
                "LD_LIBRARY_PATH",
                libraries.map(|library| root.join(library).display().to_string()).join(":"),
            )
            .env("XENSTORED_RUNDIR", &folder)
            .env("XENSTORED_ROOTDIR", &folder)
            .env("PCIDEVS_SHIM", &folder)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("xenstored starts");
        let mut daemon = Self { folder, process };
        daemon.await_socket();
        daemon
    }

    fn await_socket(&mut self) {
        let began = Instant::now();
        while connect_socket(&self.folder.join("socket")).is_err() {
            assert!(self.process.try_wait().expect("the daemon's state").is_none(), "xenstored has ended");
            assert!(began.elapsed() < Duration::from_secs(30), "xenstored has no socket");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn kill(&self, guest: DomainId) {
        fs::write(self.folder.join(format!("dead-{guest}")), "").expect("the shim's folder");
        let signal = Command::new("kill").arg("-USR1").arg(self.process.id().to_string()).status();
        assert!(signal.expect("kill runs").success(), "the daemon takes the notice");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill().expect("the daemon ends");
        self.process.wait().expect("the daemon has ended");
        fs::remove_dir_all(&self.folder).expect("the daemon's folder goes");
    }
}
