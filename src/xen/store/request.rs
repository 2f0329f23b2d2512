//! What a connection can ask, and what it is told.

use std::fmt;
use std::num::NonZeroU32;

use super::path::{NodePath, Watched};
use super::permission::Permission;
use crate::owner::DomainId;

/// Names a transaction on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(NonZeroU32);

impl TransactionId {
    /// From the store's number; 0 means "no transaction".
    pub const fn new(number: NonZeroU32) -> Self {
        Self(number)
    }

    /// The store's number.
    pub const fn number(self) -> u32 {
        self.0.get()
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// Everything in it happens now, or nothing, with `EAGAIN`.
    Commit,
    /// Nothing in it happens.
    Discard,
}

/// A request. [`Store`](super::Store) has a method for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each has a method of the same name that says it")]
pub enum Request {
    Read(NodePath),
    Write(NodePath, Vec<u8>),
    Mkdir(NodePath),
    Remove(NodePath),
    Directory(NodePath),
    Permissions(NodePath),
    SetPermissions(NodePath, Vec<Permission>),
    Begin,
    End(End),
    Watch(Watched, String),
    Unwatch(Watched, String),
    Introduce { domain: DomainId, frame: u64, port: u32 },
    Release(DomainId),
    IsIntroduced(DomainId),
    DomainPath(DomainId),
}

impl Request {
    /// The bytes that it takes in a message, without the header.
    pub(in crate::xen) fn payload(&self) -> usize {
        match self {
            Self::Read(path)
            | Self::Mkdir(path)
            | Self::Remove(path)
            | Self::Directory(path)
            | Self::Permissions(path) => path.as_str().len() + 1,
            Self::Write(path, value) => path.as_str().len() + 1 + value.len(),
            Self::SetPermissions(path, permissions) => {
                path.as_str().len()
                    + 1
                    + permissions.iter().map(|one| one.to_string().len() + 1).sum::<usize>()
            }
            Self::Watch(watched, token) | Self::Unwatch(watched, token) => {
                watched.as_str().len() + token.len() + 2
            }
            // A few numbers.
            _ => 64,
        }
    }
}

/// A traffic log's line.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path) => write!(f, "read {path}"),
            Self::Write(path, value) => write!(f, "write {path} = {}", String::from_utf8_lossy(value)),
            Self::Mkdir(path) => write!(f, "mkdir {path}"),
            Self::Remove(path) => write!(f, "remove {path}"),
            Self::Directory(path) => write!(f, "directory {path}"),
            Self::Permissions(path) => write!(f, "permissions {path}"),
            Self::SetPermissions(path, permissions) => {
                write!(f, "set permissions {path} =")?;
                permissions.iter().try_for_each(|permission| write!(f, " {permission}"))
            }
            Self::Begin => f.write_str("begin"),
            Self::End(End::Commit) => f.write_str("commit"),
            Self::End(End::Discard) => f.write_str("discard"),
            Self::Watch(watched, _) => write!(f, "watch {}", watched.as_str()),
            Self::Unwatch(watched, _) => write!(f, "unwatch {}", watched.as_str()),
            Self::Introduce { domain, .. } => write!(f, "introduce {domain}"),
            Self::Release(domain) => write!(f, "release {domain}"),
            Self::IsIntroduced(domain) => write!(f, "is introduced {domain}"),
            Self::DomainPath(domain) => write!(f, "domain path {domain}"),
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reply {
    /// It is done.
    Done,
    /// A node's value.
    Value(Vec<u8>),
    /// The names of a node's children.
    Children(Vec<String>),
    /// Who may do what with a node.
    Permissions(Vec<Permission>),
    /// A transaction has begun.
    Transaction(TransactionId),
    /// Yes or no.
    Flag(bool),
    /// Where a guest's part of the tree begins.
    Path(NodePath),
}

/// Something that a watch is on may have changed: read it again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event {
    /// What may have changed: what is watched, or something below it.
    pub path: Watched,
    /// What the watch was registered with.
    pub token: String,
}
