use super::RatingError;
use super::decimal::Decimal;
use super::exact::Exact;
use super::price::Matrix;
use super::rate::{RatedLine, Usage};
use crate::quantity::Quantity;

/// Each combination's units at its unit amount, or at the default where it has none.
pub(super) fn lines(model: &Matrix, usage: &Usage) -> Result<Vec<RatedLine>, RatingError> {
    let Usage::Groups(groups) = usage else {
        return Err(RatingError::NeedsGroups);
    };
    if groups
        .iter()
        .any(|(group, _)| group.len() != model.dimensions.len())
    {
        return Err(RatingError::NeedsGroups);
    }
    let line = |(group, quantity): &(Vec<String>, Quantity)| {
        let quantity = Exact::from((*quantity).max(Quantity::ZERO));
        let line = RatedLine::new(0, quantity, unit_amount(model, group).into(), Exact::zero());
        RatedLine {
            group: group.clone(),
            ..line
        }
    };
    Ok(groups.iter().map(line).collect())
}

fn unit_amount(model: &Matrix, group: &[String]) -> Decimal {
    let fits = |dimension: &String, value: &String, values: &std::collections::BTreeMap<String, String>| {
        values.get(dimension) == Some(value)
    };
    model
        .rates
        .iter()
        .find(|rate| {
            model
                .dimensions
                .iter()
                .zip(group)
                .all(|(d, v)| fits(d, v, &rate.values))
        })
        .map_or(model.default_unit_amount, |rate| rate.unit_amount)
}
