//! A machine in memory, for `--dry-run`: what an operation would write is what it writes there.

use std::collections::BTreeMap;
use std::sync::Arc;

use pcidevs::host::Kernel;
use pcidevs::host::fake::Fake;
use pcidevs::xen::client;
use pcidevs::xen::hypercall::{DomainInfo, Simulated};
use pcidevs::xen::manager::{XenError, XenManager};
use pcidevs::xen::memory::{Clock, Connection, Limits, Server};
use pcidevs::xen::store::{NodePath, Store, StoreError};
use pcidevs::{DomainId, Errno, Sbdf};

/// What of the store is copied.
const FOLDERS: [&str; 2] = ["/libxl/pci", "/local/domain"];
/// More levels than any folder there has.
const DEEPEST: usize = 12;

/// The copy.
pub(super) struct Rehearsal {
    kernel: Fake,
    xen: Arc<Simulated>,
    server: Server,
    before: BTreeMap<String, String>,
}

impl Rehearsal {
    /// Of this machine, and of its store if there is one.
    pub(super) fn of(kernel: &Arc<dyn Kernel>) -> Result<Self, Errno> {
        let fake = Fake::copy_of(kernel.clone(), &Fake::new())?;
        let (xen, server) = (Arc::new(Simulated::new()), Server::with(Limits::default(), Clock::Simulated));
        let place = pcidevs::host::Place::new(pcidevs::host::Root::Sys, "bus/pci/devices")?;
        for name in kernel.list(&place, 1 << 16)? {
            if let Ok(device) = name.parse::<Sbdf>() {
                xen.plug(device);
            }
        }
        if let Ok(mut real) = client::connect() {
            let mut copy = server.connect();
            for folder in FOLDERS {
                // What cannot be read is not there, for a rehearsal.
                let _copied = NodePath::new(folder)
                    .map_err(StoreError::from)
                    .and_then(|folder| copy_folder(&mut real, &mut copy, &folder, DEEPEST));
            }
        }
        let before = nodes(&server);
        Ok(Self { kernel: fake, xen, server, before })
    }

    /// A tool stack on it.
    pub(super) fn manager(&self) -> Result<XenManager, XenError> {
        let server = self.server.clone();
        let connect = move || Ok(Box::new(server.connect()) as Box<_>);
        XenManager::open(self.kernel.clone().into(), self.xen.clone(), Box::new(connect))
    }

    /// The guest is one that takes devices: whether it is the hypervisor is not asked.
    pub(super) fn expect_guest(&self, guest: DomainId) {
        self.xen.create(DomainInfo::guest(guest));
    }

    /// What was written, to the kernel and then to the store.
    pub(super) fn writes(&self) -> Vec<String> {
        let mut lines = self.kernel.take_written();
        let after = nodes(&self.server);
        let new = after.iter().filter(|(path, value)| self.before.get(*path) != Some(value));
        lines.extend(new.map(|(path, value)| format!("{value:?} > xenstore {path}")));
        let gone = self.before.keys().filter(|path| !after.contains_key(*path));
        lines.extend(gone.map(|path| format!("remove xenstore {path}")));
        lines
    }
}

fn nodes(server: &Server) -> BTreeMap<String, String> {
    server.with_database(|database| {
        let paths: Vec<String> = database.nodes().map(|(path, _)| path.to_string()).collect();
        let text = |path: &String| database.text(path).unwrap_or_default().to_owned();
        paths.iter().map(|path| (path.clone(), text(path))).filter(|(_, value)| !value.is_empty()).collect()
    })
}

fn copy_folder(
    from: &mut dyn Store,
    to: &mut Connection,
    folder: &NodePath,
    deepest: usize,
) -> Result<(), StoreError> {
    let value = from.read(None, folder)?;
    to.write(None, folder, &value)?;
    if deepest == 0 {
        return Ok(());
    }
    for name in from.directory(None, folder)? {
        copy_folder(from, to, &folder.child(&name)?, deepest - 1)?;
    }
    Ok(())
}
