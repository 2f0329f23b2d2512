//! Functions and drivers, as a test describes them.

use std::time::Duration;

use crate::Sbdf;
use crate::errno::Errno;

/// A function, before it is there.
#[derive(Clone, Debug)]
pub struct FakeFunction {
    /// Vendor and device ID.
    pub id: (u16, u16),
    /// Class code.
    pub class: u32,
    /// Its configuration space; vendor and device stand in it whatever it holds.
    pub config: Vec<u8>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// The names in `reset_method`; `None` for no such file, and no reset.
    pub reset_method: Option<String>,
    /// How many virtual functions it can have.
    pub total_vfs: u16,
    /// Its physical function.
    pub physical_function: Option<Sbdf>,
    /// It is the screen of the firmware.
    pub is_boot_vga: bool,
}

impl FakeFunction {
    /// An endpoint that can be reset, in this group.
    pub fn endpoint(id: (u16, u16), group: u32) -> Self {
        Self {
            id,
            class: 0x02_0000,
            config: vec![0; 256],
            group: Some(group),
            reset_method: Some("flr bus".into()),
            total_vfs: 0,
            physical_function: None,
            is_boot_vga: false,
        }
    }

    /// A bridge from its bus to this one.
    pub fn bridge(id: (u16, u16), group: u32, secondary: u8) -> Self {
        let mut bridge = Self { class: 0x06_0400, reset_method: None, ..Self::endpoint(id, group) };
        bridge.config[0x0e] = 1;
        bridge.config[0x19] = secondary;
        bridge.config[0x1a] = secondary;
        bridge
    }
}

/// A driver.
#[derive(Clone, Debug, Default)]
pub struct FakeDriver {
    /// What it matches without an override.
    pub ids: Vec<(u16, u16)>,
    /// It gives devices to userspace.
    pub is_vfio: bool,
    /// It can make virtual functions.
    pub makes_vfs: bool,
    /// What its probe says.
    pub refuses: Option<Errno>,
    /// How long its probe takes.
    pub probe_takes: Duration,
    /// Its unbind does not return while this is so.
    pub hangs_in_unbind: bool,
}

impl FakeDriver {
    /// A host driver for functions of this ID.
    pub fn of(id: (u16, u16)) -> Self {
        Self { ids: vec![id], ..Self::default() }
    }

    /// A driver of VFIO.
    pub fn vfio() -> Self {
        Self { is_vfio: true, makes_vfs: true, ..Self::default() }
    }
}

/// A function that is there.
pub(super) struct Function {
    pub(super) is: FakeFunction,
    pub(super) driver: Option<String>,
    pub(super) driver_override: Option<String>,
    /// Somebody holds its device lock.
    pub(super) is_locked: bool,
    /// How many have it open.
    pub(super) open: usize,
    pub(super) resets: u32,
    pub(super) num_vfs: u16,
    /// `sriov_drivers_autoprobe`.
    pub(super) probes_vfs: bool,
}

impl Function {
    pub(super) fn new(mut is: FakeFunction) -> Self {
        let (vendor, device) = is.id;
        // A virtual function's own IDs read ffff.
        let ids = if is.physical_function.is_some() { (0xffff, 0xffff) } else { (vendor, device) };
        for (place, value) in [(0, ids.0), (2, ids.1)] {
            if let Some(bytes) = is.config.get_mut(place..place + 2) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        }
        for (place, byte) in is.class.to_le_bytes().into_iter().take(3).enumerate() {
            if let Some(into) = is.config.get_mut(9 + place) {
                *into = byte;
            }
        }
        Self {
            is,
            driver: None,
            driver_override: None,
            is_locked: false,
            open: 0,
            resets: 0,
            num_vfs: 0,
            probes_vfs: true,
        }
    }

    pub(super) fn start_anew(&mut self) {
        (self.driver, self.driver_override) = (None, None);
        (self.is_locked, self.open) = (false, 0);
        self.set_command(0);
    }

    pub(super) fn command(&self) -> u16 {
        self.is.config.get(4..6).map_or(0xffff, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn set_command(&mut self, command: u16) {
        if let Some(bytes) = self.is.config.get_mut(4..6) {
            bytes.copy_from_slice(&command.to_le_bytes());
        }
    }

    pub(super) fn is_bridge(&self) -> bool {
        self.is.config.get(0x0e).is_some_and(|header| header & 0x7f != 0)
    }
}
