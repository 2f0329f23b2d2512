//! The plain form of loom's checked cell: a pointer in, a pointer out, nothing counted.

/// Memory whose sharing is decided by the protocol around it. Under loom every access is checked.
#[repr(transparent)]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// Opens the cell for reading and writing, until the pointer is dropped.
    #[inline(always)]
    pub(crate) fn get_mut(&self) -> MutPtr<T> {
        MutPtr(self.0.get())
    }
}

/// Exclusive access to the inside of an [`UnsafeCell`].
#[derive(Debug)]
pub(crate) struct MutPtr<T>(*mut T);

impl<T> MutPtr<T> {
    /// # Safety
    ///
    /// Nobody else reaches the cell while the pointer lives, and the caller makes one reference at a time.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the signature of loom's pointer")]
    pub(crate) unsafe fn deref(&self) -> &mut T {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.0 }
    }
}
