//! The shape of a price in JSON and TOML: one flat object whose fields depend on `model`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::decimal::Decimal;
use super::price::{
    Flat, Matrix, MatrixRate, Model, Package, PackageRound, PerUnit, Percentage, Price, RateTier, Tier,
    Timing,
};
use crate::quantity::Quantity;

/// The name of a price model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelName {
    /// A fixed amount per period.
    Flat,
    /// An amount per unit beyond what is included.
    PerUnit,
    /// Each tier's units at that tier's price.
    Graduated,
    /// All units at the price of the tier that the total reaches.
    Volume,
    /// An amount per package of units.
    Package,
    /// A share of each event's amount.
    Percentage,
    /// Each tier's amount at that tier's rate.
    GraduatedPercentage,
    /// A unit price by the values of dimensions.
    Matrix,
}

impl ModelName {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::PerUnit => "per_unit",
            Self::Graduated => "graduated",
            Self::Volume => "volume",
            Self::Package => "package",
            Self::Percentage => "percentage",
            Self::GraduatedPercentage => "graduated_percentage",
            Self::Matrix => "matrix",
        }
    }
}

/// What something costs. Which fields there are depends on `model`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceWire {
    /// Its key inside the plan.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    key: String,
    /// The meter whose usage it charges; none for `flat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    meter: Option<String>,
    /// How usage becomes an amount.
    model: ModelName,
    /// `flat`: the amount of a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    amount: Option<Decimal>,
    /// `flat`: charged before or after its period; `advance` unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timing: Option<Timing>,
    /// `per_unit`: the price of one unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit_amount: Option<Decimal>,
    /// `per_unit`, `package`: units that are free in each period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    included: Option<Quantity>,
    /// `graduated`, `volume`, `graduated_percentage`: ascending; the last one has no `up_to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tiers: Option<Vec<TierWire>>,
    /// `package`: units in a package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    package_size: Option<Quantity>,
    /// `package`: the price of a package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    package_amount: Option<Decimal>,
    /// `package`: what becomes of a package that is begun; `up` unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    round: Option<PackageRound>,
    /// `percentage`: per cent of each event's charged part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_percent: Option<Decimal>,
    /// `percentage`: added for each charged event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fixed_amount: Option<Decimal>,
    /// `percentage`: free events in each period; 0: no such bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    free_events: Option<u64>,
    /// `percentage`: free sum of amounts in each period; 0: no such bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    free_amount: Option<Quantity>,
    /// `percentage`: the least fee of a charged event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_per_event: Option<Decimal>,
    /// `percentage`: the largest fee of a charged event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_per_event: Option<Decimal>,
    /// `matrix`: group-by keys of the meter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dimensions: Option<Vec<String>>,
    /// `matrix`: the combinations that have a price of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rates: Option<Vec<MatrixRate>>,
    /// `matrix`: the unit price of all other combinations; 0 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_unit_amount: Option<Decimal>,
    /// The least amount of a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    minimum_amount: Option<Decimal>,
    /// The largest amount of a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maximum_amount: Option<Decimal>,
    /// Group-by key of the meter → the values that are charged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    filter: BTreeMap<String, Vec<String>>,
}

/// A tier of a price.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TierWire {
    /// The last unit of the tier; null or absent for the last tier.
    #[serde(default)]
    up_to: Option<Quantity>,
    /// `graduated`, `volume`: the price of one unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit_amount: Option<Decimal>,
    /// `graduated_percentage`: per cent of the amount inside the tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_percent: Option<Decimal>,
    /// Charged once when the tier is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flat_amount: Option<Decimal>,
}

/// Field by field, for serde's `flatten` forgets where in the text a wrong one stood.
impl<'de> Deserialize<'de> for MatrixRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RateVisitor)
    }
}

struct RateVisitor;

impl<'de> Visitor<'de> for RateVisitor {
    type Value = MatrixRate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<MatrixRate, A::Error> {
        let (mut unit_amount, mut values) = (None, BTreeMap::new());
        while let Some(name) = fields.next_key::<String>()? {
            let twice = if name == "unit_amount" {
                unit_amount.replace(fields.next_value()?).is_some()
            } else {
                values.insert(name.clone(), fields.next_value()?).is_some()
            };
            if twice {
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
        }
        let unit_amount = unit_amount.ok_or_else(|| A::Error::missing_field("unit_amount"))?;
        Ok(MatrixRate { unit_amount, values })
    }
}

/// Why a price cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceShapeError {
    /// A field that the model needs is not there.
    #[error("a {model} price needs `{field}`")]
    Missing {
        /// The model.
        model: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field is there that the model does not have.
    #[error("a {model} price has no `{field}`")]
    Foreign {
        /// The model.
        model: &'static str,
        /// The field.
        field: &'static str,
    },
}

impl TryFrom<PriceWire> for Price {
    type Error = PriceShapeError;

