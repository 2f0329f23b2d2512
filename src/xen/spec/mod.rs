//! xl's strings for a device: `0000:03:00.0@5,permissive=1`.
//!
//! A [`Spec`] is what such a string says; nothing is looked up and no default is filled in, so writing one down again says
//! the same. The parser is strict where xl's is not: a number that does not fit, a blank, a sign, `0x`, a value that
//! means nothing or a key that comes twice is an error and not a device that somebody did not mean.
//!
//! ```
//! use pcidevs::xen::spec::{Functions, Spec, Which};
//!
//! let spec: Spec = "03:00.*@5,permissive=1".parse()?;
//! assert_eq!(spec.permissive, Some(true));
//! assert_eq!(spec.slot.map(|slot| slot.number()), Some(5));
//! let Which::Address { functions, .. } = spec.which else { panic!("named by address") };
//! assert_eq!(functions, Functions::All);
//! assert_eq!("0000:03:00.0,seize=yes".parse::<Spec>().unwrap_err().position, 19);
//! # Ok::<(), pcidevs::xen::spec::InvalidSpec>(())
//! ```

mod error;
mod parse;

use std::fmt;

pub use error::{InvalidSpec, Problem};

use crate::address::{Bus, DevFn, Sbdf, Segment};

/// What a device's string says. What it does not say is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Which device.
    pub which: Which,
    /// Where the guest sees it.
    pub slot: Option<GuestSlot>,
    /// Whether the guest may write all of configuration space.
    pub permissive: Option<bool>,
    /// Whether an interrupt by pin reaches a guest as a message.
    pub msitranslate: Option<bool>,
    /// Whether to take the device from its driver if nobody has before.
    pub seize: Option<bool>,
    /// Whether the guest may change the power state.
    pub power_mgmt: Option<bool>,
    /// What happens when reserved memory of the device is in the guest's way.
    pub rdm_policy: Option<RdmPolicy>,
    /// What it is called. In a string that names the device this way this is how.
    pub name: Option<String>,
}

/// Which device a string means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// By address.
    Address {
        /// Its segment; 0 where the string has none.
        segment: Segment,
        /// Its bus.
        bus: Bus,
        /// Its device number.
        device: u8,
        /// Which functions of it.
        functions: Functions,
    },
    /// By the name it was given when it was made assignable: [`Spec::name`].
    Name,
}

/// Which functions of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Functions {
    /// This one.
    One(u8),
    /// `*`: every one that there is.
    All,
}

/// A slot of the guest's bus, 0 to 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestSlot(u8);

impl GuestSlot {
    /// `None` above 31.
    pub const fn new(number: u8) -> Option<Self> {
        if number > 0x1f { None } else { Some(Self(number)) }
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// What happens when reserved memory of a device is in the guest's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RdmPolicy {
    /// The guest is not made.
    Strict,
    /// A warning.
    Relaxed,
}

impl fmt::Display for RdmPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Strict => "strict",
            Self::Relaxed => "relaxed",
        })
    }
}

impl Spec {
    /// A device by address, with nothing else said.
    pub fn of(address: Sbdf) -> Self {
        Self::named_by(Which::Address {
            segment: address.segment(),
            bus: Bus::new(address.bdf().to_be_bytes()[0]),
            device: address.device(),
            functions: Functions::One(address.function()),
        })
    }

    fn named_by(which: Which) -> Self {
        Self {
            which,
            slot: None,
            permissive: None,
            msitranslate: None,
            seize: None,
            power_mgmt: None,
            rdm_policy: None,
            name: None,
        }
    }

    /// The addresses that the string means, if it means them by address; for [`Functions::All`] all that there can be.
    pub fn addresses(&self) -> Vec<Sbdf> {
        let Which::Address { segment, bus, device, functions } = self.which else { return Vec::new() };
        let functions = match functions {
            Functions::One(function) => function..=function,
            Functions::All => 0..=7,
        };
        let devfns = functions.filter_map(|function| DevFn::new(device, function));
        devfns.map(|devfn| Sbdf::new(segment, bus, devfn)).collect()
    }
}

/// As xl reads it, with nothing that was not said.
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Which::Address { segment, bus, device, functions } = self.which {
            write!(f, "{segment}:{bus}:{device:02x}.")?;
            match functions {
                Functions::One(function) => write!(f, "{function:x}")?,
                Functions::All => f.write_str("*")?,
            }
            separator = ",";
        }
        let slot = self.slot.map(|slot| format!("{:x}", slot.number()));
        let switch = |value: Option<bool>| value.map(|on| u8::from(on).to_string());
        let keys = [
            ("name", self.name.clone()),
            ("vslot", slot),
            ("permissive", switch(self.permissive)),
            ("msitranslate", switch(self.msitranslate)),
            ("seize", switch(self.seize)),
            ("power_mgmt", switch(self.power_mgmt)),
            ("rdm_policy", self.rdm_policy.map(|policy| policy.to_string())),
        ];
        for (key, value) in keys.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            write!(f, "{separator}{key}={value}")?;
            separator = ",";
        }
        Ok(())
    }
}
