//! The whole state of a store, as a value.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;

use super::limits::Limits;
use super::tree::{HOST, Node, Tree};
use super::view::{Extent, Open, View, touched};
use crate::owner::DomainId;
use crate::xen::store::{
    End, Event, NodePath, Refusal, Reply, Request, Special, StoreError, TransactionId, Watched,
};

/// The longest payload of a message, as on a real connection.
const PAYLOAD: usize = 4096;

/// Names a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u32);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Connected {
    domain: DomainId,
    watches: Vec<(Watched, String)>,
    events: VecDeque<Event>,
    transactions: BTreeMap<TransactionId, Open>,
}

/// A store: nodes, connections, known guests. It takes one request at a time, and that is the order of all.
///
/// Equal databases behave alike from now on: there are no counters of what has been. So an explorer can recognise a
/// state that it has met.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Database {
    tree: Tree,
    connections: BTreeMap<ConnectionId, Connected>,
    introduced: BTreeSet<DomainId>,
    limits: Limits,
    refusals: u32,
}

impl Default for Database {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Database {
    /// A store with nothing in it but the root.
    pub fn new(limits: Limits) -> Self {
        Self {
            tree: Tree::from([(NodePath::root(), Arc::new(Node::root()))]),
            connections: BTreeMap::new(),
            introduced: BTreeSet::new(),
            limits,
            refusals: 0,
        }
    }

    /// A new connection of this domain.
    pub fn connect(&mut self, domain: DomainId) -> ConnectionId {
        let id = (0..u32::MAX).map(ConnectionId).find(|id| !self.connections.contains_key(id));
        let id = id.unwrap_or(ConnectionId(u32::MAX));
        let connected =
            Connected { domain, watches: Vec::new(), events: VecDeque::new(), transactions: BTreeMap::new() };
        self.connections.insert(id, connected);
        id
    }

    /// Ends a connection, with its transactions and watches.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }

    /// The next `commits` that would succeed end in `EAGAIN`.
    pub fn refuse(&mut self, commits: u32) {
        self.refusals = commits;
    }

    /// A guest dies: its nodes go, and those who watch for that are told.
    pub fn domain_dies(&mut self, domain: DomainId) {
        if !self.introduced.remove(&domain) {
            return;
        }
        self.connections.retain(|_, connected| connected.domain != domain);
        let mut open = Open::default();
        let owned = self.tree.iter().filter(|(path, node)| node.owner() == domain && !path.is_root());
        let owned: Vec<NodePath> = owned.map(|(path, _)| path.clone()).collect();
        for path in owned {
            // What is below one that has gone is gone as well: "not found" is what is wanted.
            let _gone = self.view(&mut open, HOST).remove(&path);
        }
        self.commit(open);
        self.tell(&Watched::Special(Special::ReleaseDomain), Extent::Upwards);
    }

    /// All nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodePath, &Node)> {
        self.tree.iter().map(|(path, node)| (path, &**node))
    }

    /// A node's value as text; `None` for one that does not exist, or is no text.
    pub fn text(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(&self.tree.get(path)?.value).ok()
    }

    /// The next event of a connection.
    pub fn take_event(&mut self, connection: ConnectionId) -> Option<Event> {
        self.connections.get_mut(&connection)?.events.pop_front()
    }

    /// Makes one event of all that wait for the same watch: it names what is watched.
    ///
    /// Whoever reads everything that is watched at each event does the same with fewer; an explorer has fewer states.
    pub fn coalesce(&mut self) {
        for connected in self.connections.values_mut() {
            let mut events = VecDeque::new();
            for event in connected.events.drain(..) {
                let watch = connected.watches.iter().find(|(watched, token)| {
                    *token == event.token && concerns(watched, &event.path, Extent::Upwards)
                });
                let path = watch.map_or(event.path, |(watched, _)| watched.clone());
                add(&mut events, Event { path, token: event.token });
            }
            connected.events = events;
        }
    }

