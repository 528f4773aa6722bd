use super::RatingError;

/// Splits `total` in proportion to `weights`, so that the parts sum to it: each part is cut towards zero, and what is
/// left goes, one by one, to the largest remainders; among equal ones to the first.
/// Source: the method of Hamilton. An error when there is no weight above zero.
pub fn split(total: i64, weights: &[u64]) -> Result<Vec<i64>, RatingError> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    if sum == 0 {
        return Err(RatingError::NoWeights);
    }
    let magnitude = u128::from(total.unsigned_abs());
    let shares: Vec<(u128, u128)> = weights
        .iter()
        .map(|weight| {
            let scaled = magnitude
                .checked_mul(u128::from(*weight))
                .ok_or(RatingError::Overflow)?;
            Ok((scaled / sum, scaled % sum))
        })
        .collect::<Result<_, RatingError>>()?;
    let given: u128 = shares.iter().map(|(part, _)| part).sum();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(shares[*at].1));
    let mut parts: Vec<u128> = shares.iter().map(|(part, _)| *part).collect();
    for at in order.into_iter().take((magnitude - given) as usize) {
        parts[at] += 1;
    }
    let signed = |part: u128| {
        let part = i128::try_from(part).map_err(|_| RatingError::Overflow)?;
        let part = if total < 0 { -part } else { part };
        i64::try_from(part).map_err(|_| RatingError::Overflow)
    };
    parts.into_iter().map(signed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_left_goes_to_the_largest_remainder() {
        assert_eq!(split(8920, &[1, 1, 1]), Ok(vec![2974, 2973, 2973]));
        assert_eq!(split(77, &[10, 20, 70]), Ok(vec![8, 15, 54]));
        assert_eq!(split(-77, &[10, 20, 70]), Ok(vec![-8, -15, -54]));
        assert_eq!(split(1, &[0, 1, 1]), Ok(vec![0, 1, 0]));
        assert_eq!(split(5, &[]), Err(RatingError::NoWeights));
        assert_eq!(split(i64::MIN, &[1]), Ok(vec![i64::MIN]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(crate::rating::tests::conservation_cases()))]
        #[test]
        fn parts_sum_to_the_whole(total in any::<i64>(), weights in prop::collection::vec(0..1u64 << 40, 1..8)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let parts = split(total, &weights).unwrap();
            prop_assert_eq!(parts.iter().map(|part| i128::from(*part)).sum::<i128>(), i128::from(total));
            let sum: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
            for (part, weight) in parts.iter().zip(&weights) {
                let exact = i128::from(total) * i128::from(*weight);
                prop_assert!((i128::from(*part) * sum - exact).abs() < sum, "no part is off by a unit");
            }
        }
    }
}
