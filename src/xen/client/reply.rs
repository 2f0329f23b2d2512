//! What comes back, checked: nothing of it is trusted.

use std::num::NonZeroU32;

use crate::xen::store::{
    Event, NodePath, Permission, Refusal, Reply, Request, StoreError, TransactionId, Watched,
};

/// The longest name of an error that is kept.
const ERROR_NAME: usize = 32;

/// The answer to this request.
pub(super) fn reply(request: &Request, payload: Vec<u8>) -> Result<Reply, StoreError> {
    match request {
        Request::Read(_) => Ok(Reply::Value(payload)),
        Request::Directory(_) => {
            let names: Vec<_> = strings(&payload)?.map(name).collect::<Result<_, _>>()?;
            Ok(Reply::Children(names))
        }
        Request::Permissions(_) => {
            let parse = |text: &str| text.parse().map_err(|_| StoreError::Malformed("a permission"));
            let permissions: Vec<Permission> = strings(&payload)?.map(parse).collect::<Result<_, _>>()?;
            if permissions.is_empty() {
                return Err(StoreError::Malformed("a node without permissions"));
            }
            Ok(Reply::Permissions(permissions))
        }
        Request::Begin => {
            let text = one(&payload)?;
            let number =
                if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None };
            let number =
                number.and_then(NonZeroU32::new).ok_or(StoreError::Malformed("a transaction's number"))?;
            Ok(Reply::Transaction(TransactionId::new(number)))
        }
        Request::IsIntroduced(_) => match one(&payload)? {
            "T" => Ok(Reply::Flag(true)),
            "F" => Ok(Reply::Flag(false)),
            _ => Err(StoreError::Malformed("neither T nor F")),
        },
        Request::DomainPath(_) => match NodePath::new(one(&payload)?) {
            Ok(path) => Ok(Reply::Path(path)),
            Err(_) => Err(StoreError::Malformed("a domain's path")),
        },
        _ => match one(&payload)? {
            "OK" => Ok(Reply::Done),
            _ => Err(StoreError::Malformed("not OK")),
        },
    }
}

/// The name of an error.
pub(super) fn refusal(payload: &[u8]) -> Result<Refusal, StoreError> {
    let name = one(payload)?;
    let plausible =
        name.starts_with('E') && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    if !plausible || name.len() > ERROR_NAME {
        return Err(StoreError::Malformed("the name of an error"));
    }
    Ok(Refusal::named(name))
}

/// An event of a watch.
pub(super) fn event(payload: &[u8]) -> Result<Event, StoreError> {
    let mut strings = strings(payload)?;
    let (Some(path), Some(token), None) = (strings.next(), strings.next(), strings.next()) else {
        return Err(StoreError::Malformed("an event without a path and a token"));
    };
    let path = Watched::new(path).map_err(|_| StoreError::Malformed("the path of an event"))?;
    Ok(Event { path, token: token.to_owned() })
}

/// A part of a list of children.
pub(super) struct Part<'a> {
    /// Changes when the list does.
    pub(super) generation: &'a str,
    pub(super) names: Vec<String>,
    /// Bytes of the list that are in this part.
    pub(super) bytes: usize,
    /// There is no more.
    pub(super) last: bool,
}

/// Reads a part: a generation, names, and an empty name after the last one.
pub(super) fn part(payload: &[u8]) -> Result<Part<'_>, StoreError> {
    let mut strings = strings(payload)?;
    let generation = strings.next().ok_or(StoreError::Malformed("a part without a generation"))?;
    let mut part = Part { generation, names: Vec::new(), bytes: 0, last: false };
    for text in strings {
        match text {
            _ if part.last => return Err(StoreError::Malformed("a name after the last one")),
            "" => part.last = true,
            text => {
                part.bytes += text.len() + 1;
                part.names.push(name(text)?);
            }
        }
    }
    Ok(part)
}

fn name(text: &str) -> Result<String, StoreError> {
    // A name that is not one could be taken for another node's path.
    match NodePath::root().child(text) {
        Ok(path) if path.name() == text && !text.is_empty() => Ok(text.to_owned()),
        _ => Err(StoreError::Malformed("the name of a node")),
    }
}

fn one(payload: &[u8]) -> Result<&str, StoreError> {
    let mut strings = strings(payload)?;
    match (strings.next(), strings.next()) {
        (Some(string), None) => Ok(string),
        _ => Err(StoreError::Malformed("not one string")),
    }
}

/// Strings, each with a zero byte at its end.
fn strings(payload: &[u8]) -> Result<impl Iterator<Item = &str>, StoreError> {
    let text = str::from_utf8(payload).map_err(|_| StoreError::Malformed("no text"))?;
    if !text.is_empty() && !text.ends_with('\0') {
        return Err(StoreError::Malformed("a string without an end"));
    }
    Ok(text.split_terminator('\0'))
}