    /// Whether a connection has an event to take.
    pub fn has_event(&self, connection: ConnectionId) -> bool {
        self.connections.get(&connection).is_some_and(|connected| !connected.events.is_empty())
    }

    /// Carries out one request.
    pub fn request(
        &mut self,
        connection: ConnectionId,
        transaction: Option<TransactionId>,
        request: &Request,
    ) -> Result<Reply, StoreError> {
        let Some(connected) = self.connections.get_mut(&connection) else { return Err(StoreError::Closed) };
        let domain = connected.domain;
        if request.payload() > PAYLOAD {
            return Err(StoreError::TooLong);
        }
        match request {
            Request::Begin => Ok(connected.begin(self.limits).map(Reply::Transaction)?),
            Request::End(end) => {
                let id = transaction.ok_or(Refusal::NotFound)?;
                let open = connected.transactions.remove(&id).ok_or(Refusal::NotFound)?;
                if *end == End::Commit {
                    self.end(open)?;
                }
                Ok(Reply::Done)
            }
            Request::Watch(watched, token) => {
                Ok(connected.watch(watched, token, self.limits).map(|()| Reply::Done)?)
            }
            Request::Unwatch(watched, token) => {
                Ok(connected.unwatch(watched, token).map(|()| Reply::Done)?)
            }
            Request::DomainPath(of) => Ok(Reply::Path(NodePath::new(&format!("/local/domain/{of}"))?)),
            Request::Introduce { .. } | Request::Release(_) | Request::IsIntroduced(_) if domain != HOST => {
                Err(Refusal::Denied.into())
            }
            Request::Introduce { domain, .. } => {
                if self.introduced.insert(*domain) {
                    self.tell(&Watched::Special(Special::IntroduceDomain), Extent::Upwards);
                }
                Ok(Reply::Done)
            }
            Request::Release(domain) if !self.introduced.contains(domain) => Err(Refusal::NotFound.into()),
            Request::Release(domain) => {
                self.domain_dies(*domain);
                Ok(Reply::Done)
            }
            Request::IsIntroduced(domain) => {
                Ok(Reply::Flag(*domain == HOST || self.introduced.contains(domain)))
            }
            request => self.on_tree(connection, transaction, request),
        }
    }

    /// A request that reads or changes nodes; without a transaction it is one of its own.
    fn on_tree(
        &mut self,
        connection: ConnectionId,
        transaction: Option<TransactionId>,
        request: &Request,
    ) -> Result<Reply, StoreError> {
        let Some(connected) = self.connections.get_mut(&connection) else { return Err(StoreError::Closed) };
        let domain = connected.domain;
        let mut open = match transaction {
            Some(id) => connected.transactions.remove(&id).ok_or(Refusal::NotFound)?,
            None => Open::default(),
        };
        let reply = carry_out(&mut self.view(&mut open, domain), request);
        match (transaction, self.connections.get_mut(&connection)) {
            (Some(id), Some(connected)) => {
                connected.transactions.insert(id, open);
            }
            _ if reply.is_ok() => self.commit(open),
            _ => {}
        }
        Ok(reply?)
    }

    fn view<'a>(&'a self, open: &'a mut Open, domain: DomainId) -> View<'a> {
        View { tree: &self.tree, open, domain, limits: self.limits }
    }

