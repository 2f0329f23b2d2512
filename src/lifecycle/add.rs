//! A device becomes known: built up while nobody can see it, and published whole, or unknown again.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use super::Lifecycle;
use super::claims::Way;
use super::departure::{self, Departure};
use super::device::{Bound, Condition, Device, Link, Links};
use super::error::TransitionError;
use super::event::Span;
use super::group::{Group, GroupClaim, Key};
use super::hand::{Newcomer, Work};
use super::known::{Known, Read, addresses_behind};
use super::requester::RequesterClaims;
use super::steps;
use super::topology::Topology;
use super::transaction::{Transaction, ask, guarded};
use super::transfer::Change;
use crate::Sbdf;
use crate::device::{BridgeKind, BusRange};
use crate::memory::Shared;
use crate::owner::Owner;
use crate::platform::{Binding, Facts, Platform, Request};
use crate::refcount::{Busy, Holder};
use crate::registry::{AddRefused, Afterwards, Arriving, Member};
use crate::sync::{Site, weakened};
use crate::transition::Transition;

/// What the one who reports a device knows of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The physical function, if it is a virtual one.
    pub physical_function: Option<Sbdf>,
    /// Its function number is 8 bits wide (ARI). A virtual function inherits this.
    pub is_extended_function: bool,
}

/// A device was reported.
#[derive(Debug, PartialEq, Eq)]
pub enum Added<D> {
    /// It is new, and with the host.
    New,
    /// It was known, its node and information are up to date, and if it had no owner it is the host's now. The data
    /// comes back.
    Again(D),
}

/// A device was not added: it is unknown, as before. Its data comes back.
pub struct AddDeviceError<D> {
    /// What was to be added.
    pub data: D,
    /// Why it was not.
    pub reason: TransitionError,
}

impl<D> fmt::Debug for AddDeviceError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddDeviceError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<D> fmt::Display for AddDeviceError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)
    }
}

impl<D> core::error::Error for AddDeviceError<D> {}

/// The groups of a device that comes with others' requester IDs.
type GroupClaims<P> = Vec<GroupClaim<<P as Platform>::Lock>>;

/// Everything about a new device but its data.
struct Prepared<P: Platform> {
    known: Shared<Known<P::Lock>>,
    links: Links<P>,
    departure: Box<Departure<P>>,
    condition: Condition,
}

impl<P: Platform> Prepared<P> {
    fn with_data(self, data: P::Data) -> Device<P> {
        Device::new(self.known, self.links, self.departure, self.condition, data)
    }
}

/// What the host sees of a device that entered, and its groups, still claimed.
type Entrance<P> = (Binding<<P as Platform>::Data>, GroupClaims<P>);

impl<P: Platform> Lifecycle<P> {
    /// The host reports a device.
    ///
    /// A new one is set up for the host (what it sees, then the IOMMU under every requester ID) and is known from
    /// one instant on; on failure it is unknown again. Bridges come before what is behind them, physical functions
    /// before their virtual ones.
    pub fn add(
        &self,
        address: Sbdf,
        info: DeviceInfo,
        data: P::Data,
    ) -> Result<Added<P::Data>, AddDeviceError<P::Data>> {
        let span = Span::begin(self, Transition::Add);
        match self.registry().arrive(address) {
            Ok(arriving) => match self.add_new(address, info, data, arriving, &span) {
                Ok(()) => Ok(Added::New),
                Err(error) => {
                    span.report(address, None, Some(Owner::Host), Some(&error.reason));
                    Err(error)
                }
            },
            Err(AddRefused::Exists(_)) => {
                let owner = || self.lock(address).ok().map(|device| device.owner());
                let before = owner();
                let again = self.add_again(address, info);
                span.report(address, before, owner(), again.as_ref().err());
                match again {
                    Ok(()) => Ok(Added::Again(data)),
                    Err(reason) => Err(AddDeviceError { data, reason }),
                }
            }
            Err(refused) => {
                let reason = TransitionError::of_add(address, refused);
                span.report(address, None, Some(Owner::Host), Some(&reason));
                Err(AddDeviceError { data, reason })
            }
        }
    }

