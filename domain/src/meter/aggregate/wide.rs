use num_bigint::BigInt;

use crate::quantity::Quantity;

/// A sum of quantities in parts of 10⁻¹², 192 bits wide: more than 2⁶³ quantities cannot overflow it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wide([u64; 3]);

impl Wide {
    /// One quantity.
    pub fn of(value: Quantity) -> Self {
        Self::of_parts(value.parts())
    }

    /// A sum of quantities in parts of 10⁻¹² that 128 bits can hold.
    pub fn of_parts(parts: i128) -> Self {
        let sign = if parts < 0 { u64::MAX } else { 0 };
        let bits = parts.cast_unsigned();
        Self([(bits & 0xffff_ffff_ffff_ffff) as u64, (bits >> 64) as u64, sign])
    }

    /// Adds `other`.
    pub fn add(&mut self, other: Self) {
        let mut carry = false;
        for (limb, more) in self.0.iter_mut().zip(other.0) {
            let (sum, first) = limb.overflowing_add(more);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, first || second);
        }
    }

    /// The sum with its sign turned.
    #[must_use]
    pub fn negated(self) -> Self {
        let mut turned = Self(self.0.map(|limb| !limb));
        turned.add(Self([1, 0, 0]));
        turned
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 3]
    }

    /// Parts of 10⁻¹².
    pub(crate) fn to_big(self) -> BigInt {
        BigInt::from_signed_bytes_le(&self.bytes())
    }

    /// As a quantity; `None` beyond its range.
    pub(crate) fn to_quantity(self) -> Option<Quantity> {
        let parts = i128::from(self.0[0]) | i128::from(self.0[1]) << 64;
        let sign = if parts < 0 { u64::MAX } else { 0 };
        (self.0[2] == sign)
            .then(|| Quantity::from_parts(parts).ok())
            .flatten()
    }

    /// Little-endian two's complement.
    pub(super) fn bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        for (chunk, limb) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }

    /// How many of its bytes say something: those above them only repeat the sign. At least one.
    pub(super) fn significant_bytes(self) -> usize {
        let sign = if self.0[2] >> 63 == 0 { 0 } else { u64::MAX };
        let highest = self.0.iter().rposition(|limb| *limb != sign);
        highest.map_or(1, |at| {
            let bits = (at + 1) * 64 - (self.0[at] ^ sign).leading_zeros() as usize;
            // With one more for the sign.
            bits / 8 + 1
        })
    }

    pub(super) fn from_bytes(bytes: [u8; 24]) -> Self {
        let mut limbs = [0; 3];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
            *limb = chunk.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        }
        Self(limbs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: i128 = Quantity::MAX.parts();

    proptest! {
        #[test]
        fn adds_as_unbounded_integers_do(parts in prop::collection::vec((-MAX..=MAX, any::<bool>()), 0..200)) {
            let (mut sum, mut expected) = (Wide::default(), BigInt::ZERO);
            for (parts, negate) in parts {
                let one = Wide::of(Quantity::from_parts(parts).unwrap());
                sum.add(if negate { one.negated() } else { one });
                expected += if negate { -parts } else { parts };
            }
            prop_assert_eq!(sum.to_big(), expected.clone());
            prop_assert_eq!(Wide::from_bytes(sum.bytes()), sum);
            prop_assert_eq!(sum.significant_bytes(), expected.to_signed_bytes_le().len());
            let quantity = i128::try_from(expected).ok().and_then(|p| Quantity::from_parts(p).ok());
            prop_assert_eq!(sum.to_quantity(), quantity);
        }
    }

    #[test]
    fn the_largest_quantities_add_up_beyond_128_bits() {
        let mut sum = Wide::default();
        assert_eq!(sum.significant_bytes(), 1);
        for _ in 0..10 {
            sum.add(Wide::of(Quantity::MAX));
        }
        assert_eq!(sum.to_big(), BigInt::from(MAX) * 10);
        assert_eq!(sum.to_quantity(), None);
    }
}
