//! What is measured on: a simulated machine full of devices, and the guest they go to.

use pcidevs::address::Segment;
use pcidevs::lifecycle::{Added, DeviceInfo, Lifecycle};
use pcidevs::platform::{ConfigBytes, Platform, Simulated};
use pcidevs::{DomainId, Member, Owner, Sbdf};

/// How many devices there are.
pub(crate) const COUNTS: [usize; 4] = [1, 64, 4096, 65536];

/// Who gets the devices.
pub(crate) const GUEST: DomainId = DomainId::new(1);

/// The embedder's state of a device: a standard header of registers.
pub(crate) type State = [u32; 16];

/// How many requester IDs each device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    One,
    /// Its own and seven phantom functions.
    Eight,
}

impl Ids {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::One => "1 requester ID",
            Self::Eight => "8 requester IDs",
        }
    }

    /// The lowest `n` addresses: whole buses, all functions; or function 0 only, which leaves room for phantoms.
    pub(crate) fn addresses(self, n: usize) -> Vec<Sbdf> {
        let step = if self == Self::One { 1 } else { 8 };
        let of_segment = move |segment| {
            (0..=u16::MAX).step_by(step).map(move |bdf| Sbdf::from_bdf(Segment::new(segment), bdf))
        };
        (0..).flat_map(of_segment).take(n).collect()
    }

    /// An endpoint with everything a transition touches.
    fn config(self) -> ConfigBytes {
        let endpoint = ConfigBytes::endpoint(0x8086, 0x10d3).express().flr().msi().msix(4).ats();
        // Phantom Functions Supported, 11b: all three bits of the function number.
        if self == Self::One { endpoint } else { endpoint.phantom_bits(3) }
    }
}

/// A machine with devices, all the host's, and a guest.
pub(crate) struct Machine<P: Platform<Data = State> = Simulated<State>> {
    pub(crate) life: Lifecycle<P>,
    pub(crate) addresses: Vec<Sbdf>,
}

impl Machine {
    pub(crate) fn of(n: usize, ids: Ids) -> Self {
        Self::on(Simulated::new(), |simulated| simulated, n, ids)
    }

    pub(crate) fn without_devices(n: usize, ids: Ids) -> Self {
        Self::plugged(Simulated::new(), |simulated| simulated, n, ids)
    }
}

impl<P: Platform<Data = State>> Machine<P> {
    /// On a platform around a simulated one.
    pub(crate) fn on(platform: P, simulated: fn(&P) -> &Simulated<State>, n: usize, ids: Ids) -> Self {
        let machine = Self::plugged(platform, simulated, n, ids);
        machine.addresses.iter().for_each(|address| machine.add(*address));
        machine
    }

    /// The functions are plugged, and not added yet.
    fn plugged(platform: P, simulated: fn(&P) -> &Simulated<State>, n: usize, ids: Ids) -> Self {
        let (addresses, config) = (ids.addresses(n), ids.config());
        for address in &addresses {
            simulated(&platform).plug(*address, &config);
        }
        let life = Lifecycle::new(platform).expect("memory");
        life.create_domain(GUEST).expect("the first domain");
        Self { life, addresses }
    }

    pub(crate) fn add(&self, address: Sbdf) {
        let state = [u32::from(address.bdf()); 16];
        let added = self.life.add(address, DeviceInfo::default(), state).expect("each address once");
        assert_eq!(added, Added::New);
    }

    pub(crate) fn assign(&self, set: &[Member]) {
        self.life.assign(set, GUEST).expect("nobody is in the way");
    }

    pub(crate) fn deassign(&self, set: &[Member]) {
        self.life.deassign(set, Owner::Guest(GUEST)).expect("the guest has it");
    }

    /// To the guest, and back to the host.
    pub(crate) fn pair(&self, set: &[Member]) {
        self.assign(set);
        self.deassign(set);
    }

    /// Every device as a set of its own.
    pub(crate) fn singles(&self) -> Vec<[Member; 1]> {
        self.addresses.iter().map(|address| [Member::new(*address)]).collect()
    }
}
