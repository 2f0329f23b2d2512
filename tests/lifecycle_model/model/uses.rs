//! Who holds a device, and what hangs on it.

use std::collections::BTreeSet;

use pcidevs::{Holder, Sbdf};

use super::Model;
use super::verdict::{DONE, Reasons, Verdict, no};
use crate::machine::Function;
use crate::operations::Attached;
use crate::stage::{HOLDER, Outcome, Reason};

/// A use of the embedder's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    pub(crate) device: Sbdf,
    pub(crate) instance: u32,
    named: bool,
}

impl Model {
    pub(super) fn take_use(&mut self, at: Sbdf, named: bool) -> Verdict {
        if !self.can_be_used(at) {
            return no(Reason::NotFound);
        }
        let instance = self.devices[&at].instance;
        self.uses.push(Use { device: at, instance, named });
        DONE
    }

    pub(super) fn can_be_used(&self, at: Sbdf) -> bool {
        self.devices.get(&at).is_some_and(|device| !device.removing)
    }

    /// Who is named as a holder of a device, but for members of `set` that depend on it.
    pub(crate) fn holders(&self, at: Sbdf, set: &[Sbdf]) -> Vec<Holder> {
        let device = &self.devices[&at];
        let mut holders: Vec<_> = device
            .owner
            .guest()
            .map(|guest| if device.dma_of { Holder::DmaOf(guest) } else { Holder::Domain(guest) })
            .into_iter()
            .collect();
        for (other, dependant) in self.devices.iter().filter(|(other, _)| !set.contains(other)) {
            holders.extend((dependant.pf == Some(at)).then_some(Holder::Vf(*other)));
            holders.extend((dependant.bridge == Some(at)).then_some(Holder::Child(*other)));
        }
        let named = self.uses_of(at).filter(|held| held.named);
        holders.extend(named.map(|_| HOLDER));
        holders
    }

    pub(crate) fn unnamed(&self, at: Sbdf) -> u32 {
        let unnamed = self.uses_of(at).filter(|held| !held.named).count();
        u32::try_from(unnamed).expect("few")
    }

    fn uses_of(&self, at: Sbdf) -> impl Iterator<Item = &Use> {
        let instance = self.devices.get(&at).map(|device| device.instance);
        self.uses.iter().filter(move |held| held.device == at && Some(held.instance) == instance)
    }

    /// How many objects the embedder's data is alive in.
    pub(crate) fn objects(&self) -> usize {
        let gone = self.uses.iter().map(|held| (held.device, held.instance));
        let left = self.teardown.iter().map(|(at, device)| (*at, device.instance));
        let gone: BTreeSet<_> = gone.chain(left).filter(|object| !self.is_live(*object)).collect();
        self.devices.len() + gone.len()
    }

    pub(super) fn msix_table(&mut self, at: Sbdf, mapped: bool) -> Verdict {
        let Some(device) = self.devices.get_mut(&at) else { return no(Reason::NotFound) };
        let mut reasons = Reasons::new();
        if !Function::find(at).has_msix() {
            reasons.insert(Reason::NoMsix);
        }
        if device.attached.contains(&Attached::Vector) {
            reasons.insert(Reason::VectorsInUse);
        }
        if !reasons.is_empty() {
            return Verdict::Refused(reasons);
        }
        device.msix_table = mapped;
        DONE
    }

    pub(super) fn detach(&mut self, at: Sbdf, kind: Attached) -> Verdict {
        match self.devices.get(&at) {
            None => no(Reason::NotFound),
            // Some of what is listed may be undone already.
            Some(device) if device.broken => Verdict::Any,
            Some(_) => Verdict::Is(Outcome::Flag(self.detached(at, kind))),
        }
    }

    /// The attachment of this kind that was registered last is the embedder's again.
    pub(crate) fn detached(&mut self, at: Sbdf, kind: Attached) -> bool {
        let Some(device) = self.devices.get_mut(&at) else { return false };
        let last = device.attached.iter().rposition(|other| *other == kind);
        if let Some(last) = last {
            device.attached.remove(last);
        }
        last.is_some()
    }
}
