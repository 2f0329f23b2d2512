//! Giving a virtual function a network identity, and putting the old one back.
//!
//! Both look first and write what is missing, as everything does that is also an undo and a recovery; what was written
//! is read again. Where the interface is, is looked up each time: names and numbers of interfaces change.

use super::function::{self, optional, sys};
use super::kernel::Kernel;
use super::network::{KeptNetwork, NetworkChange, NetworkSettings};
use super::operation::WriteFailure;
use super::record::NetworkRecord;
use super::writer::Writer;
use crate::Sbdf;
use crate::errno::Errno;

/// The most interfaces of one function that are looked at: a switch has one for each of its virtual functions too.
const MOST_INTERFACES: usize = 1024;

/// Why a device has no network identity that could be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is no virtual function.
    NotVirtual,
    /// Its physical function has no network interface here.
    NoInterface(Sbdf),
    /// The kernel does not say.
    Unreadable(Errno),
}

/// Who keeps the identity of a virtual function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keeper {
    pub(super) physical_function: Sbdf,
    /// Which of its virtual functions it is, from 0.
    number: u16,
    /// Its interfaces, by their indices, in the order of their names.
    interfaces: Vec<u32>,
}

/// Looks up who keeps a function's identity.
pub(super) fn keeper(kernel: &dyn Kernel, device: Sbdf) -> Result<Keeper, Missing> {
    let unreadable = Missing::Unreadable;
    let pf = function::physical_function(kernel, device).map_err(unreadable)?;
    let physical_function = pf.ok_or(Missing::NotVirtual)?;
    let number = function::virtual_number(kernel, physical_function, device).map_err(unreadable)?;
    let number = number.ok_or(Missing::NotVirtual)?;
    let folder = function::place(physical_function, "net").map_err(unreadable)?;
    let names = optional(kernel.list(&folder, MOST_INTERFACES)).map_err(unreadable)?.unwrap_or_default();
    let mut interfaces = Vec::new();
    for name in names {
        // One that has gone meanwhile, or been renamed, is not there.
        let place = sys(format!("{}/{name}/ifindex", folder.path())).map_err(unreadable)?;
        let text = optional(kernel.read(&place, 64)).map_err(unreadable)?;
        let text = text.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        interfaces.extend(text.and_then(|text| text.parse::<u32>().ok()).filter(|index| *index > 0));
    }
    if interfaces.is_empty() {
        return Err(Missing::NoInterface(physical_function));
    }
    Ok(Keeper { physical_function, number, interfaces })
}

fn failed(device: Sbdf, what: impl Into<String>) -> impl FnOnce(Errno) -> WriteFailure {
    let what = what.into();
    move |errno| WriteFailure { device, what, errno }
}

/// What is kept of a virtual function, and the interface that keeps it: the first one that knows it. An embedded switch
/// has interfaces beside the port's own that know nothing of virtual functions.
fn read(writer: &Writer, device: Sbdf) -> Result<(u32, u16, KeptNetwork), WriteFailure> {
    let keeper = keeper(writer.kernel(), device).map_err(|missing| match missing {
        Missing::NotVirtual => failed(device, "find its physical function")(Errno::ENODEV),
        Missing::NoInterface(pf) => {
            failed(device, format!("find a network interface of {pf}"))(Errno::ENODEV)
        }
        Missing::Unreadable(errno) => failed(device, "find who keeps its network identity")(errno),
    })?;
    let mut answer = Err(Errno::ENODEV);
    for index in keeper.interfaces {
        match writer.virtual_network(device, index, keeper.number) {
            Ok(kept) => return Ok((index, keeper.number, kept)),
            Err(errno) => answer = answer.map_err(|first| if first == Errno::ENODEV { errno } else { first }),
        }
    }
    answer.map_err(failed(device, format!("ask {} for its network identity", keeper.physical_function)))
}

/// What is kept of these settings.
pub(super) fn kept(
    writer: &Writer,
    device: Sbdf,
    settings: NetworkSettings,
) -> Result<NetworkSettings, WriteFailure> {
    let (_, _, kept) = read(writer, device)?;
    Ok(NetworkSettings { mac: settings.mac.map(|_| kept.mac), vlan: settings.vlan.map(|_| kept.vlan) })
}

/// The changes that are missing.
fn missing(wanted: NetworkSettings, kept: KeptNetwork) -> impl Iterator<Item = NetworkChange> {
    let mac = wanted.mac.filter(|mac| *mac != kept.mac).map(NetworkChange::Mac);
    let vlan = wanted.vlan.filter(|vlan| *vlan != kept.vlan).map(NetworkChange::Vlan);
    mac.into_iter().chain(vlan)
}

/// Gives a guest's settings to a device that has the host's.
///
/// Some drivers refuse zeros, which are what there is where nobody has set an address: it would never be put back. So
/// that is tried first, while it changes nothing.
pub(super) fn give(writer: &Writer, device: Sbdf, network: NetworkRecord) -> Result<(), WriteFailure> {
    let zero = network.saved.mac.filter(|mac| mac.is_zero() && network.wanted.mac != Some(*mac));
    if let Some(zero) = zero {
        let (index, number, _) = read(writer, device)?;
        let set = writer.set_virtual_network(device, index, number, NetworkChange::Mac(zero));
        set.map_err(failed(
            device,
            "try whether its mac can be zero again: set one by hand before the attach",
        ))?;
    }
    apply(writer, device, network.wanted)
}

/// Makes the settings so.
pub(super) fn apply(writer: &Writer, device: Sbdf, wanted: NetworkSettings) -> Result<(), WriteFailure> {
    let (index, number, now) = read(writer, device)?;
    let changes: Vec<_> = missing(wanted, now).collect();
    if changes.is_empty() {
        return Ok(());
    }
    for change in changes {
        let set = writer.set_virtual_network(device, index, number, change);
        set.map_err(failed(device, format!("set its {change}")))?;
    }
    let (_, _, kept) = read(writer, device)?;
    // Where nobody has set an address, some drivers show the one that they have chosen.
    let is_there = |change: &NetworkChange| matches!(change, NetworkChange::Mac(mac) if mac.is_zero());
    match missing(wanted, kept).find(|change| !is_there(change)) {
        Some(change) => Err(failed(device, format!("set its {change}: it is not so"))(Errno::EIO)),
        None => Ok(()),
    }
}
