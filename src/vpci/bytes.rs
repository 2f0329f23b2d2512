//! The bytes of an access.
//!
//! Accesses are of 1, 2, 4 or 8 bytes, each written and read as one: byte by byte the next read of them, which is the
//! VMM's, waits for the stores to reach the cache, longer than for a lock.

/// All ones: what a read finds where nothing answers.
#[inline]
pub(super) fn fill_with_ones(data: &mut [u8]) {
    match data.len() {
        4 => put::<4>(data, [0xff; 4]),
        8 => put::<8>(data, [0xff; 8]),
        2 => put::<2>(data, [0xff; 2]),
        1 => put::<1>(data, [0xff; 1]),
        _ => data.fill(0xff),
    }
}

/// The low bytes of a value, as many as there is room for, the lowest first.
#[inline]
pub(super) fn put_value(data: &mut [u8], value: u32) {
    let bytes @ [b0, b1, ..] = value.to_le_bytes();
    match data.len() {
        4.. => put(data, bytes),
        2 => put(data, [b0, b1]),
        1 => put(data, [b0]),
        _ => data.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte),
    }
}

/// The value of up to four bytes, the lowest first.
#[inline]
pub(super) fn value_of(data: &[u8]) -> u32 {
    match *data {
        [b0, b1, b2, b3, ..] => u32::from_le_bytes([b0, b1, b2, b3]),
        [b0, b1, b2] => u32::from_le_bytes([b0, b1, b2, 0]),
        [b0, b1] => u16::from_le_bytes([b0, b1]).into(),
        [b0] => b0.into(),
        [] => 0,
    }
}

#[inline]
fn put<const N: usize>(data: &mut [u8], bytes: [u8; N]) {
    if let Some(place) = data.first_chunk_mut() {
        *place = bytes;
    }
}
