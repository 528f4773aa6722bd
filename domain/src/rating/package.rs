use super::RatingError;
use super::exact::Exact;
use super::price::{Package, PackageRound};
use super::rate::RatedLine;
use crate::quantity::Quantity;

/// The packages that what is beyond the included units fills or begins; none at no usage.
pub(super) fn lines(model: &Package, total: Quantity) -> Result<Vec<RatedLine>, RatingError> {
    let (total, included) = (Exact::from(total), Exact::from(model.included));
    let charged = &total - &total.clone().min(included);
    let packages = charged
        .divided_whole(&Exact::from(model.package_size), model.round == PackageRound::Up)
        .ok_or(RatingError::EmptyPackage)?;
    Ok(vec![RatedLine::new(
        0,
        packages,
        model.package_amount.into(),
        Exact::zero(),
    )])
}
