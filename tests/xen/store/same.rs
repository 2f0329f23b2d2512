//! Whatever is done, the store in memory answers what the real one answers.

use std::collections::BTreeSet;

use pcidevs::xen::memory::Server;
use pcidevs::xen::store::{
    Access, End, NodePath, Permission, Refusal, Reply, Request, Store, StoreError, TransactionId,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{events, path};
use crate::Tested;
use crate::stores::{World, real_store};

/// Something a connection does.
#[derive(Clone, Debug)]
enum Deed {
    /// On the tree, inside its open transaction if it has one and this says so.
    Tree(Request, bool),
    Begin,
    End(End),
}

fn any_path() -> impl Strategy<Value = NodePath> {
    let names = ["/t", "/t/a", "/t/a/b", "/t/a/b/c", "/t/a-b", "/t/d", "/t/d/e"];
    prop::sample::select(names.to_vec()).prop_map(|name| path(name).expect("a path"))
}

fn any_request() -> impl Strategy<Value = Request> {
    let value = prop::sample::select(vec![&b"1"[..], b"2", b""]).prop_map(<[u8]>::to_vec);
    let host = DOMAINS[0];
    let permissions = prop::sample::select(vec![
        vec![Permission::new(host, Access::None)],
        vec![Permission::new(host, Access::Read)],
    ]);
    prop_oneof![
        4 => (any_path(), value).prop_map(|(path, value)| Request::Write(path, value)),
        4 => any_path().prop_map(Request::Read),
        1 => any_path().prop_map(Request::Mkdir),
        2 => any_path().prop_map(Request::Remove),
        3 => any_path().prop_map(Request::Directory),
        1 => any_path().prop_map(Request::Permissions),
        1 => (any_path(), permissions).prop_map(|(path, set)| Request::SetPermissions(path, set)),
    ]
}

const DOMAINS: [pcidevs::DomainId; 1] = [pcidevs::DomainId::new(0)];

fn any_deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        8 => (any_request(), any::<bool>()).prop_map(|(request, inside)| Deed::Tree(request, inside)),
        1 => Just(Deed::Begin),
        2 => prop::sample::select(vec![End::Commit, End::Commit, End::Discard]).prop_map(Deed::End),
    ]
}

/// A connection and its open transaction.
struct Client {
    store: Box<dyn Store + Send>,
    open: Option<TransactionId>,
}

impl Client {
    fn new(world: &World) -> Self {
        Self { store: world.connect(), open: None }
    }

    /// What comes of a deed. Numbers of transactions are the store's own business.
    fn act(&mut self, deed: &Deed) -> Result<Option<Reply>, StoreError> {
        match deed {
            Deed::Tree(request, inside) => {
                let transaction = self.open.filter(|_| *inside);
                let mut reply = self.store.request(transaction, request)?;
                if let Reply::Children(names) = &mut reply {
                    names.sort();
                }
                Ok(Some(reply))
            }
            Deed::Begin if self.open.is_none() => {
                self.open = Some(self.store.begin()?);
                Ok(None)
            }
            Deed::Begin => Ok(None),
            Deed::End(end) => match self.open.take() {
                Some(open) => self.store.end(open, *end).map(|()| None),
                None => Ok(None),
            },
        }
    }
}

fn everything(store: &mut dyn Store, at: &NodePath) -> Result<Vec<String>, StoreError> {
    let mut all = Vec::new();
    let value = match store.read(None, at) {
        Err(StoreError::Refused(Refusal::NotFound)) => return Ok(all),
        value => value?,
    };
    let permissions: Vec<String> = store.permissions(None, at)?.iter().map(ToString::to_string).collect();
    all.push(format!("{at} = {value:?} {permissions:?}"));
    let mut names = store.directory(None, at)?;
    names.sort();
    for name in names {
        all.extend(everything(store, &at.child(&name)?)?);
    }
    Ok(all)
}

#[test]
fn the_store_in_memory_answers_what_the_real_one_answers() -> Tested {
    let Some(real) = real_store() else { return Ok(()) };
    let memory = World::Memory(Server::new());
    let deeds = prop::collection::vec((0..2_usize, any_deed()), 1..40);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config).run(&deeds, |deeds| {
        let mut clients = [&memory, &real].map(|world| [Client::new(world), Client::new(world)]);
        let mut watchers = [&memory, &real].map(World::connect);
        for store in &mut watchers {
            match store.remove(None, &path("/t").expect("a path")) {
                Ok(()) | Err(StoreError::Refused(Refusal::NotFound)) => {}
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
            for (at, token) in [("/t", "all"), ("/t/a/b", "below")] {
                store.watch(&path(at).expect("a path").into(), token).expect("a watch");
            }
        }
        let mut disturbed = [false; 2];
        for (number, (who, deed)) in deeds.iter().enumerate() {
            let [memory, real] = &mut clients;
            let inside = matches!(deed, Deed::Tree(_, true)) && memory[*who].open.is_some();
            let begins = matches!(deed, Deed::Begin) && memory[*who].open.is_none();
            let answers = [memory[*who].act(deed), real[*who].act(deed)];
            if inside && disturbed[*who] {
                // It can be doomed, and what it is told then depends on how the store keeps what it has seen. It must
                // only not become true.
                continue;
            }
            prop_assert_eq!(&answers[0], &answers[1], "deed {} {:?}", number, deed);
            if !inside {
                disturbed = [true; 2];
            }
            if begins {
                disturbed[*who] = false;
            }
        }
        let root = path("/t").expect("a path");
        let [memory, real] = &mut watchers;
        // How often, and in which order, is not promised.
        let heard = [memory, real].map(|store| events(&mut **store).map(BTreeSet::from_iter));
        let [in_memory, in_real]: [Result<BTreeSet<_>, _>; 2] = heard;
        prop_assert_eq!(in_memory, in_real);
        let [memory, real] = &mut watchers;
        prop_assert_eq!(everything(&mut **memory, &root), everything(&mut **real, &root));
        Ok(())
    })?;
    Ok(())
}
