//! Phantom functions: function numbers a device uses for requests without having the functions
//! (PCIe 6.0 §7.5.3.3, Device Capabilities bits 4:3).
//!
//! A device that needs more outstanding requests than its tags allow borrows unused function numbers. The IOMMU
//! sees those numbers, so every IOMMU step is done for them too, and a fault that names one is the real device's.

use super::config::ConfigSpace;
use super::express::Express;
use crate::address::{DevFn, Sbdf};

/// The distance between a real function and its phantoms: 4, 2 or 1.
///
/// A real function is below the stride; above it every function number that is the same modulo the stride is one
/// of its phantoms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stride {
    /// Every function but 0 is a phantom of function 0.
    One = 1,
    /// Functions 2, 4, 6 are phantoms of 0, functions 3, 5, 7 of 1.
    Two = 2,
    /// Function `n + 4` is a phantom of function `n`.
    Four = 4,
}

impl Stride {
    /// The stride of this number of functions, as an embedder lists it; `None` unless 1, 2 or 4.
    pub const fn new(functions: u8) -> Option<Self> {
        match functions {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            4 => Some(Self::Four),
            _ => None,
        }
    }

    /// The stride in functions.
    pub const fn functions(self) -> u8 {
        self as u8
    }

    /// The stride a device at `devfn` declares in its Device Capabilities: 8 shifted right by bits 4:3.
    ///
    /// `None` without phantom functions, which includes a function number that is not below the stride: its
    /// phantoms would be other functions' numbers.
    pub fn read(config: ConfigSpace<'_>, devfn: DevFn) -> Option<Self> {
        let bits = Express::read(config)?.device_capabilities >> 3 & 3;
        Self::new(8 >> bits)?.for_function(devfn)
    }

    /// The stride if it is usable at `devfn`, that is if the function number is below it.
    pub const fn for_function(self, devfn: DevFn) -> Option<Self> {
        if devfn.function() < self.functions() { Some(self) } else { None }
    }
}

/// The phantom functions of the device at `address`, in address order; nothing if `address` is not below the
/// stride. At most seven, all on the same device number.
///
/// ```
/// use pcidevs::device::{Stride, phantom_functions};
/// let phantoms = phantom_functions("00:1f.1".parse()?, Stride::Two);
/// let text: Vec<_> = phantoms.map(|phantom| phantom.to_string()).collect();
/// assert_eq!(text, ["0000:00:1f.3", "0000:00:1f.5", "0000:00:1f.7"]);
/// # Ok::<(), pcidevs::address::InvalidAddress>(())
/// ```
pub fn phantom_functions(address: Sbdf, stride: Stride) -> impl Iterator<Item = Sbdf> + Clone {
    let first = match stride.for_function(address.devfn()) {
        Some(stride) => address.function() + stride.functions(),
        None => 8,
    };
    (first..8)
        .step_by(stride.functions().into())
        .filter_map(move |function| DevFn::new(address.device(), function))
        .map(move |devfn| address.with_devfn(devfn))
}

/// The real function behind an address, given the stride of its device: itself if it is no phantom.
///
/// The result is right for every function the stride covers. (Clearing only the stride's own bit, as Xen does,
/// misses those with a lower bit set.)
pub const fn real_function(phantom: Sbdf, stride: Stride) -> Sbdf {
    let devfn = phantom.devfn();
    // Strides are powers of two: the bits below the stride are the function modulo the stride.
    let function = devfn.function() & (stride.functions() - 1);
    phantom.with_devfn(DevFn::from_bits(devfn.bits() & !7 | function))
}
