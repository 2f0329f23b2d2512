//! rtnetlink, as much as virtual functions need: one link is asked for, or one setting of it is changed.
//!
//! The kernel has no files for what a physical function keeps; `ip link set DEV vf N` talks to it in these messages.
//! Each begins with a header, then the link's, then attributes: length, type, value, padded to four bytes. Only the
//! few attributes that are needed are looked at, and every length is checked against what is there.
//! `netlink-packet-route` decodes all attributes, and fails for the whole link if one of them cannot be decoded.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::errno::Errno;
use crate::host::network::{KeptNetwork, MacAddress, NetworkChange, Vlan, VlanProtocol};

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
/// `NLM_F_REQUEST`, and with it `NLM_F_ACK`.
const REQUEST: u16 = 1;
const REQUEST_ACK: u16 = 1 | 4;
/// Attributes of a link.
const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_EXT_MASK: u16 = 29;
/// Virtual functions, without their counters: those of 256 would not fit into one attribute.
const VFS_WITHOUT_STATISTICS: u32 = 1 | 1 << 3;
/// Attributes of a virtual function.
const IFLA_VF_INFO: u16 = 1;
const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_VLAN: u16 = 2;
const IFLA_VF_VLAN_LIST: u16 = 12;
const IFLA_VF_VLAN_INFO: u16 = 1;
/// The upper bits of an attribute's type are flags.
const TYPE: u16 = 0x3fff;
/// `struct nlmsghdr` and `struct ifinfomsg`.
const HEADER: usize = 16;
/// The longest address the kernel has room for.
const LONGEST_ADDRESS: usize = 32;
const DOT1Q: u16 = 0x8100;
const DOT1AD: u16 = 0x88a8;
/// The longest answer: an attribute is at most 64 KiB, and the list of virtual functions is by far the longest.
const LONGEST: usize = 256 << 10;
/// The number of a request; each has a socket of its own.
const SEQUENCE: u32 = 1;

/// What interface `index` keeps of its virtual function `number`. EOPNOTSUPP if its driver keeps nothing, ENODEV if
/// there is no such interface or function.
pub(super) fn virtual_network(index: u32, number: u16) -> Result<KeptNetwork, Errno> {
    let answer = ask(&get(index))?;
    kept(&answer, number)
}

/// Changes that.
pub(super) fn set_virtual_network(index: u32, number: u16, change: NetworkChange) -> Result<(), Errno> {
    let answer = ask(&set(index, number, change))?;
    match message(&answer)? {
        (NLMSG_ERROR, body) => acknowledged(body),
        _ => Err(Errno::EIO),
    }
}

