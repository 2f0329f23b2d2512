//! This crate, through its public interface.

use pcidevs::{Domain, DomainId, Handle, Hold, Holder, Member, MoveError, Owner, Registry, RemoveError, Sbdf};

use crate::device::{Device, ONES, REGISTERS};
use crate::strategy::{Promises, Refused, Strategy};

pub(crate) struct Pcidevs(Registry<Device>);

fn refused(busy: &pcidevs::Busy) -> Refused {
    Refused::Busy { uses: busy.uses as usize, holders: busy.holders.iter().map(Holder::to_string).collect() }
}

impl Pcidevs {
    /// The hook runs under a named use, so that no removal comes between, and no lock.
    fn move_to(&self, member: Member, owner: Owner, hook: impl FnOnce()) -> Result<(), Refused> {
        let transition = Holder::Named("transition");
        let using = self.0.hold(member.address(), transition).expect("memory").ok_or(Refused::NotFound)?;
        hook();
        let moved = self.0.move_devices(&[member], owner).map_err(|error| match error {
            MoveError::Busy(_, busy) => refused(&busy),
            _ => Refused::NotFound,
        });
        using.put();
        moved
    }
}

impl Strategy for Pcidevs {
    const NAME: &'static str = "pcidevs";
    const PROMISES: Promises = Promises::ALL;
    type Use<'a> = Handle<Device>;
    type Hold<'a> = Hold<Device>;
    type Guest = Domain<Device>;

    fn new() -> Self {
        Self(Registry::new().expect("memory"))
    }

    fn add(&self, at: Sbdf, device: Device) -> Result<(), Device> {
        self.0.add(at, device).map_err(|error| error.data)
    }

    fn remove(&self, at: Sbdf) -> Result<(), Refused> {
        self.0.remove_device(at).map_err(|error| match error {
            RemoveError::Busy(busy) => refused(&busy),
            _ => Refused::NotFound,
        })
    }

    #[inline]
    fn get(&self, at: Sbdf) -> Option<Handle<Device>> {
        self.0.get(at)
    }

    fn hold(&self, at: Sbdf, name: &'static str) -> Option<Hold<Device>> {
        self.0.hold(at, Holder::Named(name)).expect("memory")
    }

    #[inline]
    fn read(&self, at: Sbdf, register: usize) -> u32 {
        self.0.lock(at).map_or(ONES, |device| device.read(register))
    }

    fn prepare_plain(&self, at: Sbdf) {
        if let Ok(mut device) = self.0.lock(at) {
            let registers: [u32; REGISTERS] = std::array::from_fn(|register| device.read(register));
            device.publish(&registers).expect("memory");
        }
    }

    /// A published register, or, where none is, a locked one.
    #[inline]
    fn read_plain(&self, at: Sbdf, register: usize) -> u32 {
        self.0.read_published(at, register).unwrap_or_else(|| self.read(at, register))
    }

    #[inline]
    fn write(&self, at: Sbdf, register: usize, value: u32) {
        if let Ok(mut device) = self.0.lock(at) {
            device.write(register, value);
            device.set_published(register, value);
        }
    }

    fn create_guest(&self, number: u32) -> Domain<Device> {
        self.0.create_domain(DomainId::new(number)).expect("each number once")
    }

    fn assign(&self, guest: &Domain<Device>, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        self.move_to(Member::at(at, guest_at), Owner::Guest(guest.id()), hook)
    }

    fn release(&self, guest: &Domain<Device>, at: Sbdf, guest_at: Sbdf, hook: impl FnOnce()) -> Result<(), Refused> {
        let here = guest.lock(guest_at).is_ok_and(|device| device.address() == at);
        if here { self.move_to(Member::new(at), Owner::Host, hook) } else { Err(Refused::NotFound) }
    }

    #[inline]
    fn guest_read(&self, guest: &Domain<Device>, guest_at: Sbdf, register: usize) -> u32 {
        guest.lock(guest_at).map_or(ONES, |device| device.read(register))
    }
}
