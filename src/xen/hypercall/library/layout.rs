//! The one structure of the hypervisor's that we read.
//!
//! Written from the public headers of Xen 4.17 (`xen/domctl.h`, `xen/arch-x86/xen.h`).

use std::mem::offset_of;

/// `xc_domaininfo_t` of interface version 0x15 on x86-64.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct DomainInformation {
    domain: u16,
    pad1: u16,
    flags: u32,
    /// Total, most, outstanding, shared and paged pages; the frame of the shared information; time on processors.
    counts: [u64; 7],
    online_vcpus: u32,
    max_vcpu_id: u32,
    ssidref: u32,
    handle: [u8; 16],
    cpupool: u32,
    gpaddr_bits: u8,
    pad2: [u8; 7],
    emulation_flags: u32,
    misc_flags: u32,
}

// As a C compiler lays the header's structure out.
const _: () = assert!(
    size_of::<DomainInformation>() == 112
        && align_of::<DomainInformation>() == 8
        && offset_of!(DomainInformation, flags) == 4
        && offset_of!(DomainInformation, counts) == 8
        && offset_of!(DomainInformation, online_vcpus) == 64
        && offset_of!(DomainInformation, handle) == 76
        && offset_of!(DomainInformation, cpupool) == 92
        && offset_of!(DomainInformation, gpaddr_bits) == 96
        && offset_of!(DomainInformation, emulation_flags) == 104
);

/// Bits of `flags` (`XEN_DOMINF_*`).
const DYING: u32 = 1 << 0;
const HVM_GUEST: u32 = 1 << 1;
const SHUTDOWN: u32 = 1 << 2;
const XS_DOMAIN: u32 = 1 << 7;

/// A bit of `emulation_flags` that every HVM guest has and no PVH guest: the interval timer of a PC.
const EMULATES_PIT: u32 = 1 << 8;

impl DomainInformation {
    pub(super) fn number(&self) -> u32 {
        self.domain.into()
    }

    pub(super) fn is_dying(&self) -> bool {
        self.flags & DYING != 0
    }

    pub(super) fn is_shut_down(&self) -> bool {
        self.flags & SHUTDOWN != 0
    }

    pub(super) fn is_hardware_virtualised(&self) -> bool {
        self.flags & HVM_GUEST != 0
    }

    pub(super) fn emulates_a_pc(&self) -> bool {
        self.emulation_flags & EMULATES_PIT != 0
    }

    pub(super) fn serves_xenstore(&self) -> bool {
        self.flags & XS_DOMAIN != 0
    }
}
