//! `rate(price, usage)`: pure, exact, rounded once.

use super::exact::Exact;
use super::price::{Model, Price};
use super::{
    RatingError, flat, graduated, graduated_percentage, matrix, package, per_unit, percentage, volume,
};
use crate::money::Currency;
use crate::quantity::Quantity;

/// What is charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Usage {
    /// The meter's value.
    Total(Quantity),
    /// Each event's amount, by (time, source, id).
    Events(Vec<Quantity>),
    /// The meter's value by the price's dimensions, in their order.
    Groups(Vec<(Vec<String>, Quantity)>),
}

impl Usage {
    /// All of it, never below zero: a total that corrections drove below zero is charged as nothing.
    pub fn total(&self) -> Result<Quantity, RatingError> {
        let add = |sum: Quantity, value: &Quantity| sum.checked_add(*value).ok_or(RatingError::Overflow);
        let sum = match self {
            Self::Total(quantity) => *quantity,
            Self::Events(events) => events.iter().try_fold(Quantity::ZERO, add)?,
            Self::Groups(groups) => groups
                .iter()
                .map(|(_, value)| value)
                .try_fold(Quantity::ZERO, add)?,
        };
        Ok(sum.max(Quantity::ZERO))
    }
}

/// One part of an amount: `quantity` × `unit_amount` + `flat_amount` = `amount`, save where a bound of one event says
/// otherwise. In major units, exact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RatedLine {
    /// Which part of the price: the tier, event or combination. Tells lines of two ratings of one price apart.
    pub(super) slot: usize,
    /// The combination of a matrix price; else empty.
    pub group: Vec<String>,
    /// How much (of packages: how many).
    pub quantity: Exact,
    /// The price of one.
    pub unit_amount: Exact,
    /// What is added once.
    pub flat_amount: Exact,
    /// The part's amount.
    pub amount: Exact,
}

/// The slot of the line that brings an amount to its minimum or maximum.
const BOUND_SLOT: usize = usize::MAX;

impl RatedLine {
    pub(super) fn new(slot: usize, quantity: Exact, unit_amount: Exact, flat_amount: Exact) -> Self {
        let amount = &(&quantity * &unit_amount) + &flat_amount;
        Self {
            slot,
            group: Vec::new(),
            quantity,
            unit_amount,
            flat_amount,
            amount,
        }
    }

    fn same_part(&self, other: &Self) -> bool {
        self.slot == other.slot && self.unit_amount == other.unit_amount && self.group == other.group
    }

    fn minus(&self, other: &Self) -> Self {
        Self {
            quantity: &self.quantity - &other.quantity,
            flat_amount: &self.flat_amount - &other.flat_amount,
            amount: &self.amount - &other.amount,
            ..self.clone()
        }
    }

    fn negated(&self) -> Self {
        let nothing = Self::new(self.slot, Exact::zero(), self.unit_amount.clone(), Exact::zero());
        Self {
            group: self.group.clone(),
            ..nothing
        }
        .minus(self)
    }

    fn is_nothing(&self) -> bool {
        self.quantity.is_zero() && self.amount.is_zero()
    }
}

/// A price applied to usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rated {
    /// The exact amount in major units: the sum of the lines.
    pub unrounded: Exact,
    /// The amount before `minimum_amount` and `maximum_amount`, in minor units, rounded half away from zero.
    pub unbounded_minor: i64,
    /// The amount in minor units, rounded half away from zero, once.
    pub minor: i64,
    /// What it is made of.
    pub lines: Vec<RatedLine>,
}

/// What `usage` costs. The price must have passed [`Price::check`].
pub fn rate(price: &Price, usage: &Usage, currency: Currency) -> Result<Rated, RatingError> {
    let mut lines = match &price.model {
        Model::Flat(model) => flat::lines(model),
        Model::PerUnit(model) => per_unit::lines(model, usage.total()?),
        Model::Graduated(tiers) => graduated::lines(tiers, usage.total()?),
        Model::Volume(tiers) => volume::lines(tiers, usage.total()?),
        Model::Package(model) => package::lines(model, usage.total()?)?,
        Model::Percentage(model) => percentage::lines(model, usage)?,
        Model::GraduatedPercentage(tiers) => graduated_percentage::lines(tiers, usage.total()?),
        Model::Matrix(model) => matrix::lines(model, usage)?,
    };
    let unbounded: Exact = lines.iter().map(|line| line.amount.clone()).sum();
    let unrounded = bounded(price, &unbounded);
    if unrounded != unbounded {
        let difference = &unrounded - &unbounded;
        lines.push(RatedLine::new(
            BOUND_SLOT,
            Exact::zero(),
            Exact::zero(),
            difference,
        ));
    }
    Ok(Rated {
        unbounded_minor: unbounded.to_minor(currency)?,
        minor: unrounded.to_minor(currency)?,
        unrounded,
        lines,
    })
}

fn bounded(price: &Price, amount: &Exact) -> Exact {
    let least = price.minimum_amount.map(Exact::from);
    let most = price.maximum_amount.map(Exact::from);
    let raised = least.map_or_else(|| amount.clone(), |least| least.max(amount.clone()));
    most.map_or_else(|| raised.clone(), |most| most.min(raised.clone()))
}

/// One bill of several in a period: f(`already` + what is new) − f(`already`), where `total` is `already` + what is new.
/// For a matrix price both are of the same combinations.
///
/// The minor amount is the difference of the two rounded amounts, so that the bills of a period sum to the bill of
/// its total. `already` of zero means that nothing was billed: then it is f(`total`), with what is charged at no usage.
pub fn rate_step(
    price: &Price,
    already: &Usage,
    total: &Usage,
    currency: Currency,
) -> Result<Rated, RatingError> {
    let whole = rate(price, total, currency)?;
    if already.total()?.is_zero() {
        return Ok(whole);
    }
    let billed = rate(price, already, currency)?;
    let difference = |a: i64, b: i64| a.checked_sub(b).ok_or(RatingError::Overflow);
    Ok(Rated {
        unrounded: &whole.unrounded - &billed.unrounded,
        unbounded_minor: difference(whole.unbounded_minor, billed.unbounded_minor)?,
        minor: difference(whole.minor, billed.minor)?,
        lines: lines_difference(&whole.lines, &billed.lines),
    })
}

fn lines_difference(whole: &[RatedLine], billed: &[RatedLine]) -> Vec<RatedLine> {
    let counterpart = |line: &RatedLine, of: &[RatedLine]| of.iter().find(|l| l.same_part(line)).cloned();
    let kept = whole.iter().map(|line| match counterpart(line, billed) {
        Some(before) => line.minus(&before),
        None => line.clone(),
    });
    let gone = billed
        .iter()
        .filter(|line| counterpart(line, whole).is_none())
        .map(RatedLine::negated);
    kept.chain(gone).filter(|line| !line.is_nothing()).collect()
}

/// The share of `amount` for `part` of a period of `whole` length, both in the same unit (we take microseconds).
pub fn prorate(amount: &Exact, part: i64, whole: i64) -> Result<Exact, RatingError> {
    let share = Exact::fraction(part, whole).ok_or(RatingError::EmptyPeriod)?;
    Ok(amount * &share)
}