fn ask(request: &[u8]) -> Result<Vec<u8>, Errno> {
    let failed = |error: rustix::io::Errno| Errno::new(error.raw_os_error());
    // NETLINK_ROUTE is the family's protocol 0.
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
    let socket = socket.map_err(failed)?;
    // Without an address it goes to the kernel, and only the kernel, or root, can answer.
    if rustix::net::send(&socket, request, SendFlags::empty()).map_err(failed)? != request.len() {
        return Err(Errno::EIO);
    }
    let mut bytes = vec![0; LONGEST];
    let (_, length) = rustix::net::recv(&socket, &mut bytes[..], RecvFlags::TRUNC).map_err(failed)?;
    if length > bytes.len() {
        return Err(Errno::EFBIG);
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn get(index: u32) -> Vec<u8> {
    let mut attributes = Vec::new();
    attribute(&mut attributes, IFLA_EXT_MASK, &VFS_WITHOUT_STATISTICS.to_ne_bytes());
    request(RTM_GETLINK, REQUEST, index, &attributes)
}

fn set(index: u32, number: u16, change: NetworkChange) -> Vec<u8> {
    let number = u32::from(number).to_ne_bytes();
    let mut info = Vec::new();
    match change {
        NetworkChange::Mac(mac) => {
            let mut value = number.to_vec();
            value.extend(mac.bytes());
            value.resize(number.len() + LONGEST_ADDRESS, 0);
            attribute(&mut info, IFLA_VF_MAC, &value);
        }
        NetworkChange::Vlan(vlan) => {
            let mut value = number.to_vec();
            value.extend(u32::from(vlan.id()).to_ne_bytes());
            value.extend(u32::from(vlan.qos()).to_ne_bytes());
            match vlan.protocol() {
                // What every kernel knows.
                VlanProtocol::Dot1q => attribute(&mut info, IFLA_VF_VLAN, &value),
                VlanProtocol::Dot1ad => {
                    value.extend(DOT1AD.to_be_bytes());
                    value.extend([0; 2]);
                    let mut list = Vec::new();
                    attribute(&mut list, IFLA_VF_VLAN_INFO, &value);
                    attribute(&mut info, IFLA_VF_VLAN_LIST, &list);
                }
            }
        }
    }
    let (mut list, mut attributes) = (Vec::new(), Vec::new());
    attribute(&mut list, IFLA_VF_INFO, &info);
    attribute(&mut attributes, IFLA_VFINFO_LIST, &list);
    request(RTM_SETLINK, REQUEST_ACK, index, &attributes)
}

/// Every value written here is at most a hundred bytes.
fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn request(kind: u16, flags: u16, index: u32, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(2 * HEADER + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(SEQUENCE.to_ne_bytes());
    // The port: the kernel knows whose socket it is. Then the link: any family, any kind, this index, no flags.
    bytes.extend([0; 4 + 4]);
    bytes.extend(index.to_ne_bytes());
    bytes.extend([0; 4 + 4]);
    bytes.extend(attributes);
    bytes
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// The kind and the body of the one message of an answer.
fn message(bytes: &[u8]) -> Result<(u16, &[u8]), Errno> {
    let length = word(bytes, 0).and_then(|length| usize::try_from(length).ok());
    let body = length.and_then(|length| bytes.get(HEADER..length));
    let (Some(kind), Some(SEQUENCE), Some(body)) = (half(bytes, 4), word(bytes, 8), body) else {
        return Err(Errno::EIO);
    };
    Ok((kind, body))
}

/// What an acknowledgement says: zero, or an error's number, negated.
fn acknowledged(body: &[u8]) -> Result<(), Errno> {
    match word(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(error @ -4095..0) => Err(Errno::new(-error)),
        _ => Err(Errno::EIO),
    }
}

/// The attributes in some bytes: type and value. Ends where a length makes no sense.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes, 0)?);
        let found = (half(bytes, 2)? & TYPE, bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(found)
    })
}

fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// What an answer says of a virtual function.
fn kept(answer: &[u8], number: u16) -> Result<KeptNetwork, Errno> {
    let body = match message(answer)? {
        (RTM_NEWLINK, body) => body.get(HEADER..).ok_or(Errno::EIO)?,
        (NLMSG_ERROR, body) => return acknowledged(body).and(Err(Errno::EIO)),
        _ => return Err(Errno::EIO),
    };
    let functions = find(body, IFLA_VFINFO_LIST).ok_or(Errno::EOPNOTSUPP)?;
    let is_it =
        |info: &&[u8]| find(info, IFLA_VF_MAC).and_then(|value| word(value, 0)) == Some(u32::from(number));
    let mut infos = attributes(functions).filter(|(kind, _)| *kind == IFLA_VF_INFO).map(|(_, info)| info);
    let info = infos.find(is_it).ok_or(Errno::ENODEV)?;
    let mac = find(info, IFLA_VF_MAC).and_then(|value| value.get(4..)?.first_chunk::<6>().copied());
    Ok(KeptNetwork { mac: MacAddress::new(mac.ok_or(Errno::EIO)?), vlan: vlan(info).ok_or(Errno::EIO)? })
}

/// The VLAN of a virtual function: kernels since 4.9 also say which kind it is.
fn vlan(info: &[u8]) -> Option<Vlan> {
    let listed = find(info, IFLA_VF_VLAN_LIST).and_then(|list| find(list, IFLA_VF_VLAN_INFO));
    let protocol = match listed {
        Some(value) => match u16::from_be_bytes(*value.get(12..)?.first_chunk::<2>()?) {
            DOT1AD => VlanProtocol::Dot1ad,
            // Some drivers say nothing where there is none.
            DOT1Q | 0 => VlanProtocol::Dot1q,
            _ => return None,
        },
        None => VlanProtocol::Dot1q,
    };
    let value = listed.or_else(|| find(info, IFLA_VF_VLAN))?;
    let (id, qos) = (word(value, 4)?, word(value, 8)?);
    Vlan::new(u16::try_from(id).ok()?, u8::try_from(qos).ok()?, protocol).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(last: u8) -> MacAddress {
        MacAddress::new([0x52, 0x54, 0, 0, 0, last])
    }

    /// What a kernel says of two virtual functions; the second one's tag is 802.1ad.
    fn answer() -> Vec<u8> {
        let mut list = Vec::new();
        for number in 0..2_u8 {
            let mut info = Vec::new();
            let mut value = u32::from(number).to_ne_bytes().to_vec();
            value.extend(mac(number).bytes());
            value.resize(36, 0);
            attribute(&mut info, IFLA_VF_MAC, &value);
            let mut value: Vec<u8> =
                [u32::from(number), 100, 3].iter().flat_map(|word| word.to_ne_bytes()).collect();
            attribute(&mut info, IFLA_VF_VLAN, &value);
            value.extend(if number == 0 { DOT1Q } else { DOT1AD }.to_be_bytes());
            value.extend([0; 2]);
            let mut vlans = Vec::new();
            attribute(&mut vlans, IFLA_VF_VLAN_INFO, &value);
            attribute(&mut info, IFLA_VF_VLAN_LIST, &vlans);
            attribute(&mut list, IFLA_VF_INFO, &info);
        }
        let mut attributes = Vec::new();
        attribute(&mut attributes, 3, b"eth0\0");
        attribute(&mut attributes, IFLA_VFINFO_LIST, &list);
        request(RTM_NEWLINK, 0, 7, &attributes)
    }

    #[test]
    fn an_answer_is_read_for_the_function_that_was_asked_for() {
        for (number, protocol) in [(0, VlanProtocol::Dot1q), (1, VlanProtocol::Dot1ad)] {
            let vlan = Vlan::new(100, 3, protocol).expect("a VLAN");
            let last = u8::try_from(number).expect("small");
            assert_eq!(kept(&answer(), number), Ok(KeptNetwork { mac: mac(last), vlan }));
        }
        assert_eq!(kept(&answer(), 2), Err(Errno::ENODEV));
    }

    #[test]
    fn a_link_without_virtual_functions_keeps_nothing() {
        assert_eq!(kept(&request(RTM_NEWLINK, 0, 1, &[]), 0), Err(Errno::EOPNOTSUPP));
    }

    #[test]
    fn an_error_is_the_kernels_number() {
        let mut bytes = request(NLMSG_ERROR, 0, 0, &[]);
        bytes[16..20].copy_from_slice(&(-19_i32).to_ne_bytes());
        assert_eq!(kept(&bytes, 0), Err(Errno::ENODEV));
        assert_eq!(acknowledged(&0_i32.to_ne_bytes()), Ok(()));
        assert_eq!(acknowledged(&i32::MIN.to_ne_bytes()), Err(Errno::EIO));
        assert_eq!(acknowledged(&[]), Err(Errno::EIO));
    }

    #[test]
    fn what_is_asked_for_is_what_the_kernels_headers_say() {
        let change = NetworkChange::Mac(mac(9));
        let bytes = set(7, 3, change);
        assert_eq!((word(&bytes, 0), half(&bytes, 4)), (u32::try_from(bytes.len()).ok(), Some(RTM_SETLINK)));
        assert_eq!(word(&bytes, 20), Some(7), "ifi_index");
        // Three levels of attributes, and struct ifla_vf_mac.
        let info = find(find(&bytes[32..], IFLA_VFINFO_LIST).expect("a list"), IFLA_VF_INFO).expect("one");
        let value = find(info, IFLA_VF_MAC).expect("an address");
        assert_eq!((value.len(), word(value, 0), &value[4..10]), (36, Some(3), &mac(9).bytes()[..]));
        for (text, kind, length) in [("5:2", IFLA_VF_VLAN, 12), ("5:2:802.1ad", IFLA_VF_VLAN_LIST, 20)] {
            let bytes = set(7, 3, NetworkChange::Vlan(text.parse().expect("a VLAN")));
            let info =
                find(find(&bytes[32..], IFLA_VFINFO_LIST).expect("a list"), IFLA_VF_INFO).expect("one");
            assert_eq!(find(info, kind).expect("a VLAN").len(), length);
            assert_eq!(vlan(info).map(|vlan| vlan.to_string()).as_deref(), Some(text));
        }
    }

    /// Cut off anywhere, and with any byte at any place: an answer or an error, no panic, and no endless loop.
    #[test]
    fn what_makes_no_sense_is_an_error() {
        let whole = answer();
        for end in 0..whole.len() {
            assert!(kept(&whole[..end], 1).is_err(), "{end}");
        }
        for place in 0..whole.len() {
            for byte in [0, 1, 3, 4, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[place] = byte;
                let _read = kept(&bytes, 1);
            }
        }
    }
}