    fn try_from(mut wire: PriceWire) -> Result<Self, PriceShapeError> {
        let model = wire.take_model()?;
        if let Some(field) = wire.left_over() {
            let model = wire.model.as_str();
            return Err(PriceShapeError::Foreign { model, field });
        }
        Ok(Self {
            key: wire.key,
            meter: wire.meter,
            filter: wire.filter,
            minimum_amount: wire.minimum_amount,
            maximum_amount: wire.maximum_amount,
            model,
        })
    }
}

impl PriceWire {
    const fn missing(&self, field: &'static str) -> PriceShapeError {
        let model = self.model.as_str();
        PriceShapeError::Missing { model, field }
    }

    fn take_model(&mut self) -> Result<Model, PriceShapeError> {
        Ok(match self.model {
            ModelName::Flat => Model::Flat(Flat {
                amount: self.amount.take().ok_or(self.missing("amount"))?,
                timing: self.timing.take().unwrap_or_default(),
            }),
            ModelName::PerUnit => Model::PerUnit(PerUnit {
                unit_amount: self.unit_amount.take().ok_or(self.missing("unit_amount"))?,
                included: self.included.take().unwrap_or_default(),
            }),
            ModelName::Graduated => Model::Graduated(self.take_tiers()?),
            ModelName::Volume => Model::Volume(self.take_tiers()?),
            ModelName::Package => Model::Package(Package {
                package_size: self.package_size.take().ok_or(self.missing("package_size"))?,
                package_amount: self.package_amount.take().ok_or(self.missing("package_amount"))?,
                included: self.included.take().unwrap_or_default(),
                round: self.round.take().unwrap_or_default(),
            }),
            ModelName::Percentage => Model::Percentage(Percentage {
                rate_percent: self.rate_percent.take().ok_or(self.missing("rate_percent"))?,
                fixed_amount: self.fixed_amount.take().unwrap_or_default(),
                free_events: self.free_events.take().unwrap_or_default(),
                free_amount: self.free_amount.take().unwrap_or_default(),
                min_per_event: self.min_per_event.take(),
                max_per_event: self.max_per_event.take(),
            }),
            ModelName::GraduatedPercentage => Model::GraduatedPercentage(self.take_rate_tiers()?),
            ModelName::Matrix => Model::Matrix(Matrix {
                dimensions: self.dimensions.take().ok_or(self.missing("dimensions"))?,
                rates: self.rates.take().unwrap_or_default(),
                default_unit_amount: self.default_unit_amount.take().unwrap_or_default(),
            }),
        })
    }

    fn take_tiers(&mut self) -> Result<Vec<Tier>, PriceShapeError> {
        let model = self.model.as_str();
        let tiers = self.tiers.take().ok_or(self.missing("tiers"))?;
        tiers
            .into_iter()
            .map(|tier| match tier.rate_percent {
                Some(_) => Err(PriceShapeError::Foreign {
                    model,
                    field: "tiers/rate_percent",
                }),
                None => Ok(Tier {
                    up_to: tier.up_to,
                    unit_amount: tier.unit_amount.unwrap_or_default(),
                    flat_amount: tier.flat_amount.unwrap_or_default(),
                }),
            })
            .collect()
    }

    fn take_rate_tiers(&mut self) -> Result<Vec<RateTier>, PriceShapeError> {
        let model = self.model.as_str();
        let tiers = self.tiers.take().ok_or(self.missing("tiers"))?;
        tiers
            .into_iter()
            .map(|tier| match tier.unit_amount {
                Some(_) => Err(PriceShapeError::Foreign {
                    model,
                    field: "tiers/unit_amount",
                }),
                None => Ok(RateTier {
                    up_to: tier.up_to,
                    rate_percent: tier.rate_percent.unwrap_or_default(),
                    flat_amount: tier.flat_amount.unwrap_or_default(),
                }),
            })
            .collect()
    }

