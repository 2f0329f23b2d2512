//! One connection: one request at a time, events in between.

use std::fmt;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::inbox::Inbox;
use super::message::{HEADER, Header, Message, PAYLOAD, directory_part, encode, kind, payload, take};
use super::reply;
use super::transport::Transport;
use crate::xen::store::{Event, NodePath, Refusal, Reply, Request, Store, StoreError, TransactionId};

/// How long the store may take for an answer unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a list of children that are kept at most.
const CHILDREN: usize = 1 << 20;

/// How often a list of children that changes between two parts is begun anew.
const RESTARTS: u32 = 16;

/// A connection to a real store.
///
/// Its transactions and watches live in the store, and end with the connection. After an error that is not the store's
/// own answer nothing can be said about what the other side thinks, and every further request is
/// [`Closed`](StoreError::Closed).
pub struct Connection<T> {
    transport: T,
    received: Vec<u8>,
    inbox: Inbox,
    last_request: u32,
    patience: Duration,
    began: Instant,
    ended: bool,
}

impl<T> fmt::Debug for Connection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("inbox", &self.inbox)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl<T: Transport> Connection<T> {
    /// On a stream that does not block.
    pub fn new(transport: T) -> Self {
        Self {
            transport,
            received: Vec::new(),
            inbox: Inbox::default(),
            last_request: 0,
            patience: PATIENCE,
            began: Instant::now(),
            ended: false,
        }
    }

    /// How long the store may take for an answer.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn exchange(&mut self, kind: u32, transaction: u32, payload: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.last_request = self.last_request.wrapping_add(1);
        let message = encode(kind, self.last_request, transaction, payload)?;
        if self.ended {
            return Err(StoreError::Closed);
        }
        // Until the answer is here nobody knows where in the stream we are.
        self.ended = true;
        let until = self.now().saturating_add(self.patience);
        self.send(&message, until)?;
        let Message { header, payload } = loop {
            match self.receive(until)? {
                None => return Err(StoreError::Stalled),
                Some(message) if message.header.kind == kind::WATCH_EVENT => self.keep(&message)?,
                Some(message) => break message,
            }
        };
        let expected =
            Header { kind: header.kind, request: self.last_request, transaction, length: header.length };
        if header != expected {
            return Err(StoreError::Malformed("an answer to another request"));
        }
        match header.kind {
            kind::ERROR => {
                let refusal = reply::refusal(&payload)?;
                self.ended = false;
                Err(refusal.into())
            }
            answer if answer == kind => {
                self.ended = false;
                Ok(payload)
            }
            _ => Err(StoreError::Malformed("an answer of another kind")),
        }
    }

    fn keep(&mut self, message: &Message) -> Result<(), StoreError> {
        self.inbox.put(reply::event(&message.payload)?);
        Ok(())
    }

    fn send(&mut self, mut message: &[u8], until: Duration) -> Result<(), StoreError> {
        while !message.is_empty() {
            match self.transport.write(message) {
                Ok(0) => return Err(StoreError::Closed),
                Ok(written) => message = &message[written..],
                Err(error) => {
                    retry(error)?;
                    if !self.wait(PollFlags::OUT, until)? {
                        return Err(StoreError::Stalled);
                    }
                }
            }
        }
        Ok(())
    }

    /// The next message; `None` if it is not here at that time. What has come of it is kept.
    fn receive(&mut self, until: Duration) -> Result<Option<Message>, StoreError> {
        let mut bytes = [0; HEADER + PAYLOAD];
        loop {
            if let Some(message) = take(&mut self.received)? {
                return Ok(Some(message));
            }
            match self.transport.read(&mut bytes) {
                Ok(0) => return Err(StoreError::Closed),
                Ok(read) => self.received.extend_from_slice(&bytes[..read]),
                Err(error) => {
                    retry(error)?;
                    if !self.wait(PollFlags::IN, until)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Whether the stream is ready before that time.
    fn wait(&self, readiness: PollFlags, until: Duration) -> Result<bool, StoreError> {
        let left = until.saturating_sub(self.now());
        // What no clock can hold is no limit.
        let limit = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&self.transport, readiness)], limit.as_ref()) {
            // A stream that has failed or ended is ready: reading says so.
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(!left.is_zero()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// A list of children that fits no message comes in parts. Each says of which list it is.
    fn children(&mut self, transaction: u32, path: &NodePath) -> Result<Reply, StoreError> {
        'anew: for _ in 0..RESTARTS {
            let (mut names, mut offset, mut generation) = (Vec::new(), 0, None);
            loop {
                let payload =
                    self.exchange(kind::DIRECTORY_PART, transaction, &directory_part(path, offset))?;
                let part = self.checked(|| reply::part(&payload))?;
                if *generation.get_or_insert_with(|| part.generation.to_owned()) != part.generation {
                    continue 'anew;
                }
                names.extend(part.names);
                offset += part.bytes;
                if part.last {
                    return Ok(Reply::Children(names));
                }
                if part.bytes == 0 || offset > CHILDREN {
                    return self.checked(|| Err(StoreError::Malformed("a list of children without an end")));
                }
            }
        }
        Err(StoreError::Conflicts { attempts: RESTARTS })
    }

    /// An answer that makes no sense ends the connection.
    fn checked<R>(&mut self, read: impl FnOnce() -> Result<R, StoreError>) -> Result<R, StoreError> {
        let result = read();
        self.ended |= result.is_err();
        result
    }
}

/// Whether to wait and try again.
fn retry(error: io::Error) -> Result<(), StoreError> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(()),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Err(StoreError::Closed),
        _ => Err(error.into()),
    }
}

impl<T: Transport> Store for Connection<T> {
    fn request(
        &mut self,
        transaction: Option<TransactionId>,
        request: &Request,
    ) -> Result<Reply, StoreError> {
        let transaction = transaction.map_or(0, TransactionId::number);
        // A zero byte would end the string early, and the store would see another request.
        if let Request::Watch(_, token) | Request::Unwatch(_, token) = request
            && token.contains('\0')
        {
            return Err(Refusal::Invalid.into());
        }
        let (kind, bytes) = payload(request);
        // The first event of a watch can come before the answer.
        if let Request::Watch(watched, token) = request {
            self.inbox.watch(watched, token);
        }
        let result = match (self.exchange(kind, transaction, &bytes), request) {
            (Err(StoreError::Refused(Refusal::TooBig)), Request::Directory(path)) => {
                self.children(transaction, path)
            }
            (result, _) => result.and_then(|payload| self.checked(|| reply::reply(request, payload))),
        };
        match (request, &result) {
            // One of the same name that is there already stays.
            (Request::Watch(..), Err(StoreError::Refused(Refusal::Exists))) => self.inbox.forget_last(),
            (Request::Unwatch(watched, token), Ok(_)) | (Request::Watch(watched, token), Err(_)) => {
                self.inbox.unwatch(watched, token);
            }
            _ => {}
        }
        result
    }

    fn next_event(&mut self, until: Duration) -> Result<Option<Event>, StoreError> {
        loop {
            if let Some(event) = self.inbox.take() {
                return Ok(Some(event));
            }
            if self.ended {
                return Err(StoreError::Closed);
            }
            self.ended = true;
            let received = self.receive(until)?;
            match received {
                None => {
                    self.ended = false;
                    return Ok(None);
                }
                Some(message) if message.header.kind == kind::WATCH_EVENT => self.keep(&message)?,
                Some(_) => return Err(StoreError::Malformed("an answer that nobody asked for")),
            }
            self.ended = false;
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}
