//! What is written where.

use std::time::Duration;

use pcidevs::xen::pciback::{Export, Options, Toolstack};
use pcidevs::xen::spec::{GuestSlot, RdmPolicy};
use pcidevs::xen::store::{End, Event, Reply, Request, Store, StoreError, TransactionId};

use super::{BACKEND, FRONTEND, GUEST, device, dump, exports, node};
use crate::Tested;
use crate::stores::on_every_store;

#[test]
fn a_set_is_written_as_the_driver_reads_it() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        store.introduce(GUEST, 1, 2)?;
        let options = Options {
            msitranslate: false,
            power_mgmt: true,
            permissive: true,
            rdm_policy: RdmPolicy::Strict,
        };
        let first =
            Export { slot: GuestSlot::new(0x1f), options, name: Some("gpu".into()), ..Export::of(device(1)) };
        Toolstack::new(&mut *store, GUEST).publish(&[first, Export::of(device(0))], "the guest")?;
        let expected = [
            "domain = the guest",
            "dev-0 = 0000:03:00.1",
            "dev-1 = 0000:03:00.0",
            "frontend = /local/domain/7/device/pci/0",
            "frontend-id = 7",
            "key-0 = 0000:03:00.1",
            "key-1 = 0000:03:00.0",
            "name-0 = gpu",
            "num_devs = 2",
            "online = 1",
            "opts-0 = msitranslate=0,power_mgmt=1,permissive=1,rdm_policy=strict",
            "opts-1 = msitranslate=1,power_mgmt=0,permissive=0,rdm_policy=relaxed",
            "state = 1",
            "state-0 = 1",
            "state-1 = 1",
            "vdevfn-0 = f9",
        ];
        let mut lines = dump(&mut *store, &node(BACKEND))?;
        let mut expected = expected.map(|line| format!("{BACKEND}/{line}"));
        lines.sort();
        expected.sort();
        assert_eq!(lines, expected);
        let expected = ["backend = /local/domain/0/backend/pci/7/0", "backend-id = 0", "state = 1"];
        assert_eq!(dump(&mut *store, &node(FRONTEND))?, expected.map(|line| format!("{FRONTEND}/{line}")));
        for (folder, expected) in [(BACKEND, "n0 r7"), (FRONTEND, "n7 r0")] {
            for at in [node(folder), node(folder).child("state")?] {
                let permissions: Vec<String> =
                    store.permissions(None, &at)?.iter().map(ToString::to_string).collect();
                assert_eq!(permissions.join(" "), expected, "{at}");
            }
        }
        assert_eq!(store.read(None, &node("/libxl/pci/0000-03-00-1/domid"))?, b"7");
        Ok(())
    })
}

/// A store that counts.
struct Counting<'a> {
    store: &'a mut dyn Store,
    requests: usize,
    commits: usize,
}

impl Store for Counting<'_> {
    fn request(
        &mut self,
        transaction: Option<TransactionId>,
        request: &Request,
    ) -> Result<Reply, StoreError> {
        self.requests += 1;
        self.commits += usize::from(*request == Request::End(End::Commit));
        self.store.request(transaction, request)
    }

    fn next_event(&mut self, until: Duration) -> Result<Option<Event>, StoreError> {
        self.store.next_event(until)
    }

    fn now(&self) -> Duration {
        self.store.now()
    }
}

#[test]
fn sixteen_devices_are_one_commit_and_at_most_two_requests_a_node() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        let mut counting = Counting { store: &mut *store, requests: 0, commits: 0 };
        let mut set = exports(0..8);
        set.extend(
            (0..8).map(|function| Export::of(format!("0000:04:00.{function}").parse().expect("an address"))),
        );
        Toolstack::new(&mut counting, GUEST).publish(&set, "guest")?;
        let (requests, commits) = (counting.requests, counting.commits);
        let written = dump(&mut *store, &node(BACKEND))?.len() + dump(&mut *store, &node(FRONTEND))?.len();
        assert_eq!(commits, 1);
        assert!(requests <= 2 * written, "{requests} requests for {written} nodes");
        Ok(())
    })
}
