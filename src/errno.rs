//! Error numbers, as a C caller of the embedder expects them.

use core::fmt;

/// An error number in the numbering that Linux and Xen share.
///
/// Every error of this crate has a method `errno`, so that an embedder with a C interface returns `-errno`.
///
/// ```
/// use pcidevs::Errno;
/// assert_eq!(Errno::EBUSY.number(), 16);
/// assert_eq!(Errno::EBUSY.to_string(), "EBUSY");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(i32);

macro_rules! numbers {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal,)*) => {
        impl Errno {
            $($(#[doc = $doc])* pub const $name: Self = Self($number);)*

            const NAMES: &[(i32, &'static str)] = &[$(($number, stringify!($name)),)*];
        }
    };
}

numbers! {
    /// Not permitted.
    EPERM = 1,
    /// There is no such file.
    ENOENT = 2,
    /// There is no such domain.
    ESRCH = 3,
    /// The hardware or its driver failed.
    EIO = 5,
    /// Broken: refused until repaired.
    EBADF = 9,
    /// Try again.
    EAGAIN = 11,
    /// No memory.
    ENOMEM = 12,
    /// Whoever asks may not.
    EACCES = 13,
    /// Somebody is in the way.
    EBUSY = 16,
    /// It exists already.
    EEXIST = 17,
    /// The guest cannot take devices.
    EXDEV = 18,
    /// There is no such device.
    ENODEV = 19,
    /// What was asked for makes no sense.
    EINVAL = 22,
    /// It is larger than it may be.
    EFBIG = 27,
    /// No room is left.
    ENOSPC = 28,
    /// The number is out of range.
    ERANGE = 34,
    /// The calling thread would wait for itself.
    EDEADLK = 35,
    /// The platform cannot do this.
    EOPNOTSUPP = 95,
    /// The time is up.
    ETIMEDOUT = 110,
    /// Called off.
    ECANCELED = 125,
}

impl Errno {
    /// The error of this number, for instance from a system call. Numbers without a name here are kept.
    pub const fn new(number: i32) -> Self {
        Self(number)
    }

    /// The number, positive.
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.pad(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}
