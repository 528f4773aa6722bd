use super::exact::Exact;
use super::price::PerUnit;
use super::rate::RatedLine;
use crate::quantity::Quantity;

/// What is included costs nothing; each unit above costs the unit amount.
pub(super) fn lines(model: &PerUnit, total: Quantity) -> Vec<RatedLine> {
    let (total, included) = (Exact::from(total), Exact::from(model.included));
    let free = total.clone().min(included);
    let charged = &total - &free;
    let mut lines = Vec::with_capacity(2);
    if !free.is_zero() {
        lines.push(RatedLine::new(0, free, Exact::zero(), Exact::zero()));
    }
    lines.push(RatedLine::new(
        1,
        charged,
        model.unit_amount.into(),
        Exact::zero(),
    ));
    lines
}