    fn add_new(
        &self,
        address: Sbdf,
        info: DeviceInfo,
        data: P::Data,
        arriving: Arriving<'_, Device<P>, P::Lock>,
        span: &Span<'_, P>,
    ) -> Result<(), AddDeviceError<P::Data>> {
        let (prepared, entered) = match self.prepare(address, info, Owner::Host) {
            Ok(prepared) => prepared,
            Err(reason) => return Err(AddDeviceError { data, reason }),
        };
        let newcomer = Newcomer { address, data: RefCell::new(data), left: RefCell::default() };
        let known = prepared.known.clone();
        let mut incoming = Incoming { newcomer: &newcomer, parts: Some((prepared, entered)) };
        let came = self.enter(&newcomer, known);
        let parts = if came.is_ok() { incoming.parts.take() } else { None };
        drop(incoming);
        let data = newcomer.data.into_inner();
        // The groups stay claimed until the device is seen in them.
        let ((view, _groups), (prepared, entered)) = match (came, parts) {
            (Ok(came), Some(parts)) => (came, parts),
            (Ok(_), None) => unreachable!("nobody else takes the parts"),
            (Err(reason), _) => return Err(AddDeviceError { data, reason }),
        };
        let mut device = prepared.with_data(data);
        device.bound = Bound::seen(view);
        span.report(address, None, Some(Owner::Host), None);
        self.publish(device, arriving, entered);
        Ok(())
    }

    /// Publishes a device, unless what it depends on has gone meanwhile: then it goes as well.
    pub(super) fn publish(
        &self,
        device: Device<P>,
        arriving: Arriving<'_, Device<P>, P::Lock>,
        entered: Entered<'_, P>,
    ) {
        self.remember(entered.address, &device.known);
        arriving.publish(device, Afterwards::Kept);
        let orphaned = self.is_orphaned(entered.address);
        let address = entered.keep();
        if orphaned {
            // Somebody else may have seen it first.
            let _gone = self.report_gone(address);
        }
    }

    /// Whether what a device depends on is gone, and the device is not: somebody who has just opened it asks.
    ///
    /// Whoever reports a bridge or a physical function gone looks for its dependants after that. Either it finds the
    /// device, which is known by now, or this finds it gone.
    pub(super) fn is_orphaned(&self, address: Sbdf) -> bool {
        self.registry().lock(address).is_ok_and(|device| {
            let links = [&device.links.bridge, &device.links.pf];
            links.into_iter().flatten().any(Link::<P>::is_gone) && !weakened(Site::PublishChecksLinks)
        })
    }

    /// The steps that make a device the host's. What could not be undone of them is left with the newcomer.
    fn enter(
        &self,
        newcomer: &Newcomer<P::Data>,
        known: Shared<Known<P::Lock>>,
    ) -> Result<Entrance<P>, TransitionError> {
        let mut work = [Work::new(newcomer, known, Bound::default(), Owner::Unowned, Owner::Host)];
        let groups = self.keep_shared(&mut work)?;
        self.check_separable(&work, steps::ENTER)?;
        self.check_groups(&work, &groups, steps::ENTER, Owner::Host)?;
        let mut transaction = Transaction::new(self.platform(), steps::ENTER, &mut work)?;
        transaction.run_or_undo(|| Ok(()))?;
        Ok((transaction.work.first_mut().and_then(|work| work.view.take()), groups))
    }

