//! Finding devices before there is a host to own them.

use super::Lifecycle;
use super::error::TransitionError;
use super::transaction::ask;
use crate::Sbdf;
use crate::address::{Bus, DevFn, Segment};
use crate::owner::Owner;
use crate::platform::{Platform, Width};
use crate::registry::{Member, with_room};

/// Of the header type register: there are other functions than the first.
const MULTIFUNCTION: u32 = 1 << 7;
const HEADER_TYPE: u16 = 0x0e;

impl<P: Platform> Lifecycle<P> {
    /// Asks every address of a segment whether a function answers, and makes those known that do: without an owner,
    /// until [`set_host`](Self::set_host). Returns how many were new.
    ///
    /// On an error those found before it stay known; scanning again goes on from there.
    pub fn scan(
        &self,
        segment: Segment,
        mut data: impl FnMut(Sbdf) -> P::Data,
    ) -> Result<usize, TransitionError> {
        let mut new = 0;
        for bus in 0..=u8::MAX {
            for device in 0..32 {
                for function in 0..8 {
                    let Some(devfn) = DevFn::new(device, function) else { continue };
                    let address = Sbdf::new(segment, Bus::new(bus), devfn);
                    let answers = ask(address, || self.answers(address))?;
                    if answers {
                        new += usize::from(self.add_unowned(address, || data(address))?);
                    }
                    if function == 0 && !(answers && ask(address, || self.has_more_functions(address))?) {
                        break;
                    }
                }
            }
        }
        Ok(new)
    }

    /// There is a host now: it adopts every device without an owner, in one publication.
    pub fn set_host(&self) -> Result<(), TransitionError> {
        let Some(unowned) = self.devices_of(Owner::Unowned)? else { return Ok(()) };
        let mut set = with_room(unowned.len())?;
        set.extend(unowned.iter().map(|device| Member::new(device.address())));
        self.adopt(&set)
    }

    fn answers(&self, address: Sbdf) -> bool {
        // No vendor has all ones, nor all zeros, which some host bridges answer for absent functions.
        !matches!(self.platform().config_read(address, 0, Width::Word) & 0xffff, 0xffff | 0)
    }

    fn has_more_functions(&self, address: Sbdf) -> bool {
        self.platform().config_read(address, HEADER_TYPE, Width::Byte) & MULTIFUNCTION != 0
    }
}
