use super::exact::Exact;
use super::price::Flat;
use super::rate::RatedLine;

/// The amount, whatever was used.
pub(super) fn lines(model: &Flat) -> Vec<RatedLine> {
    vec![RatedLine::new(
        0,
        Exact::one(),
        model.amount.into(),
        Exact::zero(),
    )]
}
