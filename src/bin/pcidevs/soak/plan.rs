//! The recorded machine as the storm sees it: places, who depends on whom, who cannot be kept apart.
//!
//! A *place* is the index of a function. Nothing here changes while the storm blows.

use pcidevs::lifecycle::DeviceInfo;
use pcidevs::platform::{ConfigBytes, Facts, GroupId, ResetSupport};
use pcidevs::topology::{Function, Machine as Recorded};
use pcidevs::{Holder, Sbdf};

use pcidevs::device::{Express, HeaderLayout};

/// How many functions are moved together only; a quarter of the machine at most.
const BUNDLE: usize = 3;
/// Function level reset, in Device Capabilities (PCIe 6.0 §7.5.3.3).
const FLR: u32 = 1 << 28;
/// The class of a host bridge, without its programming interface.
const HOST_BRIDGE: u32 = 0x0600;

/// One function of the machine.
pub(crate) struct Place {
    pub(crate) address: Sbdf,
    /// What its configuration space holds when it is plugged in.
    pub(crate) config: Vec<u8>,
    pub(crate) info: DeviceInfo,
    pub(crate) facts: Facts,
    pub(crate) reset: ResetSupport,
    /// A guest may have it.
    pub(crate) endpoint: bool,
    /// It may stand for the devices behind it: its requests are theirs.
    pub(crate) bridge: bool,
    /// Moved as one of a set, and neither removed nor lost.
    pub(crate) bundled: bool,
    /// Its PF and the bridge it is behind, with the name under which it holds them.
    above: Vec<(usize, Holder)>,
    /// Functions that hold this one: its VFs, the devices behind it.
    below: Vec<usize>,
    /// Those that a transition of it may claim as well: its group, and what its reset may reach.
    near: Vec<usize>,
}

/// All of them, in address order.
pub(crate) struct Plan {
    places: Vec<Place>,
    bundle: Vec<usize>,
    /// What is above others first.
    order: Vec<usize>,
    pub(crate) segments: usize,
}

impl Plan {
    pub(crate) fn new(recorded: &Recorded) -> Self {
        let place_of =
            |address| recorded.functions.binary_search_by_key(&address, |function| function.address).ok();
        let mut places: Vec<_> = recorded.functions.iter().map(Place::new).collect();
        for place in 0..places.len() {
            let Function { address, physfn, .. } = recorded.functions[place];
            let bridge = recorded.parent(address).map(|bridge| bridge.address);
            let above = [(physfn, Holder::Vf(address)), (bridge, Holder::Child(address))];
            for (above, holder) in above {
                if let Some(above) = above.and_then(place_of) {
                    places[place].above.push((above, holder));
                    places[above].below.push(place);
                }
            }
            let is_near = |other: &Place| {
                let same_slot = other.address.with_devfn(address.devfn()) == address
                    && other.address.device() == address.device();
                let group = &recorded.functions[place].group;
                same_slot || group.is_some() && other.facts.group == group.map(GroupId)
            };
            let near = (0..places.len()).filter(|other| is_near(&places[*other])).collect();
            places[place].near = near;
        }
        let mut plan =
            Self { order: order(&places), bundle: Vec::new(), segments: recorded.segments().len(), places };
        plan.tie_bundle();
        plan
    }

    /// Chooses functions that depend on as little as possible, so that little is kept from being removed.
    fn tie_bundle(&mut self) {
        let mut alone: Vec<_> = (0..self.places.len()).filter(|place| self.is_alone(*place)).collect();
        alone.sort_by_key(|place| self.depth(*place));
        alone.truncate(BUNDLE.min(self.places.len() / 4));
        for place in &alone {
            self.places[*place].bundled = true;
        }
        self.bundle = alone;
    }

    /// It can be moved without asking anybody.
    fn is_alone(&self, place: usize) -> bool {
        let Place { endpoint, below, near, .. } = &self.places[place];
        *endpoint
            && below.is_empty()
            && near.iter().all(|other| *other == place || !self.places[*other].endpoint)
    }

