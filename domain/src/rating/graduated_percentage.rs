use super::exact::Exact;
use super::graduated::reached;
use super::price::RateTier;
use super::rate::RatedLine;
use crate::quantity::Quantity;

/// Each reached tier: the amount inside it at its rate, and its flat amount. The first tier is reached at zero.
pub(super) fn lines(tiers: &[RateTier], total: Quantity) -> Vec<RatedLine> {
    reached(tiers.iter().map(|tier| tier.up_to), total)
        .zip(tiers)
        .enumerate()
        .map(|(slot, (inside, tier))| {
            let rate = Exact::from(tier.rate_percent).percent();
            RatedLine::new(slot, inside, rate, tier.flat_amount.into())
        })
        .collect()
}
