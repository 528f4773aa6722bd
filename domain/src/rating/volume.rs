use super::exact::Exact;
use super::price::Tier;
use super::rate::RatedLine;
use crate::quantity::Quantity;

/// All units at the unit amount of the tier that the total reaches, and that tier's flat amount. A quantity of exactly
/// `up_to` still belongs to the tier. Source: Stripe, "Tiered pricing".
pub(super) fn lines(tiers: &[Tier], total: Quantity) -> Vec<RatedLine> {
    tiers
        .iter()
        .enumerate()
        .find(|(_, tier)| tier.up_to.is_none_or(|end| total <= end))
        .map(|(slot, tier)| {
            RatedLine::new(
                slot,
                Exact::from(total),
                tier.unit_amount.into(),
                tier.flat_amount.into(),
            )
        })
        .into_iter()
        .collect()
}