    fn depth(&self, place: usize) -> usize {
        let above = self.places[place].above.iter().map(|(above, _)| 1 + self.depth(*above));
        above.max().unwrap_or(0)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn at(&self, place: usize) -> &Place {
        &self.places[place]
    }

    /// The place of an address of the machine.
    pub(crate) fn find(&self, address: Sbdf) -> Option<usize> {
        self.places.binary_search_by_key(&address, |place| place.address).ok()
    }

    /// The functions that move together only.
    pub(crate) fn bundle(&self) -> &[usize] {
        &self.bundle
    }

    /// All functions, what is above others first.
    pub(crate) fn top_down(&self) -> &[usize] {
        &self.order
    }

    /// The functions that this one holds.
    pub(crate) fn above(&self, place: usize) -> impl Iterator<Item = usize> {
        self.places[place].above.iter().map(|(above, _)| *above)
    }

    /// The functions that hold this one, by their names for it.
    pub(crate) fn holders(&self, place: usize) -> impl Iterator<Item = (usize, Holder)> {
        self.places[place].below.iter().flat_map(move |below| {
            let above = self.places[*below].above.iter().filter(move |(above, _)| *above == place);
            above.map(|(_, holder)| (*below, *holder))
        })
    }

    /// These functions and all that hold them, directly or not, what is above others first.
    pub(crate) fn subtrees(&self, mut places: Vec<usize>) -> Vec<usize> {
        let mut next = 0;
        while let Some(place) = places.get(next).copied() {
            for below in &self.places[place].below {
                if !places.contains(below) {
                    places.push(*below);
                }
            }
            next += 1;
        }
        self.order.iter().copied().filter(|place| places.contains(place)).collect()
    }

    /// The functions of a card slot.
    pub(crate) fn slot(&self, of: Sbdf) -> Vec<usize> {
        let function = |place: &usize| {
            let address = self.places[*place].address;
            address.with_devfn(of.devfn()) == of && address.device() == of.device()
        };
        (0..self.places.len()).filter(function).collect()
    }

    /// Those that a transition of these may claim.
    pub(crate) fn near(&self, set: &[usize]) -> Vec<usize> {
        let mut near: Vec<_> =
            set.iter().flat_map(|place| self.places[*place].near.iter().copied()).collect();
        near.sort_unstable();
        near.dedup();
        near
    }
}

impl Place {
    fn new(function: &Function) -> Self {
        let express = Express::read(function.config_space());
        let has_flr = express.is_none_or(|express| express.device_capabilities & FLR != 0);
        let is_host_bridge = function.class.is_some_and(|class| class >> 8 == HOST_BRIDGE);
        let is_plain = matches!(function.layout(), None | Some(HeaderLayout::Endpoint));
        Self {
            address: function.address,
            config: config(function),
            info: DeviceInfo { physical_function: function.physfn, ..DeviceInfo::default() },
            facts: Facts {
                group: function.group.map(GroupId),
                node: function.numa_node.and_then(|node| u32::try_from(node).ok()),
                ..Facts::default()
            },
            reset: if has_flr { ResetSupport::Function } else { ResetSupport::Slot },
            endpoint: is_plain && function.bridge.is_none() && !is_host_bridge,
            bridge: function.bridge.is_some(),
            bundled: false,
            above: Vec::new(),
            below: Vec::new(),
            near: Vec::new(),
        }
    }
}

/// The recorded bytes; of a function without any, what is known of it.
fn config(function: &Function) -> Vec<u8> {
    if !function.config.is_empty() {
        return function.config.clone();
    }
    let (vendor, device) = (function.vendor.unwrap_or(0xffff), function.device.unwrap_or(0xffff));
    let made = match function.bridge {
        // Of a kind that does not stand for what is behind it.
        Some(buses) => ConfigBytes::root_port(vendor, device, buses),
        None => ConfigBytes::endpoint(vendor, device).class(function.class.unwrap_or_default()),
    };
    made.bytes().to_vec()
}

fn order(places: &[Place]) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::with_capacity(places.len());
    let mut done = vec![false; places.len()];
    while order.len() < places.len() {
        let before = order.len();
        for (place, Place { above, .. }) in places.iter().enumerate() {
            if !done[place] && above.iter().all(|(above, _)| done[*above]) {
                done[place] = true;
                order.push(place);
            }
        }
        if order.len() == before {
            // A recording whose bridges are behind each other: without an order, any will do.
            order.extend((0..done.len()).filter(|place| !done[*place]));
        }
    }
    order
}
