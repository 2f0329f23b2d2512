//! One device, as far as the contract knows it.

use pcidevs::platform::{AttachmentKind, GroupId};
use pcidevs::{Owner, Sbdf};

use crate::machine::Function;
use crate::operations::Attached;

/// One device that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// Tells it from earlier and later ones at its address.
    pub(crate) instance: u32,
    pub(crate) owner: Owner,
    /// Where its guest sees it.
    pub(crate) seen_at: Option<Sbdf>,
    /// On its guest's list because its DMA may reach the guest, and for nothing else.
    pub(crate) dma_of: bool,
    pub(crate) broken: bool,
    pub(crate) removing: bool,
    /// Goes back to quarantine.
    pub(crate) sticky: bool,
    /// In quarantine until its group can go to the host.
    pub(crate) deferred: bool,
    pub(crate) read_only: bool,
    pub(crate) asked: bool,
    pub(crate) msix_table: bool,
    pub(crate) extended: bool,
    /// What its owner sees of it is set up.
    pub(crate) viewed: bool,
    pub(crate) attached: Vec<Attached>,
    /// What another owner was to see could not be taken away again.
    pub(crate) stuck: bool,
    pub(crate) bridge: Option<Sbdf>,
    pub(crate) pf: Option<Sbdf>,
    pub(crate) requesters: Vec<Sbdf>,
    pub(crate) group: Option<Group>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Platform(GroupId),
    /// Behind this bridge, which speaks for them.
    Alias(Sbdf),
}

impl Device {
    pub(crate) fn is_bridge(at: Sbdf) -> bool {
        Function::find(at).is_bridge()
    }

    pub(super) fn shares_requester(&self, other: &Self) -> bool {
        self.requesters.iter().any(|id| other.requesters.contains(id))
    }

    /// It reaches no memory, or ought not to.
    pub(super) fn is_blocked(&self) -> bool {
        self.broken || matches!(self.owner, Owner::Quarantine | Owner::Hidden)
    }

    /// Its binding ends: attachments, and what the owner asked for.
    pub(super) fn unbind(&mut self) {
        (self.viewed, self.stuck) = (false, false);
        self.attached.clear();
    }

    /// It is with another owner.
    pub(crate) fn settle(&mut self, to: Owner, seen_at: Option<Sbdf>) {
        self.unbind();
        (self.owner, self.seen_at, self.dma_of) = (to, seen_at, false);
        self.viewed = matches!(to, Owner::Host | Owner::Guest(_));
        self.asked = false;
        self.deferred &= to == Owner::Quarantine;
        self.read_only = false;
    }

    /// What lists show, in order of registration.
    pub(crate) fn attachments(&self) -> Vec<AttachmentKind> {
        let view = self.viewed.then_some(AttachmentKind::Vpci);
        let table = self.msix_table.then_some(AttachmentKind::MsixTable);
        let stuck = self.stuck.then_some(AttachmentKind::Vpci);
        let registered = self.attached.iter().map(|kind| kind.kind());
        view.into_iter().chain(registered).chain(stuck).chain(table).collect()
    }
}
