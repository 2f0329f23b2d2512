//! What a physical function keeps for each of its virtual ones, where those are network cards: MAC address and VLAN.
//!
//! The guest that has the function cannot change them, and they outlive its resets and drivers; so they are the host's
//! to set for a guest and to put back afterwards. The texts are those of `ip link`, and nothing looser.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text or a value is no network identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNetwork {
    /// It is not six pairs of hexadecimal digits.
    #[error("a MAC address is six pairs of hexadecimal digits with colons between them")]
    Mac,
    /// It is a group's address, or broadcast, or all zeros.
    #[error("{0} is no address of one card: it must be unicast and not zero")]
    NotAssignable(MacAddress),
    /// It is none of the forms `ID`, `ID:QOS`, `ID:QOS:802.1ad`.
    #[error("a VLAN is ID, ID:QOS or ID:QOS:802.1ad, with an ID from 0 (none) to 4094 and a QOS from 0 to 7")]
    Vlan,
}

/// A MAC address; any, also zeros, which is what a physical function keeps if nobody has given it one.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use pcidevs::host::MacAddress;
/// let mac: MacAddress = "52:54:00:AB:cd:ef".parse().unwrap();
/// assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
/// assert!("52-54-00-ab-cd-ef".parse::<MacAddress>().is_err());
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// An address by its bytes.
    pub fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// Its bytes, in the order of the wire.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// All zeros: nobody has set one, and the virtual function's driver chooses.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }

    /// Whether one card may have it: unicast (IEEE 802, the lowest bit of the first byte), and not zero.
    pub fn is_assignable(self) -> bool {
        self.0[0] & 1 == 0 && !self.is_zero()
    }
}

impl FromStr for MacAddress {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or(InvalidNetwork::Mac)?;
            // A sign is a number to the parser, and no digit.
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(InvalidNetwork::Mac);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidNetwork::Mac)?;
        }
        if pairs.next().is_some() { Err(InvalidNetwork::Mac) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

/// Which tag it is (IEEE 802.1Q, or 802.1ad's outer one).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum VlanProtocol {
    /// 802.1Q, type 0x8100.
    #[default]
    Dot1q,
    /// 802.1ad, type 0x88a8.
    Dot1ad,
}

/// The VLAN that a physical function puts a virtual one into: 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Vlan {
    id: u16,
    qos: u8,
    protocol: VlanProtocol,
}

impl Vlan {
    /// A VLAN from 0 to 4094, with a priority from 0 to 7.
    pub fn new(id: u16, qos: u8, protocol: VlanProtocol) -> Result<Self, InvalidNetwork> {
        if id <= 4094 && qos <= 7 { Ok(Self { id, qos, protocol }) } else { Err(InvalidNetwork::Vlan) }
    }

    /// Its number, 0 for none.
    pub fn id(self) -> u16 {
        self.id
    }

    /// Its priority.
    pub fn qos(self) -> u8 {
        self.qos
    }

    /// Its kind of tag.
    pub fn protocol(self) -> VlanProtocol {
        self.protocol
    }
}

impl FromStr for Vlan {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let number = |text: &str| {
            let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|_| is_plain).ok_or(InvalidNetwork::Vlan)
        };
        let parts: Vec<&str> = text.splitn(4, ':').collect();
        let (id, qos, protocol) = match parts[..] {
            [id] => (id, "0", VlanProtocol::Dot1q),
            [id, qos] => (id, qos, VlanProtocol::Dot1q),
            [id, qos, "802.1ad"] => (id, qos, VlanProtocol::Dot1ad),
            _ => return Err(InvalidNetwork::Vlan),
        };
        let qos = u8::try_from(number(qos)?).map_err(|_| InvalidNetwork::Vlan)?;
        Self::new(number(id)?, qos, protocol)
    }
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.protocol, self.qos) {
            (VlanProtocol::Dot1ad, qos) => write!(f, "{}:{qos}:802.1ad", self.id),
            (VlanProtocol::Dot1q, 0) => write!(f, "{}", self.id),
            (VlanProtocol::Dot1q, qos) => write!(f, "{}:{qos}", self.id),
        }
    }
}

impl TryFrom<String> for Vlan {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl From<Vlan> for String {
    fn from(vlan: Vlan) -> Self {
        vlan.to_string()
    }
}

/// Some of what is kept; what is `None` is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSettings {
    /// The MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// The VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
}

/// What a guest's virtual function is to be on the network.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use pcidevs::host::NetworkIdentity;
/// let mac = |text: &str| Some(text.parse().unwrap());
/// assert!(NetworkIdentity::new(mac("52:54:00:00:00:01"), None).is_ok());
/// assert!(NetworkIdentity::new(mac("01:00:5e:00:00:01"), None).is_err());
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "NetworkSettings", into = "NetworkSettings")]
pub struct NetworkIdentity(NetworkSettings);

impl NetworkIdentity {
    /// An address that one card may have, and a VLAN; what is `None` stays as the host has it.
    pub fn new(mac: Option<MacAddress>, vlan: Option<Vlan>) -> Result<Self, InvalidNetwork> {
        match mac {
            Some(mac) if !mac.is_assignable() => Err(InvalidNetwork::NotAssignable(mac)),
            _ => Ok(Self(NetworkSettings { mac, vlan })),
        }
    }

    /// Its parts.
    pub fn settings(self) -> NetworkSettings {
        self.0
    }
}

impl TryFrom<NetworkSettings> for NetworkIdentity {
    type Error = InvalidNetwork;

    fn try_from(settings: NetworkSettings) -> Result<Self, InvalidNetwork> {
        Self::new(settings.mac, settings.vlan)
    }
}

impl From<NetworkIdentity> for NetworkSettings {
    fn from(identity: NetworkIdentity) -> Self {
        identity.0
    }
}

/// What is kept of a virtual function at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeptNetwork {
    /// The MAC address, zero if nobody has set one.
    pub mac: MacAddress,
    /// The VLAN, 0 for none.
    pub vlan: Vlan,
}

/// One thing to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetworkChange {
    /// The MAC address.
    Mac(MacAddress),
    /// The VLAN.
    Vlan(Vlan),
}

impl fmt::Display for NetworkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => write!(f, "mac {mac}"),
            Self::Vlan(vlan) => write!(f, "vlan {vlan}"),
        }
    }
}
