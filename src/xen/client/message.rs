//! Messages: a header of four numbers in the machine's byte order, then at most 4096 bytes.

use crate::xen::store::{End, NodePath, Request, StoreError};

/// The longest payload in either direction. A longer one makes the daemon drop the connection.
pub(super) const PAYLOAD: usize = 4096;

/// The bytes of a header.
pub(super) const HEADER: usize = 16;

/// What a message is: the protocol's numbers.
pub(super) mod kind {
    pub(in super::super) const DIRECTORY: u32 = 1;
    pub(in super::super) const READ: u32 = 2;
    pub(in super::super) const GET_PERMS: u32 = 3;
    pub(in super::super) const WATCH: u32 = 4;
    pub(in super::super) const UNWATCH: u32 = 5;
    pub(in super::super) const TRANSACTION_START: u32 = 6;
    pub(in super::super) const TRANSACTION_END: u32 = 7;
    pub(in super::super) const INTRODUCE: u32 = 8;
    pub(in super::super) const RELEASE: u32 = 9;
    pub(in super::super) const GET_DOMAIN_PATH: u32 = 10;
    pub(in super::super) const WRITE: u32 = 11;
    pub(in super::super) const MKDIR: u32 = 12;
    pub(in super::super) const RM: u32 = 13;
    pub(in super::super) const SET_PERMS: u32 = 14;
    pub(in super::super) const WATCH_EVENT: u32 = 15;
    pub(in super::super) const ERROR: u32 = 16;
    pub(in super::super) const IS_DOMAIN_INTRODUCED: u32 = 17;
    pub(in super::super) const DIRECTORY_PART: u32 = 22;
}

/// The numbers before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u32,
    pub(super) request: u32,
    pub(super) transaction: u32,
    pub(super) length: u32,
}

impl Header {
    fn bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let fields = [self.kind, self.request, self.transaction, self.length];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8; HEADER]) -> Self {
        let mut fields = bytes.chunks_exact(4).map(|field| {
            let mut number = [0; 4];
            number.copy_from_slice(field);
            u32::from_ne_bytes(number)
        });
        let mut next = || fields.next().unwrap_or_default();
        Self { kind: next(), request: next(), transaction: next(), length: next() }
    }
}

/// A whole message from the store.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
}

/// Takes the first message off `bytes` if all of it is there.
pub(super) fn take(bytes: &mut Vec<u8>) -> Result<Option<Message>, StoreError> {
    let Some(header) = bytes.first_chunk::<HEADER>().map(Header::read) else { return Ok(None) };
    let length = usize::try_from(header.length).unwrap_or(usize::MAX);
    if length > PAYLOAD {
        return Err(StoreError::Malformed("a message longer than any can be"));
    }
    if bytes.len() < HEADER + length {
        return Ok(None);
    }
    let rest = bytes.split_off(HEADER + length);
    let mut message = std::mem::replace(bytes, rest);
    message.drain(..HEADER);
    Ok(Some(Message { header, payload: message }))
}

/// A message to the store.
pub(super) fn encode(
    kind: u32,
    request: u32,
    transaction: u32,
    payload: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let length = u32::try_from(payload.len()).map_err(|_| StoreError::TooLong)?;
    if payload.len() > PAYLOAD {
        return Err(StoreError::TooLong);
    }
    let mut message = Header { kind, request, transaction, length }.bytes().to_vec();
    message.extend_from_slice(payload);
    Ok(message)
}

/// What a request is, and its payload.
pub(super) fn payload(request: &Request) -> (u32, Vec<u8>) {
    match request {
        Request::Read(path) => (kind::READ, strings([path.as_str()])),
        Request::Write(path, value) => {
            let mut payload = strings([path.as_str()]);
            payload.extend_from_slice(value);
            (kind::WRITE, payload)
        }
        Request::Mkdir(path) => (kind::MKDIR, strings([path.as_str()])),
        Request::Remove(path) => (kind::RM, strings([path.as_str()])),
        Request::Directory(path) => (kind::DIRECTORY, strings([path.as_str()])),
        Request::Permissions(path) => (kind::GET_PERMS, strings([path.as_str()])),
        Request::SetPermissions(path, permissions) => {
            let mut payload = strings([path.as_str()]);
            for permission in permissions {
                payload.extend(strings([permission.to_string().as_str()]));
            }
            (kind::SET_PERMS, payload)
        }
        Request::Begin => (kind::TRANSACTION_START, strings([""])),
        Request::End(End::Commit) => (kind::TRANSACTION_END, strings(["T"])),
        Request::End(End::Discard) => (kind::TRANSACTION_END, strings(["F"])),
        Request::Watch(watched, token) => (kind::WATCH, strings([watched.as_str(), token])),
        Request::Unwatch(watched, token) => (kind::UNWATCH, strings([watched.as_str(), token])),
        Request::Introduce { domain, frame, port } => {
            let numbers = [domain.to_string(), frame.to_string(), port.to_string()];
            (kind::INTRODUCE, strings(numbers.iter().map(String::as_str)))
        }
        Request::Release(domain) => (kind::RELEASE, strings([domain.to_string().as_str()])),
        Request::IsIntroduced(domain) => (kind::IS_DOMAIN_INTRODUCED, strings([domain.to_string().as_str()])),
        Request::DomainPath(domain) => (kind::GET_DOMAIN_PATH, strings([domain.to_string().as_str()])),
    }
}

/// Asks for the children of a node from a byte of their list on.
pub(super) fn directory_part(path: &NodePath, offset: usize) -> Vec<u8> {
    strings([path.as_str(), offset.to_string().as_str()])
}

fn strings<'a>(strings: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for string in strings {
        bytes.extend_from_slice(string.as_bytes());
        bytes.push(0);
    }
    bytes
}
