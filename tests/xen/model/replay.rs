//! Code as a function of the answers it gets.

use std::time::Duration;

use pcidevs::DomainId;
use pcidevs::xen::store::{Event, Reply, Request, Store, StoreError, TransactionId};

/// What a party asks for next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ask {
    Request(Option<TransactionId>, Request),
    /// The next event, or the end of its patience.
    Event,
    /// That a guest dies.
    Death(DomainId),
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Reply(Result<Reply, StoreError>),
    Event(Option<Event>),
}

/// A store that repeats what a party was told before, and notes the first thing that it asks beyond that.
///
/// From then on it is closed, so that the code comes to an end; what it does until then is not looked at.
pub(super) struct Replay<'a> {
    answers: std::slice::Iter<'a, Answer>,
    pub(super) ask: Option<Ask>,
}

impl<'a> Replay<'a> {
    pub(super) fn new(answers: &'a [Answer]) -> Self {
        Self { answers: answers.iter(), ask: None }
    }

    fn answer(&mut self, ask: impl FnOnce() -> Ask) -> Option<&'a Answer> {
        if self.ask.is_some() {
            return None;
        }
        let answer = self.answers.next();
        if answer.is_none() {
            self.ask = Some(ask());
        }
        answer
    }

    pub(super) fn kill(&mut self, guest: DomainId) -> Result<(), StoreError> {
        match self.answer(|| Ask::Death(guest)) {
            Some(_) => Ok(()),
            None => Err(StoreError::Closed),
        }
    }
}

impl Store for Replay<'_> {
    fn request(
        &mut self,
        transaction: Option<TransactionId>,
        request: &Request,
    ) -> Result<Reply, StoreError> {
        match self.answer(|| Ask::Request(transaction, request.clone())) {
            Some(Answer::Reply(reply)) => reply.clone(),
            Some(Answer::Event(_)) => panic!("the code did something else with the same answers"),
            None => Err(StoreError::Closed),
        }
    }

    fn next_event(&mut self, _until: Duration) -> Result<Option<Event>, StoreError> {
        match self.answer(|| Ask::Event) {
            Some(Answer::Event(event)) => Ok(event.clone()),
            Some(Answer::Reply(_)) => panic!("the code did something else with the same answers"),
            None => Err(StoreError::Closed),
        }
    }

    /// Whether the time is up is the explorer's choice and not the clock's.
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}