    /// A field that is there although the model did not take it.
    fn left_over(&self) -> Option<&'static str> {
        let fields = [
            ("amount", self.amount.is_some()),
            ("timing", self.timing.is_some()),
            ("unit_amount", self.unit_amount.is_some()),
            ("included", self.included.is_some()),
            ("tiers", self.tiers.is_some()),
            ("package_size", self.package_size.is_some()),
            ("package_amount", self.package_amount.is_some()),
            ("round", self.round.is_some()),
            ("rate_percent", self.rate_percent.is_some()),
            ("fixed_amount", self.fixed_amount.is_some()),
            ("free_events", self.free_events.is_some()),
            ("free_amount", self.free_amount.is_some()),
            ("min_per_event", self.min_per_event.is_some()),
            ("max_per_event", self.max_per_event.is_some()),
            ("dimensions", self.dimensions.is_some()),
            ("rates", self.rates.is_some()),
            ("default_unit_amount", self.default_unit_amount.is_some()),
        ];
        fields.iter().find(|(_, there)| *there).map(|(name, _)| *name)
    }

    const fn empty(model: ModelName) -> Self {
        Self {
            key: String::new(),
            meter: None,
            model,
            amount: None,
            timing: None,
            unit_amount: None,
            included: None,
            tiers: None,
            package_size: None,
            package_amount: None,
            round: None,
            rate_percent: None,
            fixed_amount: None,
            free_events: None,
            free_amount: None,
            min_per_event: None,
            max_per_event: None,
            dimensions: None,
            rates: None,
            default_unit_amount: None,
            minimum_amount: None,
            maximum_amount: None,
            filter: BTreeMap::new(),
        }
    }

    fn of_model(model: Model) -> Self {
        match model {
            Model::Flat(flat) => Self {
                amount: Some(flat.amount),
                timing: Some(flat.timing),
                ..Self::empty(ModelName::Flat)
            },
            Model::PerUnit(per_unit) => Self {
                unit_amount: Some(per_unit.unit_amount),
                included: Some(per_unit.included),
                ..Self::empty(ModelName::PerUnit)
            },
            Model::Graduated(tiers) => Self {
                tiers: Some(tiers.into_iter().map(TierWire::from).collect()),
                ..Self::empty(ModelName::Graduated)
            },
            Model::Volume(tiers) => Self {
                tiers: Some(tiers.into_iter().map(TierWire::from).collect()),
                ..Self::empty(ModelName::Volume)
            },
            Model::Package(package) => Self {
                package_size: Some(package.package_size),
                package_amount: Some(package.package_amount),
                included: Some(package.included),
                round: Some(package.round),
                ..Self::empty(ModelName::Package)
            },
            Model::Percentage(percentage) => Self {
                rate_percent: Some(percentage.rate_percent),
                fixed_amount: Some(percentage.fixed_amount),
                free_events: Some(percentage.free_events),
                free_amount: Some(percentage.free_amount),
                min_per_event: percentage.min_per_event,
                max_per_event: percentage.max_per_event,
                ..Self::empty(ModelName::Percentage)
            },
            Model::GraduatedPercentage(tiers) => Self {
                tiers: Some(tiers.into_iter().map(TierWire::from).collect()),
                ..Self::empty(ModelName::GraduatedPercentage)
            },
            Model::Matrix(matrix) => Self {
                dimensions: Some(matrix.dimensions),
                rates: Some(matrix.rates),
                default_unit_amount: Some(matrix.default_unit_amount),
                ..Self::empty(ModelName::Matrix)
            },
        }
    }
}

impl From<Price> for PriceWire {
    fn from(price: Price) -> Self {
        Self {
            key: price.key,
            meter: price.meter,
            filter: price.filter,
            minimum_amount: price.minimum_amount,
            maximum_amount: price.maximum_amount,
            ..Self::of_model(price.model)
        }
    }
}

impl From<Tier> for TierWire {
    fn from(tier: Tier) -> Self {
        Self {
            up_to: tier.up_to,
            unit_amount: Some(tier.unit_amount),
            rate_percent: None,
            flat_amount: Some(tier.flat_amount),
        }
    }
}

impl From<RateTier> for TierWire {
    fn from(tier: RateTier) -> Self {
        Self {
            up_to: tier.up_to,
            unit_amount: None,
            rate_percent: Some(tier.rate_percent),
            flat_amount: Some(tier.flat_amount),
        }
    }
}

impl utoipa::PartialSchema for Price {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        PriceWire::schema()
    }
}

impl utoipa::ToSchema for Price {
    fn name() -> std::borrow::Cow<'static, str> {
        "Price".into()
    }

    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>) {
        PriceWire::schemas(schemas);
    }
}

#[cfg(test)]
mod tests;
