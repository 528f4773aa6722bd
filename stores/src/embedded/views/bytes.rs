//! Reading little-endian numbers and variable-length integers without ever going beyond the end.

/// Reads from the front of a slice. `None` where it ends too early.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `len` bytes.
    pub(super) fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (slice, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(slice)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    /// Four bytes.
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A variable-length integer: seven bits a byte, lowest first, the highest bit set on all but the last (LEB128).
    #[inline]
    pub(super) fn varint(&mut self) -> Option<u64> {
        // Most have one byte.
        if let [byte @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Some(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A variable-length integer that is a length.
    pub(super) fn length(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }

    /// Bytes that have not been read.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Whether all has been read.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// How many bytes `a` and `b` share at their front.
pub(super) fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    let (a_words, b_words) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let equal = a_words.iter().zip(b_words).take_while(|(a, b)| a == b).count() * 8;
    let rest = a[equal..].iter().zip(&b[equal..]);
    equal + rest.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::width::push_varint;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_survive(values in prop::collection::vec(any::<u64>().prop_map(|v| v >> (v % 64)), 0..20)) {
            let mut bytes = Vec::new();
            for value in &values {
                push_varint(&mut bytes, *value);
            }
            let mut reader = Reader::new(&bytes);
            for value in &values {
                prop_assert_eq!(reader.varint(), Some(*value));
            }
            prop_assert!(reader.is_empty());
            prop_assert_eq!(reader.varint(), None);
        }
    }

    proptest! {
        #[test]
        fn what_two_share_ends_where_they_differ(a in prop::collection::vec(0_u8..2, 0..40), at in 0_usize..40) {
            let mut other = a.clone();
            if let Some(byte) = other.get_mut(at) {
                *byte = 7;
            }
            prop_assert_eq!(shared_prefix(&a, &other), at.min(a.len()));
            prop_assert_eq!(shared_prefix(&a[..at.min(a.len())], &a), at.min(a.len()));
        }
    }

    #[test]
    fn a_varint_beyond_64_bits_is_refused() {
        assert_eq!(Reader::new(&[0xff; 10]).varint(), None);
        assert_eq!(Reader::new(&[0x80; 3]).varint(), None);
        let mut most = vec![0xff; 9];
        most.push(1);
        assert_eq!(Reader::new(&most).varint(), Some(u64::MAX));
    }
}
