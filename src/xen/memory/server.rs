//! A database that threads share, and the connections to it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::database::{ConnectionId, Database};
use super::limits::Limits;
use super::tree::HOST;
use crate::owner::DomainId;
use crate::xen::store::{Event, Reply, Request, Store, StoreError, TransactionId};

/// How time passes for those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Clock {
    /// As it does.
    Real,
    /// Only by waiting: who waits for an event that is not there has waited as long as it said, at once.
    Simulated,
}

#[derive(Debug)]
struct Shared {
    database: Mutex<(Database, Duration)>,
    changed: Condvar,
    clock: Clock,
    began: Instant,
}

impl Shared {
    /// A thread that panics leaves the database as it was before or after a request: there is nothing else in the lock.
    fn lock(&self) -> MutexGuard<'_, (Database, Duration)> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store in memory. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Server(Arc<Shared>);

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// An empty one, on the real clock.
    pub fn new() -> Self {
        Self::with(Limits::default(), Clock::Real)
    }

    /// An empty one with these quotas, on this clock.
    pub fn with(limits: Limits, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            database: Mutex::new((Database::new(limits), Duration::ZERO)),
            changed: Condvar::new(),
            clock,
            began: Instant::now(),
        }))
    }

    /// A connection of the host.
    pub fn connect(&self) -> Connection {
        self.connect_as(HOST)
    }

    /// A connection of a domain, with its permissions and quotas.
    pub fn connect_as(&self, domain: DomainId) -> Connection {
        Connection { id: self.0.lock().0.connect(domain), server: Self(Arc::clone(&self.0)) }
    }

    /// Looks at the database, or does something to it that no request does: let a guest die, refuse commits.
    pub fn with_database<T>(&self, look: impl FnOnce(&mut Database) -> T) -> T {
        let result = look(&mut self.0.lock().0);
        self.0.changed.notify_all();
        result
    }
}

/// A connection to a [`Server`]. Its transactions and watches end with it.
#[derive(Debug)]
pub struct Connection {
    server: Server,
    id: ConnectionId,
}

impl Store for Connection {
    fn request(
        &mut self,
        transaction: Option<TransactionId>,
        request: &Request,
    ) -> Result<Reply, StoreError> {
        self.server.with_database(|database| database.request(self.id, transaction, request))
    }

    fn next_event(&mut self, until: Duration) -> Result<Option<Event>, StoreError> {
        let shared = &*self.server.0;
        let mut state = shared.lock();
        loop {
            if let Some(event) = state.0.take_event(self.id) {
                return Ok(Some(event));
            }
            if shared.clock == Clock::Simulated {
                state.1 = state.1.max(until);
                return Ok(None);
            }
            let Some(left) = until.checked_sub(shared.began.elapsed()).filter(|left| !left.is_zero()) else {
                return Ok(None);
            };
            let waited = shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn now(&self) -> Duration {
        match self.server.0.clock {
            Clock::Real => self.server.0.began.elapsed(),
            Clock::Simulated => self.server.0.lock().1,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.server.with_database(|database| database.disconnect(self.id));
    }
}
