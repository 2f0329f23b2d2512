//! The hooks by name, and the record of their calls.

use core::fmt;

use super::fault::Fault;
use crate::address::Sbdf;
use crate::owner::{DomainId, Owner};
use crate::platform::{GroupId, Request, ResetKind, ResetScope, Switch, Width};
use crate::transition::Transition;

macro_rules! hooks {
    ($($hook:ident = $name:literal,)*) => {
        /// A hook of [`Platform`](crate::platform::Platform), by name. (The clock is none: it is never counted.)
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Hook {
            $(
                #[doc = concat!("[`", $name, "`](crate::platform::Platform::", $name, ")")]
                $hook,
            )*
        }

        impl Hook {
            /// All of them, in the order of the trait.
            pub const ALL: &[Self] = &[$(Self::$hook,)*];

            /// The method's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$hook => $name,)* }
            }
        }
    };
}

hooks! {
    ConfigRead = "config_read",
    ConfigWrite = "config_write",
    Facts = "facts",
    Permit = "permit",
    HasDriver = "has_driver",
    GroupInUse = "group_in_use",
    IommuAttach = "iommu_attach",
    IommuBlock = "iommu_block",
    IommuDetach = "iommu_detach",
    IommuFlush = "iommu_flush",
    DmaBlocked = "dma_blocked",
    SetAts = "set_ats",
    AwaitIdle = "await_idle",
    ResetScope = "reset_scope",
    Reset = "reset",
    MsixPrepare = "msix_prepare",
    MsixRelease = "msix_release",
    Bind = "bind",
    AskUnplug = "ask_unplug",
    StopGuest = "stop_guest",
}

impl Hook {
    /// Whether it accesses configuration space: counted, recorded and made to fail only on request.
    pub const fn is_config(self) -> bool {
        matches!(self, Self::ConfigRead | Self::ConfigWrite)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One call of a hook, as it was recorded.
///
/// Its text is made for comparing: `iommu_attach 0000:03:00.0 as 0000:03:00.4, domain 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which hook.
    pub hook: Hook,
    /// For which device; `None` for a group.
    pub device: Option<Sbdf>,
    /// For which of its requester IDs, where the hook is told.
    pub requester: Option<Sbdf>,
    /// What else the hook was told.
    pub detail: Detail,
    /// What was done to it.
    pub fault: Option<Fault>,
}

/// What a hook is told beside device and requester ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing.
    None,
    /// The new owner, of an IOMMU entry or of what is bound.
    Owner(Owner),
    /// On or off.
    Switch(Switch),
    /// The request the policy judges.
    Request(Request),
    /// Why a reset's scope is asked for.
    Why(Transition),
    /// What is reset, and how.
    Reset(ResetScope, Option<ResetKind>),
    /// The guest that is asked or stopped.
    Guest(DomainId),
    /// The group.
    Group(GroupId),
    /// A configuration access; `value` is what is written.
    Access {
        /// In bytes.
        offset: u16,
        /// How wide.
        width: Width,
        /// What is written; `None` for a read.
        value: Option<u32>,
    },
}

impl Call {
    pub(super) const fn of(hook: Hook, device: Sbdf) -> Self {
        Self { device: Some(device), ..Self::without_device(hook) }
    }

    pub(super) const fn without_device(hook: Hook) -> Self {
        Self { hook, device: None, requester: None, detail: Detail::None, fault: None }
    }

    pub(super) const fn requester(self, requester: Sbdf) -> Self {
        Self { requester: Some(requester), ..self }
    }

    pub(super) const fn detail(self, detail: Detail) -> Self {
        Self { detail, ..self }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hook.name())?;
        if let Some(device) = self.device {
            write!(f, " {device}")?;
        }
        if let Some(requester) = self.requester {
            write!(f, " as {requester}")?;
        }
        match self.detail {
            Detail::None => Ok(()),
            Detail::Owner(owner) => write!(f, ", {owner}"),
            Detail::Switch(Switch::On) => f.write_str(", on"),
            Detail::Switch(Switch::Off) => f.write_str(", off"),
            Detail::Request(request) => write!(f, ", {} to {}", request.transition, request.to),
            Detail::Why(transition) => write!(f, ", {transition}"),
            Detail::Reset(scope, None) => write!(f, ", {scope:?}"),
            Detail::Reset(scope, Some(kind)) => write!(f, ", {scope:?} {kind:?}"),
            Detail::Guest(guest) => write!(f, ", domain {guest}"),
            Detail::Group(group) => write!(f, " {}", group.0),
            Detail::Access { offset, value: None, .. } => write!(f, ", {offset:#x}"),
            Detail::Access { offset, value: Some(value), .. } => write!(f, ", {offset:#x} = {value:#x}"),
        }?;
        match self.fault {
            None => Ok(()),
            Some(fault) => write!(f, ": {fault}"),
        }
    }
}
