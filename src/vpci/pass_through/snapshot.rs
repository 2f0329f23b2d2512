//! A function's configuration space, read once: what hardware says later cannot contradict what was checked.

use alloc::vec::Vec;

use crate::device::{EXTENDED_START, FULL_SIZE};
use crate::memory::NoMemory;
use crate::platform::Width;
use crate::vpci::backing::Backing;

/// All bytes that are there: 256, or 4096 if there is something beyond.
pub(super) fn read(backing: &mut dyn Backing) -> Result<Vec<u8>, NoMemory> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(FULL_SIZE).map_err(NoMemory::from)?;
    for offset in (0_u16..).step_by(4).take(FULL_SIZE / 4) {
        let dword = backing.config_read(offset, Width::Dword);
        if usize::from(offset) == EXTENDED_START && dword == u32::MAX {
            break;
        }
        // There is room for all of them.
        bytes.extend_from_slice(&dword.to_le_bytes());
    }
    Ok(bytes)
}