    /// Checks a new device and makes everything it needs, but publishes nothing.
    fn prepare(
        &self,
        address: Sbdf,
        info: DeviceInfo,
        to: Owner,
    ) -> Result<(Prepared<P>, Entered<'_, P>), TransitionError> {
        self.permit(&Request { transition: Transition::Add, device: address, from: None, to })?;
        let facts = guarded(|| self.platform().facts(address))
            .map_err(|error| TransitionError::failed(address, "ask for facts", error))?;
        let read = ask(address, || Read::new(self.platform(), address, &facts))??;
        let above = self.topology().come(address)?;
        let mut entered = Entered { lifecycle: self, address, group: None, known: None, claims: None };
        let (links, inherited) = self.link(address, above, info)?;
        let known = {
            let mut topology = self.topology();
            topology.add(address, read.behind)?;
            self.check_nobody_behind(address, read.behind, &topology)?;
            let upstream = topology.upstream(address)?;
            drop(topology);
            let group = self.group_for(&facts, upstream.map(crate::device::MappingBridge::alias))?;
            if let Some(group) = &group {
                group.join(address)?;
                entered.group = Some(group.clone());
            }
            Shared::try_new(read.complete(address, &facts, &self.topology(), group)?)?
        };
        entered.claims = Some(self.make_entries(address, &known)?);
        entered.known = Some(known.clone());
        if let Some(kept) = known.requesters.iter().find(|id| departure::is_kept(self, **id)) {
            return Err(TransitionError::Busy(*kept, Busy::because(Holder::DmaTeardown)));
        }
        let departure = Departure::try_new(known.clone())?;
        let extended_function = info.is_extended_function || inherited;
        let condition = Condition { extended_function, node: facts.node, ..Condition::default() };
        Ok((Prepared { known, links, departure, condition }, entered))
    }

    /// Takes the uses of what a device depends on. Also whether it inherits "extended function".
    fn link(
        &self,
        address: Sbdf,
        above: Option<Sbdf>,
        info: DeviceInfo,
    ) -> Result<(Links<P>, bool), TransitionError> {
        let mut inherited = false;
        let pf = match info.physical_function {
            None => None,
            Some(pf) => {
                let unknown = TransitionError::NoPf { vf: address, pf };
                let link: Link<P> = self.hold(pf, Holder::Vf(address))?.ok_or(unknown)?;
                inherited = link.lock().is_ok_and(|pf| pf.condition.extended_function);
                Some(link)
            }
        };
        let bridge = match above {
            None => None,
            Some(bridge) => {
                let link = self.hold(bridge, Holder::Child(address))?;
                let leaving = Busy::because(Holder::Transition(Transition::Remove));
                Some(link.ok_or(TransitionError::Busy(bridge, leaving))?)
            }
        };
        Ok((Links { bridge, pf }, inherited))
    }

    /// Whether a new bridge comes before what is behind it. The devices there hold no use of it, and their requests
    /// go out under names that it may change; they come and go for themselves, so it cannot mend that.
    ///
    /// The bridge has been entered: who comes from now on finds it above himself.
    fn check_nobody_behind(
        &self,
        bridge: Sbdf,
        behind: Option<(BridgeKind, BusRange)>,
        topology: &Topology,
    ) -> Result<(), TransitionError> {
        // Buses behind a bridge are higher than its own; what says otherwise is no bridge that works.
        let Some((_, range)) = behind.filter(|(_, range)| range.secondary > bridge.bus()) else {
            return Ok(());
        };
        let Some((first, last)) = addresses_behind(bridge, range) else { return Ok(()) };
        // First those on their way, and then those that have arrived.
        let known = || self.registry().next_device(first).filter(|at| *at <= last);
        match topology.comes_within((first, last)).or_else(known) {
            Some(behind) => Err(TransitionError::BridgeTooLate { bridge, behind }),
            None => Ok(()),
        }
    }

    /// The platform's group, or, where it has none, that of the devices with the same alias.
    fn group_for(
        &self,
        facts: &Facts,
        alias: Option<Sbdf>,
    ) -> Result<Option<Shared<Group<P::Lock>>>, TransitionError> {
        let shared = || alias.or(facts.aliases.first().copied()).map(Key::Requester);
        match facts.group.map(Key::Platform).or_else(shared) {
            Some(key) => Ok(Some(self.groups().find_or_make(key)?)),
            None => Ok(None),
        }
    }

    /// A known device is reported: its information is updated, and if it had no owner the host adopts it.
    fn add_again(&self, address: Sbdf, info: DeviceInfo) -> Result<(), TransitionError> {
        self.permit(&Request { transition: Transition::Add, device: address, from: None, to: Owner::Host })?;
        let facts = guarded(|| self.platform().facts(address))
            .map_err(|error| TransitionError::failed(address, "ask for facts", error))?;
        if let Some(pf) = info.physical_function
            && self.get(pf).is_none()
        {
            return Err(TransitionError::NoPf { vf: address, pf });
        }
        self.adopt(&[Member::new(address)])?;
        let mut device = self.lock(address).map_err(|error| TransitionError::of_access(address, error))?;
        device.condition.node = facts.node;
        // Inherited once, however it is reported again.
        if info.physical_function.is_none() && device.links.pf.is_none() {
            device.condition.extended_function = info.is_extended_function;
        }
        Ok(())
    }

