//! A guest's bus: its configuration and BAR accesses from the exit to the device and back.
//!
//! | file | what |
//! |---|---|
//! | `vcpu` | dispatch: which device and register an address is |
//! | `remembered` | what a vCPU remembers of where its accesses went |
//! | `routes` | the published table by which BARs are found |
//! | `buses` | the bus numbers that a guest gives to what is behind emulated ports |
//! | `mapper` | the BAR map and its steps, one at a time for a guest |
//! | `executor` | what accesses ask for, one at a time for a device |
//! | `waiting` | waiting for what another thread carries out |
//! | `attachment` | the function as what a binding sets up |
//! | `wiring` | what the embedder brings |
//!
//! An access takes the lock of its device and no other. Only what it asks for, outside that lock, may take the lock of
//! the guest's BAR map, which is a leaf.

mod attachment;
mod buses;
mod executor;
mod mapper;
mod remembered;
mod routes;
mod vcpu;
mod waiting;
mod wiring;

use core::fmt;

pub use buses::PortError;
pub use vcpu::Vcpu;
pub use wiring::{Target, Wiring};

use self::executor::Reach;
use self::mapper::Mapper;
use super::bar_map::{AddressRange, BarMap};
use super::bytes::fill_with_ones;
use super::capability::Signals;
use super::decode::{Ecam, ExtendedRegisters};
use super::function::{Asked, Function, RestoreError};
use super::registers::all_bits;
use crate::address::{self, Sbdf};
use crate::errno::Errno;
use crate::lifecycle::Device;
use crate::memory;
use crate::memory::NoMemory;
use crate::platform::{Platform, Width};
use crate::refcount::Holder;
use crate::registry::{AccessError, Domain, Handle, Hold, Locked};
use crate::sync::{AtomicU32, RawLock, with_default_lock};

/// Data that has a function in it: what an embedder keeps per device.
pub trait Modelled {
    /// The place of its function, `None` if its owner sees none.
    fn function(&mut self) -> &mut Option<Function>;
}

impl Modelled for Option<Function> {
    #[inline]
    fn function(&mut self) -> &mut Option<Function> {
        self
    }
}

impl<P: Platform> Modelled for Device<P>
where
    P::Data: Modelled,
{
    #[inline]
    fn function(&mut self) -> &mut Option<Function> {
        (**self).function()
    }
}

with_default_lock! {
    /// The PCI buses of one guest, for its vCPU threads. Cheap to clone; every clone is the same.
    ///
    /// Each vCPU has a [`Vcpu`] of it, which finds out what an exit is about; who knows the device calls the methods here.
    pub struct Bus<D, W; L> {
        shared: memory::Shared<Shared<D, W, L>>,
    }
}

/// What all clones of a bus share.
struct Shared<D, W, L: RawLock> {
    domain: Domain<D, L>,
    wiring: W,
    mapper: Mapper<L>,
    ecam: alloc::vec::Vec<Ecam>,
    extended: ExtendedRegisters,
    /// What was written to CF8 last.
    address: AtomicU32,
}

/// How a guest reaches its configuration space, and where its BARs may be.
#[derive(Debug)]
pub struct Layout<'a> {
    /// Its memory-mapped configuration space; the windows do not overlap.
    pub ecam: &'a [Ecam],
    /// What bits 27:24 of its address port mean.
    pub extended: ExtendedRegisters,
    /// Its BARs. The windows above are reserved in it without being named.
    pub bars: BarMap,
}

impl<D: Modelled, W: Wiring, L: RawLock> Bus<D, W, L> {
    /// The bus of a guest.
    pub fn new(domain: Domain<D, L>, wiring: W, mut layout: Layout<'_>) -> Result<Self, NoMemory> {
        for window in layout.ecam {
            let bytes = AddressRange::memory(window.base()..=window.base() + (window.size() - 1));
            layout.bars.keep_off(&bytes)?;
        }
        let mut ecam = alloc::vec::Vec::new();
        ecam.try_reserve_exact(layout.ecam.len()).map_err(NoMemory::from)?;
        ecam.extend_from_slice(layout.ecam);
        let shared = memory::Shared::try_new(Shared {
            domain,
            wiring,
            mapper: Mapper::new(layout.bars),
            ecam,
            extended: layout.extended,
            address: AtomicU32::new(0),
        })?;
        Ok(Self { shared })
    }

