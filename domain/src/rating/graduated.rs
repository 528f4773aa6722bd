use super::exact::Exact;
use super::price::Tier;
use super::rate::RatedLine;
use crate::quantity::Quantity;

/// Each reached tier: its units at its unit amount, and its flat amount. The first tier is reached at zero.
/// Source: Stripe, "Tiered pricing"; a quantity of exactly `up_to` still belongs to the tier.
pub(super) fn lines(tiers: &[Tier], total: Quantity) -> Vec<RatedLine> {
    reached(tiers.iter().map(|tier| tier.up_to), total)
        .zip(tiers)
        .enumerate()
        .map(|(slot, (inside, tier))| {
            RatedLine::new(slot, inside, tier.unit_amount.into(), tier.flat_amount.into())
        })
        .collect()
}

/// For each tier that `total` reaches, what of it lies inside the tier.
pub(super) fn reached(
    ends: impl Iterator<Item = Option<Quantity>>,
    total: Quantity,
) -> impl Iterator<Item = Exact> {
    let mut before = Quantity::ZERO;
    ends.enumerate()
        .take_while(move |(at, end)| {
            let is_reached = *at == 0 || before < total;
            before = end.unwrap_or(Quantity::MAX);
            is_reached
        })
        .scan(Quantity::ZERO, move |start, (_, end)| {
            let stop = end.map_or(total, |end| end.min(total));
            let inside = &Exact::from(stop) - &Exact::from(*start);
            *start = stop;
            Some(inside)
        })
}
