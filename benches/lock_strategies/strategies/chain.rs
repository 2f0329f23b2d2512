//! A linked list, as Xen keeps devices and registers: what is looked for lies in the link itself.

/// A singly linked list.
pub(crate) struct Chain<T>(Option<Box<Link<T>>>);

struct Link<T> {
    value: T,
    next: Option<Box<Link<T>>>,
}

impl<T> Chain<T> {
    pub(super) const fn new() -> Self {
        Self(None)
    }

    pub(super) fn push_front(&mut self, value: T) {
        let next = self.0.take();
        self.0 = Some(Box::new(Link { value, next }));
    }

    /// The first that is looked for.
    #[inline]
    pub(super) fn find(&self, wanted: impl Fn(&T) -> bool) -> Option<&T> {
        let mut at = &self.0;
        while let Some(link) = at {
            if wanted(&link.value) {
                return Some(&link.value);
            }
            at = &link.next;
        }
        None
    }

    /// Takes the first that is looked for out of the list.
    pub(super) fn remove(&mut self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        let mut at = &mut self.0;
        while at.as_ref().is_some_and(|link| !wanted(&link.value)) {
            at = &mut at.as_mut()?.next;
        }
        let Link { value, next } = *at.take()?;
        *at = next;
        Some(value)
    }
}

impl<T> Drop for Chain<T> {
    /// One after the other: the compiler's would call itself for every link.
    fn drop(&mut self) {
        let mut at = self.0.take();
        while let Some(mut link) = at {
            at = link.next.take();
        }
    }
}