    fn end(&mut self, open: Open) -> Result<(), Refusal> {
        if open.conflict {
            return Err(Refusal::Again);
        }
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(Refusal::Again);
        }
        self.commit(open);
        Ok(())
    }

    fn commit(&mut self, open: Open) {
        let touched: Vec<NodePath> = touched(&self.tree, &open).collect();
        let others = self.connections.values_mut().flat_map(|connected| connected.transactions.values_mut());
        for other in others {
            other.conflict = other.conflict || touched.iter().any(|path| other.seen.contains(path));
        }
        // Who could read a node before or can now hears of it.
        let mut before = Tree::new();
        for (path, node) in open.changed {
            let old = match node {
                Some(node) => self.tree.insert(path.clone(), node),
                None => self.tree.remove(&path),
            };
            before.extend(old.map(|old| (path, old)));
        }
        for (path, extent) in open.events {
            let readable = [before.get(&path).cloned(), self.tree.get(&path).cloned()];
            let readers = move |domain| readable.iter().flatten().any(|node| node.access(domain).reads());
            self.tell_those(&Watched::Node(path), extent, readers);
        }
    }

    fn tell(&mut self, changed: &Watched, extent: Extent) {
        self.tell_those(changed, extent, |domain| domain == HOST);
    }

    fn tell_those(&mut self, changed: &Watched, extent: Extent, may_know: impl Fn(DomainId) -> bool) {
        for connected in self.connections.values_mut().filter(|connected| may_know(connected.domain)) {
            let (watches, events) = (&connected.watches, &mut connected.events);
            for (_, token) in watches.iter().filter(|(watched, _)| concerns(watched, changed, extent)) {
                add(events, Event { path: changed.clone(), token: token.clone() });
            }
        }
    }
}

/// Whether a change is news to a watch.
fn concerns(watched: &Watched, changed: &Watched, extent: Extent) -> bool {
    match (watched, changed, extent) {
        (Watched::Node(above), Watched::Node(path), Extent::Upwards) => path.is_within(above),
        (watched, changed, _) => watched == changed,
    }
}

/// An event that waits already says all that a second one like it would.
fn add(events: &mut VecDeque<Event>, event: Event) {
    if !events.contains(&event) {
        events.push_back(event);
    }
}

impl Connected {
    fn begin(&mut self, limits: Limits) -> Result<TransactionId, Refusal> {
        if self.domain != HOST && self.transactions.len() >= limits.transactions {
            return Err(Refusal::NoSpace);
        }
        let free = (1..=u32::MAX).filter_map(NonZeroU32::new).map(TransactionId::new);
        let id = free.into_iter().find(|id| !self.transactions.contains_key(id)).ok_or(Refusal::NoSpace)?;
        self.transactions.insert(id, Open::default());
        Ok(id)
    }

    fn watch(&mut self, watched: &Watched, token: &str, limits: Limits) -> Result<(), Refusal> {
        if self.domain != HOST && matches!(watched, Watched::Special(_)) {
            return Err(Refusal::Denied);
        }
        let watch = (watched.clone(), token.to_owned());
        if self.watches.contains(&watch) {
            return Err(Refusal::Exists);
        }
        if self.domain != HOST && self.watches.len() >= limits.watches {
            return Err(Refusal::TooBig);
        }
        self.watches.push(watch);
        // Whoever watches reads first; this makes sure of it.
        add(&mut self.events, Event { path: watched.clone(), token: token.to_owned() });
        Ok(())
    }

    fn unwatch(&mut self, watched: &Watched, token: &str) -> Result<(), Refusal> {
        let at =
            self.watches.iter().position(|(w, t)| w == watched && t == token).ok_or(Refusal::NotFound)?;
        self.watches.remove(at);
        // What came before has nobody to go to any more.
        let watches = &self.watches;
        self.events.retain(|event| watches.iter().any(|(_, token)| *token == event.token));
        Ok(())
    }
}

fn carry_out(view: &mut View<'_>, request: &Request) -> Result<Reply, Refusal> {
    let done = |()| Reply::Done;
    match request {
        Request::Read(path) => view.read(path).map(Reply::Value),
        Request::Write(path, value) => view.write(path, value).map(done),
        Request::Mkdir(path) => view.mkdir(path).map(done),
        Request::Remove(path) => view.remove(path).map(done),
        Request::Directory(path) => view.directory(path).map(Reply::Children),
        Request::Permissions(path) => view.permissions(path).map(Reply::Permissions),
        Request::SetPermissions(path, permissions) => view.set_permissions(path, permissions).map(done),
        _ => Err(Refusal::Invalid),
    }
}
