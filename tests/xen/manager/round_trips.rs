//! How much an attach asks of the store.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pcidevs::xen::memory::Server;
use pcidevs::xen::pciback::{Export, Toolstack};
use pcidevs::xen::store::{End, Event, Reply, Request, Store, StoreError, TransactionId};
use pcidevs::{DomainId, Sbdf};

use crate::Tested;

/// What was asked.
#[derive(Default)]
struct Count {
    requests: usize,
    commits: usize,
    written: BTreeSet<String>,
}

struct Counting {
    inner: pcidevs::xen::memory::Connection,
    count: Arc<Mutex<Count>>,
}

impl Store for Counting {
    fn request(
        &mut self,
        transaction: Option<TransactionId>,
        request: &Request,
    ) -> Result<Reply, StoreError> {
        let mut count = self.count.lock().expect("no test panics here");
        count.requests += 1;
        match request {
            Request::End(End::Commit) => count.commits += 1,
            Request::Write(path, _) | Request::Mkdir(path) => {
                count.written.insert(path.to_string());
            }
            _ => {}
        }
        drop(count);
        self.inner.request(transaction, request)
    }

    fn next_event(&mut self, until: Duration) -> Result<Option<Event>, StoreError> {
        self.inner.next_event(until)
    }

    fn now(&self) -> Duration {
        self.inner.now()
    }
}

#[test]
fn attach_of_16_devices_is_one_commit_and_at_most_two_round_trips_a_node() -> Tested {
    let server = Server::new();
    let count = Arc::new(Mutex::new(Count::default()));
    let mut store = Counting { inner: server.connect(), count: count.clone() };
    let devices = (0..16).map(|n| format!("0000:03:{:02x}.{}", n / 8, n % 8).parse::<Sbdf>());
    let set: Vec<Export> = devices.map(|device| device.map(Export::of)).collect::<Result<_, _>>()?;
    Toolstack::new(&mut store, DomainId::new(7)).publish(&set, "guest")?;
    let count = count.lock().map_err(|_| "no test panics here")?;
    println!("{} nodes, {} requests, {} commits", count.written.len(), count.requests, count.commits);
    assert_eq!(count.commits, 1);
    assert!(count.written.len() >= 16 * 5);
    assert!(count.requests <= 2 * count.written.len(), "{} for {}", count.requests, count.written.len());
    Ok(())
}