    /// The embedder's side.
    pub fn wiring(&self) -> &W {
        &self.shared.wiring
    }

    /// One vCPU's way to it.
    pub fn vcpu(&self) -> Vcpu<D, W, L> {
        Vcpu::new(self.clone())
    }

    /// There is an emulated port at this address. What is behind it is to be assigned to addresses on the bus `behind`,
    /// which is theirs whatever number the guest gives it; the guest finds them once it has programmed the port.
    pub fn add_port(&self, at: Sbdf, behind: address::Bus) -> Result<(), PortError> {
        self.shared.mapper.add_port(at, behind)
    }

    /// Reads configuration space of the device that the guest sees at this address; ones if there is none.
    #[inline(always)]
    pub fn config_read(&self, at: Sbdf, offset: u16, width: Width) -> u32 {
        config_read(self.shared.domain.lock(at), offset, width)
    }

    /// Writes configuration space of the device that the guest sees at this address.
    #[inline]
    pub fn config_write(&self, at: Sbdf, offset: u16, width: Width, value: u32) -> Written<D, W, L> {
        self.access(self.shared.domain.lock(at), at, |function| function.config_write(offset, width, value))
    }

    /// Reads from a BAR (6 is the ROM) of the device that the guest sees at this address: 1, 2, 4 or 8 bytes.
    #[inline(always)]
    pub fn bar_read(&self, at: Sbdf, bar: u8, offset: u64, data: &mut [u8]) {
        bar_read(self.shared.domain.lock(at), bar, offset, data);
    }

    /// Writes to a BAR of the device that the guest sees at this address.
    #[inline]
    pub fn bar_write(&self, at: Sbdf, bar: u8, offset: u64, data: &[u8]) -> Written<D, W, L> {
        self.access(self.shared.domain.lock(at), at, |function| function.bar_write(bar, offset, data))
    }

    /// Lets a device say something by itself, from any thread: an interrupt, the level of its pin, a wish.
    pub fn signal(&self, at: Sbdf, signal: impl FnOnce(&mut Signals<'_>)) -> Written<D, W, L> {
        self.access(self.shared.domain.lock(at), at, |function| function.signal(signal))
    }

    /// Carries out what a function wants from the beginning ([`Function::start`]): for one of the host's, when it has
    /// been put behind the bus.
    pub fn start(&self, at: Sbdf) -> Written<D, W, L> {
        self.access(self.shared.domain.lock(at), at, Function::start)
    }

    /// Gives a device the state that was saved of one like it, and brings the outside to it.
    pub fn restore(&self, at: Sbdf, state: &[u8]) -> Result<Written<D, W, L>, RestoreFailed> {
        let mut device = self.shared.domain.lock(at)?;
        let function = device.function().as_mut().ok_or(RestoreFailed::NoFunction)?;
        let asked = function.restore(state)?;
        Ok(self.carry_out(at, device, asked))
    }

    #[inline]
    fn access(
        &self,
        device: Found<'_, D, L>,
        at: Sbdf,
        access: impl FnOnce(&mut Function) -> Asked,
    ) -> Written<D, W, L> {
        let Ok(mut device) = device else { return Written::Done };
        let Some(function) = device.function() else { return Written::Done };
        let asked = access(function);
        if asked.is_nothing() {
            return Written::Done;
        }
        self.carry_out(at, device, asked)
    }

    /// Carries out what an access has asked for, unless somebody is at it.
    #[cold]
    fn carry_out(&self, at: Sbdf, mut device: Locked<'_, D, L>, asked: Asked) -> Written<D, W, L> {
        if let Some(function) = device.function() {
            function.see_at(at);
        }
        let target = Target { device: device.address(), seen_at: at };
        let kept = Kept::keep(&device);
        drop(device);
        let Shared { mapper, wiring, .. } = &*self.shared;
        executor::drive(&kept, mapper, wiring, target);
        let pending = Pending { bus: self.clone(), kept, asked };
        if pending.is_settled() { Written::Done } else { Written::Pending(pending) }
    }
}

/// The device of an access, under its lock: or it is not there, on its way, or this very thread is inside it. To the
/// guest it is all the same.
type Found<'a, D, L> = Result<Locked<'a, D, L>, AccessError>;

#[inline(always)]
fn config_read<D: Modelled, L: RawLock>(device: Found<'_, D, L>, offset: u16, width: Width) -> u32 {
    let read = |function: &mut Function| function.config_read(offset, width);
    let Ok(mut device) = device else { return all_bits(width) };
    device.function().as_mut().map_or(all_bits(width), read)
}

#[inline(always)]
fn bar_read<D: Modelled, L: RawLock>(device: Found<'_, D, L>, bar: u8, offset: u64, data: &mut [u8]) {
    // Under the lock: it waits for what is stored before it.
    fill_with_ones(data);
    if let Ok(mut device) = device
        && let Some(function) = device.function()
    {
        function.bar_read_over(bar, offset, data);
    }
}

impl<D, W, L: RawLock> Clone for Bus<D, W, L> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<D, W, L: RawLock> fmt::Debug for Bus<D, W, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bus").field(&self.shared.domain).finish()
    }
}

