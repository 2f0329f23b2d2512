//! Pinned threads.

use std::sync::OnceLock;

use core_affinity::CoreId;

/// The processors this process may use. Asked once, by a thread that is not pinned yet.
pub(crate) fn processors() -> &'static [CoreId] {
    static PROCESSORS: OnceLock<Vec<CoreId>> = OnceLock::new();
    PROCESSORS.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default())
}

/// Binds the calling thread to a processor, counted round those there are.
pub(crate) fn pin(thread: usize) {
    let processors = processors();
    if !processors.is_empty() {
        core_affinity::set_for_current(processors[thread % processors.len()]);
    }
}
