use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::decimal::Decimal;
use super::wire::PriceWire;
use crate::quantity::Quantity;

/// What something costs: a model, and what all models share. Amounts are in major units of the currency that stands
/// beside the price.
///
/// Read strictly: a field that the model does not know is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PriceWire", into = "PriceWire")]
pub struct Price {
    /// Its key inside the plan.
    pub key: String,
    /// The meter whose usage it charges; none for `flat`.
    pub meter: Option<String>,
    /// Group-by key of the meter → the values that are charged; none: all usage.
    pub filter: BTreeMap<String, Vec<String>>,
    /// The least amount of a period.
    pub minimum_amount: Option<Decimal>,
    /// The largest amount of a period.
    pub maximum_amount: Option<Decimal>,
    /// How usage becomes an amount.
    pub model: Model,
}

/// How usage becomes an amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Model {
    /// A fixed amount per period.
    Flat(Flat),
    /// An amount per unit beyond what is included.
    PerUnit(PerUnit),
    /// Each tier's units at that tier's price.
    Graduated(Vec<Tier>),
    /// All units at the price of the tier that the total reaches.
    Volume(Vec<Tier>),
    /// An amount per package of units.
    Package(Package),
    /// A share of each event's amount.
    Percentage(Percentage),
    /// Each tier's amount at that tier's rate.
    GraduatedPercentage(Vec<RateTier>),
    /// A unit price by the values of dimensions.
    Matrix(Matrix),
}

/// A fixed amount per period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flat {
    /// The amount: at most the currency's decimals.
    pub amount: Decimal,
    /// Whether it is charged before or after its period.
    pub timing: Timing,
}

/// When a flat price is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    /// At the start of the period that it is for.
    #[default]
    Advance,
    /// At the end of the period that it is for.
    Arrears,
}

/// An amount per unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerUnit {
    /// The price of one unit.
    pub unit_amount: Decimal,
    /// Units that are free in each period.
    pub included: Quantity,
}

/// A tier: the units above the tier before it, up to and with `up_to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// The last unit of the tier; `None` for the last tier.
    pub up_to: Option<Quantity>,
    /// The price of one unit.
    pub unit_amount: Decimal,
    /// Charged once when the tier is reached; that of the first tier also at no usage.
    pub flat_amount: Decimal,
}

/// An amount per package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Units in a package, above zero.
    pub package_size: Quantity,
    /// The price of a package.
    pub package_amount: Decimal,
    /// Units that are free in each period.
    pub included: Quantity,
    /// What becomes of a package that is begun.
    pub round: PackageRound,
}

/// What becomes of a package that is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PackageRound {
    /// It is charged whole.
    #[default]
    Up,
    /// It is free.
    Down,
}

/// A share of each event's amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Percentage {
    /// Per cent of the charged part.
    pub rate_percent: Decimal,
    /// Added for each event that is charged.
    pub fixed_amount: Decimal,
    /// Events that are free in each period; 0: no such bound.
    pub free_events: u64,
    /// Sum of amounts that is free in each period; 0: no such bound.
    pub free_amount: Quantity,
    /// The least fee of a charged event.
    pub min_per_event: Option<Decimal>,
    /// The largest fee of a charged event.
    pub max_per_event: Option<Decimal>,
}

/// A tier of [`Model::GraduatedPercentage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateTier {
    /// The amount at which the tier ends; `None` for the last tier.
    pub up_to: Option<Quantity>,
    /// Per cent of the amount inside the tier.
    pub rate_percent: Decimal,
    /// Charged once when the tier is reached; that of the first tier also at no usage.
    pub flat_amount: Decimal,
}

/// A unit price by the values of dimensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// Group-by keys of the meter.
    pub dimensions: Vec<String>,
    /// The combinations that have a price of their own.
    pub rates: Vec<MatrixRate>,
    /// The unit price of all other combinations.
    pub default_unit_amount: Decimal,
}

/// The unit price of one combination of dimension values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct MatrixRate {
    /// The price of one unit.
    pub unit_amount: Decimal,
    /// Dimension → value, one for each dimension of the price.
    #[serde(flatten)]
    pub values: BTreeMap<String, String>,
}

impl Price {
    /// A price that charges `model` alone.
    pub fn of(model: Model) -> Self {
        Self {
            key: String::new(),
            meter: None,
            filter: BTreeMap::new(),
            minimum_amount: None,
            maximum_amount: None,
            model,
        }
    }

    /// Whether it is charged at the start of its period.
    pub fn in_advance(&self) -> bool {
        matches!(&self.model, Model::Flat(flat) if flat.timing == Timing::Advance)
    }

    /// Whether it needs each event's amount instead of a total.
    pub const fn per_event(&self) -> bool {
        matches!(self.model, Model::Percentage(_))
    }
}