/// A state was not restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreFailed {
    /// The device cannot be reached (ENODEV, EDEADLK).
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The guest sees no function there (ENODEV).
    #[error("the device has no function for this guest")]
    NoFunction,
    /// The state does not fit (as [`RestoreError::errno`]).
    #[error(transparent)]
    State(#[from] RestoreError),
}

impl RestoreFailed {
    /// What a C caller gets.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Access(error) => error.errno(),
            Self::NoFunction => Errno::ENODEV,
            Self::State(error) => error.errno(),
        }
    }
}

/// A device, while effects of it are carried out.
enum Kept<D, L: RawLock> {
    Named(Hold<D, L>),
    /// There was no memory for the name.
    Unnamed(Handle<D, L>),
}

impl<D, L: RawLock> Kept<D, L> {
    fn keep(device: &Locked<'_, D, L>) -> Self {
        match device.keep(Holder::Named("vPCI effect")) {
            Ok(hold) => Self::Named(hold),
            Err(NoMemory) => Self::Unnamed(device.keep_unnamed()),
        }
    }
}

impl<D: Modelled, L: RawLock> Reach for Kept<D, L> {
    fn with(&self, step: &mut dyn FnMut(&mut Function)) {
        let mut step = |data: &mut D| {
            if let Some(function) = data.function() {
                step(function);
            }
        };
        // A device that was reported gone meanwhile is settled as well: whoever clears up after it waits for this. That
        // this thread is inside the device already cannot be: no hook runs there.
        let _settled = match self {
            Self::Named(hold) => hold.settle(&mut step),
            Self::Unnamed(handle) => handle.settle(&mut step),
        };
    }
}

/// What became of a write.
#[must_use = "a vCPU goes on when its write has taken effect: wait for it"]
pub enum Written<D, W, L: RawLock> {
    /// It is no access to PCI; nothing was done.
    Elsewhere,
    /// It has taken effect, or there was nothing to take effect.
    Done,
    /// Another thread is carrying out what it asked for.
    Pending(Pending<D, W, L>),
}

impl<D: Modelled, W: Wiring, L: RawLock> Written<D, W, L> {
    /// Returns when it has taken effect. `false` if it was no access to PCI.
    pub fn wait(self) -> bool {
        match self {
            Self::Elsewhere => false,
            Self::Done => true,
            Self::Pending(pending) => {
                pending.wait();
                true
            }
        }
    }
}

impl<D, W, L: RawLock> fmt::Debug for Written<D, W, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elsewhere => "Elsewhere",
            Self::Done => "Done",
            Self::Pending(_) => "Pending",
        })
    }
}

/// Effects that another thread carries out. The device is kept meanwhile.
pub struct Pending<D, W, L: RawLock> {
    bus: Bus<D, W, L>,
    kept: Kept<D, L>,
    asked: Asked,
}

impl<D: Modelled, W: Wiring, L: RawLock> Pending<D, W, L> {
    /// Whether they have been carried out, or superseded.
    pub fn is_settled(&self) -> bool {
        executor::under_lock(&self.kept, |function| function.is_settled(self.asked)).unwrap_or(true)
    }

    /// Returns when they have. Within a hook of this device, which they come after, at once.
    pub fn wait(self) {
        let Shared { mapper, wiring, .. } = &*self.bus.shared;
        let by = L::current();
        waiting::until(mapper, wiring, || {
            let is_over =
                |function: &mut Function| function.is_settled(self.asked) || function.is_carried_out_by(by);
            executor::under_lock(&self.kept, is_over).unwrap_or(true)
        });
    }
}
