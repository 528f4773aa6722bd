//! Numbers that change their type and keep their value.

/// A length or a place of a file as one in memory.
#[expect(
    clippy::cast_possible_truncation,
    reason = "addresses have 64 bits, or this does not compile"
)]
pub(crate) const fn in_memory(bytes: u64) -> usize {
    const { assert!(usize::BITS >= u64::BITS, "a 64-bit machine is needed") };
    bytes as usize
}

/// Where among `count` places a hash falls: less than `count`, and in the hashes' order.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the product of 64 bits and a count, without its lower 64 bits, is less than the count"
)]
#[inline]
pub(crate) const fn place_of(hash: u128, count: usize) -> usize {
    (((hash >> 64) * count as u128) >> 64) as usize
}

/// A number as the databases keep it: in 63 bits. What is counted one by one cannot reach that.
pub(crate) fn integer(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// A count as a metric shows it, exact to 2^53.
#[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
pub(crate) const fn metric(count: u64) -> f64 {
    count as f64
}

/// Appends `value` as LEB128: 7 bits a byte, the lowest first, the upper bit of all but the last set.
pub(crate) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}