    /// Those of the set that have no owner become the host's, in one publication.
    pub(super) fn adopt(&self, set: &[Member]) -> Result<(), TransitionError> {
        self.transfer(
            set,
            &Change {
                kind: Transition::Adopt,
                steps: steps::ENTER,
                to: Owner::Host,
                admit: &|device, _| {
                    // What is to be removed goes to no host driver, and what is broken waits for its repair.
                    let adopts = device.owner() == Owner::Unowned && !device.is_removing();
                    let whole = device.data().condition.broken.is_none();
                    Ok((adopts && whole).then_some(Owner::Host))
                },
                redirect: &|_, to| Ok(Way::To(to)),
                settle: &|_, _| {},
            },
        )
    }

    /// Makes a device known that has no owner yet. `false` if one is known there.
    pub(super) fn add_unowned(
        &self,
        address: Sbdf,
        make: impl FnOnce() -> P::Data,
    ) -> Result<bool, TransitionError> {
        let span = Span::begin(self, Transition::Add);
        let to = Some(Owner::Unowned);
        let refused = |error| {
            span.report(address, None, to, Some(&error));
            error
        };
        let arriving = match self.registry().arrive_unowned(address) {
            Ok(arriving) => arriving,
            Err(AddRefused::Exists(_)) => return Ok(false),
            // Its removal is pending, and perhaps for long: it is known all the same.
            Err(AddRefused::Busy(_)) if self.lock(address).is_ok() => return Ok(false),
            Err(error) => return Err(refused(TransitionError::of_add(address, error))),
        };
        let prepared = self.prepare(address, DeviceInfo::default(), Owner::Unowned);
        let (prepared, entered) = prepared.map_err(refused)?;
        span.report(address, None, to, None);
        self.publish(prepared.with_data(make()), arriving, entered);
        Ok(true)
    }
}

/// A device on its way in. Dropping it leaves to `run_deferred` what could not be undone of it.
struct Incoming<'n, 'a, P: Platform> {
    newcomer: &'n Newcomer<P::Data>,
    parts: Option<(Prepared<P>, Entered<'a, P>)>,
}

impl<P: Platform> Drop for Incoming<'_, '_, P> {
    fn drop(&mut self) {
        let (Some((prepared, entered)), Some(left)) = (self.parts.take(), self.newcomer.left.take()) else {
            return;
        };
        let lifecycle = entered.lifecycle;
        // From here on nothing of it is counted among the users of its IDs.
        drop(entered);
        lifecycle.leave_stray(prepared.departure, self.newcomer.address, left.view);
    }
}

/// What the machine's maps hold of a device that is not published yet. Dropping it takes it out again.
pub(super) struct Entered<'a, P: Platform> {
    lifecycle: &'a Lifecycle<P>,
    address: Sbdf,
    group: Option<Shared<Group<P::Lock>>>,
    known: Option<Shared<Known<P::Lock>>>,
    /// Its requester IDs: nobody who shares one comes or leaves meanwhile.
    claims: Option<RequesterClaims<'a, P>>,
}

impl<P: Platform> Entered<'_, P> {
    /// The device is known: from now on its removal takes it out.
    fn keep(self) -> Sbdf {
        let mut this = core::mem::ManuallyDrop::new(self);
        this.lifecycle.topology().arrived(this.address);
        (this.group, this.known, this.claims) = (None, None, None);
        this.address
    }
}

impl<P: Platform> Drop for Entered<'_, P> {
    fn drop(&mut self) {
        if let Some(known) = &self.known {
            self.lifecycle.leave_entries(known);
        }
        let mut topology = self.lifecycle.topology();
        topology.remove(self.address);
        topology.arrived(self.address);
        drop(topology);
        if let Some(group) = &self.group {
            group.leave(self.address);
        }
    }
}
