use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::ToPrimitive;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::money::{Currency, Money};
use crate::quantity::Quantity;

/// Cases of R18: `TURNPIKE_TEST_NIGHTLY` takes the larger number.
pub(super) fn conservation_cases() -> u32 {
    if std::env::var_os("TURNPIKE_TEST_NIGHTLY").is_some() {
        1_000_000
    } else {
        100_000
    }
}

fn price(shape: serde_json::Value) -> Price {
    let price: Price = serde_json::from_value(shape).unwrap();
    assert_eq!(price.check(&PriceContext::preview(Currency::USD)), vec![]);
    price
}

fn quantity(text: &str) -> Quantity {
    Quantity::parse(text).unwrap()
}

fn amount(price: &Price, total: &str) -> String {
    let rated = rate(price, &Usage::Total(quantity(total)), Currency::USD).unwrap();
    let sum: Exact = rated.lines.iter().map(|line| line.amount.clone()).sum();
    assert_eq!(sum, rated.unrounded, "lines sum to the amount");
    rated.unrounded.to_string()
}

#[test]
fn tiers_hold_their_ends() {
    let tiers = json!([{"up_to": "10", "unit_amount": "10", "flat_amount": "2"},
        {"up_to": "20", "unit_amount": "5", "flat_amount": "3"}, {"unit_amount": "5", "flat_amount": "3"}]);
    let graduated = price(json!({"model": "graduated", "tiers": tiers}));
    let volume = price(json!({"model": "volume", "tiers": tiers}));
    for (total, by_tier, by_volume) in [
        ("0", "2", "2"),
        ("10", "102", "102"),
        ("10.5", "107.5", "55.5"),
        ("11", "110", "58"),
        ("20", "155", "103"),
        ("21", "163", "108"),
    ] {
        assert_eq!(amount(&graduated, total), by_tier, "{total}");
        assert_eq!(amount(&volume, total), by_volume, "{total}");
    }
}

#[test]
fn included_units_are_free_and_shown() {
    let price = price(json!({"model": "per_unit", "unit_amount": "0.0004", "included": "1000"}));
    assert_eq!(amount(&price, "0"), "0");
    assert_eq!(amount(&price, "1000"), "0");
    assert_eq!(amount(&price, "1000.5"), "0.0002");
    let rated = rate(&price, &Usage::Total(quantity("3500")), Currency::USD).unwrap();
    assert_eq!((rated.lines.len(), rated.minor), (2, 100));
    let shown: Exact = rated.lines.iter().map(|line| line.quantity.clone()).sum();
    assert_eq!(shown, 3500);
}

#[test]
fn bounds_add_a_line() {
    let price =
        price(json!({"model": "per_unit", "unit_amount": "1", "minimum_amount": "5", "maximum_amount": "8"}));
    assert_eq!(amount(&price, "0"), "5");
    assert_eq!(amount(&price, "6"), "6");
    assert_eq!(amount(&price, "100"), "8");
    let rated = rate(&price, &Usage::Total(quantity("100")), Currency::USD).unwrap();
    assert_eq!((rated.unbounded_minor, rated.minor), (10_000, 800));
}

#[test]
fn a_total_below_zero_costs_what_nothing_costs() {
    let price = price(json!({"model": "per_unit", "unit_amount": "1"}));
    assert_eq!(amount(&price, "-5"), "0");
}

#[test]
fn matrix_prices_by_combination() {
    let price = price(json!({"model": "matrix", "dimensions": ["region", "size"],
        "rates": [{"region": "eu", "size": "l", "unit_amount": "0.10"}], "default_unit_amount": "0.12"}));
    let group = |region: &str, size: &str, units| {
        (
            vec![region.to_owned(), size.to_owned()],
            Quantity::from_units(units),
        )
    };
    let usage = Usage::Groups(vec![group("eu", "l", 10), group("eu", "s", 10), group("", "", 5)]);
    let rated = rate(&price, &usage, Currency::USD).unwrap();
    assert_eq!(rated.unrounded.to_string(), "2.8");
    assert_eq!(
        rate(&price, &Usage::Total(Quantity::ONE), Currency::USD),
        Err(RatingError::NeedsGroups)
    );
}

#[test]
fn steps_show_only_what_is_new() {
    let of = |text| Usage::Total(quantity(text));
    let tiers = json!([{"up_to": "5", "flat_amount": "100"}, {"up_to": "10", "flat_amount": "50"},
        {"up_to": "15", "unit_amount": "5"}, {"unit_amount": "1"}]);
    let graduated = price(json!({"model": "graduated", "tiers": tiers}));
    let step = rate_step(&graduated, &of("12"), &of("22"), Currency::USD).unwrap();
    let shown: Vec<String> = step.lines.iter().map(|line| line.amount.to_string()).collect();
    assert_eq!((shown, step.minor), (vec!["15".to_owned(), "7".to_owned()], 2200));
    let volume = price(
        json!({"model": "volume", "tiers": [{"up_to": "10", "unit_amount": "2"}, {"unit_amount": "1"}]}),
    );
    let step = rate_step(&volume, &of("10"), &of("11"), Currency::USD).unwrap();
    let shown: Vec<String> = step.lines.iter().map(|line| line.amount.to_string()).collect();
    assert_eq!(
        (shown, step.minor),
        (vec!["11".to_owned(), "-20".to_owned()], -900)
    );
}

#[test]
fn too_much_is_an_error_and_never_wraps() {
    let price = price(json!({"model": "per_unit", "unit_amount": "999999999999999999"}));
    let usage = Usage::Total(Quantity::MAX);
    assert_eq!(rate(&price, &usage, Currency::USD), Err(RatingError::Overflow));
    let usage = Usage::Events(vec![Quantity::MAX, Quantity::MAX]);
    assert_eq!(rate(&price, &usage, Currency::USD), Err(RatingError::Overflow));
    let gross = Money::new(i64::MAX, Currency::USD);
    let fee = Fee {
        rate_percent: "100".parse().unwrap(),
        fixed: "999999999999999.99".parse().unwrap(),
    };
    assert_eq!(
        split_fee(gross, &fee, &Commission::default()),
        Err(RatingError::Overflow)
    );
}

#[test]
fn fee_examples() {
    let fee = Fee {
        rate_percent: "0.5".parse().unwrap(),
        fixed: "0.30".parse().unwrap(),
    };
    let commission = Commission {
        rate_percent: "10".parse().unwrap(),
    };
    let split = |minor| split_fee(Money::new(minor, Currency::USD), &fee, &commission);
    let parts = split(10_000).unwrap();
    assert_eq!(
        (
            parts.platform_fee.minor(),
            parts.provider_commission.minor(),
            parts.net_seller.minor()
        ),
        (80, 1000, 8920)
    );
    assert_eq!(split(33), Err(RatingError::AmountTooSmall));
    assert_eq!(split(34).unwrap().net_seller.minor(), 1);
}

/// A price with a value for every part of a model, from small integers: amounts in 10⁻⁴, quantities in 10⁻².
#[derive(Debug, Clone)]
struct Case {
    kind: u8,
    ends: Vec<i64>,
    units: Vec<i64>,
    flats: Vec<i64>,
    size: i64,
    included: i64,
    up: bool,
    least: Option<i64>,
}

fn decimal(parts: i64) -> String {
    format!("{}.{:04}", parts / 10_000, parts % 10_000)
}

fn hundredths(parts: i64) -> String {
    format!("{}.{:02}", parts / 100, parts % 100)
}

impl Case {
    fn price(&self) -> Price {
        let tiers = |field: &str| {
            let tier = |at: usize| {
                let end = self.ends.get(at).map(|end| hundredths(*end));
                let unit = decimal(self.units[at]);
                json!({"up_to": end, field: unit, "flat_amount": decimal(self.flats[at])})
            };
            (0..=self.ends.len()).map(tier).collect::<Vec<_>>()
        };
        let mut shape = match self.kind {
            0 => json!({"model": "flat", "amount": hundredths(self.flats[0])}),
            1 => {
                json!({"model": "per_unit", "unit_amount": decimal(self.units[0]), "included": hundredths(self.included)})
            }
            2 => json!({"model": "graduated", "tiers": tiers("unit_amount")}),
            3 => {
                json!({"model": "package", "package_size": hundredths(self.size), "package_amount": decimal(self.units[0]),
                "included": hundredths(self.included), "round": if self.up { "up" } else { "down" }})
            }
            4 => json!({"model": "graduated_percentage", "tiers": tiers("rate_percent")}),
            _ => json!({"model": "volume", "tiers": tiers("unit_amount")}),
        };
        if let Some(least) = self.least {
            shape["minimum_amount"] = json!(hundredths(least));
        }
        price(shape)
    }

    /// The same amount by plain integers, in 10⁻⁸ of the major unit: shares nothing with the code above.
    fn oracle(&self, total: i64) -> i128 {
        let (total, scale) = (i128::from(total), 100i128);
        let start = |at: usize| if at == 0 { 0 } else { i128::from(self.ends[at - 1]) };
        let graduated = |divisor: i128| -> i128 {
            (0..=self.ends.len())
                .filter(|at| *at == 0 || total > start(*at))
                .map(|at| {
                    let end = self.ends.get(at).map_or(total, |end| total.min(i128::from(*end)));
                    let unit = i128::from(self.units[at]) * 100 / divisor;
                    (end - start(at)) * unit + i128::from(self.flats[at]) * 10_000
                })
                .sum()
        };
        let charged = (total - i128::from(self.included)).max(0);
        let amount = match self.kind {
            0 => i128::from(self.flats[0]) * 1_000_000,
            1 => charged * i128::from(self.units[0]) * scale,
            2 => graduated(1),
            3 => {
                let size = i128::from(self.size);
                let packages = if self.up {
                    (charged + size - 1) / size
                } else {
                    charged / size
                };
                packages * i128::from(self.units[0]) * 10_000
            }
            4 => graduated(100),
            _ => {
                let at = (0..self.ends.len())
                    .find(|at| total <= i128::from(self.ends[*at]))
                    .unwrap_or(self.ends.len());
                total * i128::from(self.units[at]) * scale + i128::from(self.flats[at]) * 10_000
            }
        };
        amount.max(self.least.map_or(0, |least| i128::from(least) * 1_000_000))
    }
}

fn cases(kinds: std::ops::Range<u8>) -> impl Strategy<Value = Case> {
    let ends =
        prop::collection::btree_set(1..100_000i64, 0..4).prop_map(|set| set.into_iter().collect::<Vec<_>>());
    let amounts = || prop::collection::vec(0..500_000i64, 5);
    (
        kinds,
        ends,
        amounts(),
        amounts(),
        1..10_000i64,
        0..50_000i64,
        any::<bool>(),
        prop::option::of(0..10_000i64),
    )
        .prop_map(|(kind, ends, units, flats, size, included, up, least)| Case {
            kind,
            ends,
            units,
            flats,
            size,
            included,
            up,
            least,
        })
}

fn total_of(hundredth: i64) -> Quantity {
    Quantity::from_parts(i128::from(hundredth) * 10_000_000_000).unwrap()
}

fn rated(price: &Price, total: i64) -> Rated {
    rate(price, &Usage::Total(total_of(total)), Currency::USD).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(conservation_cases()))]

    /// R18: the amount is the oracle's, the lines sum to it, it is rounded once, half away from zero.
    #[test]
    fn amounts_are_those_of_plain_integers(case in cases(0..6), total in 0..200_000i64) {
        let (rated, expected) = (rated(&case.price(), total), case.oracle(total));
        let unrounded = BigRational::new(BigInt::from(expected), BigInt::from(100_000_000));
        prop_assert_eq!(rated.unrounded.to_string(), plain(expected));
        let sum: Exact = rated.lines.iter().map(|line| line.amount.clone()).sum();
        prop_assert_eq!(&sum, &rated.unrounded);
        prop_assert_eq!(Some(rated.minor), (unrounded * BigInt::from(100)).round().to_integer().to_i64());
    }

    /// More usage never costs less, save by volume; and the bills of a period sum to the bill of its total.
    #[test]
    fn bills_in_steps_sum_to_the_whole(case in cases(0..6), mut cuts in prop::collection::vec(0..200_000i64, 1..6)) {
        cuts.sort_unstable();
        let price = case.price();
        let (mut already, mut billed) = (0, 0);
        for cut in cuts {
            let (before, now) = (Usage::Total(total_of(already)), Usage::Total(total_of(cut)));
            let step = rate_step(&price, &before, &now, Currency::USD).unwrap();
            let shown: Exact = step.lines.iter().map(|line| line.amount.clone()).sum();
            prop_assert_eq!(&shown, &step.unrounded);
            prop_assert!(case.kind == 5 || already == 0 || step.minor >= 0);
            // A first bill of no usage is the whole bill of no usage; the next one starts anew from there.
            billed = if already == 0 { step.minor } else { billed + step.minor };
            already = cut;
        }
        prop_assert_eq!(billed, rated(&price, already).minor);
    }

    /// The three parts of a gross amount sum to it, and no part is negative.
    #[test]
    fn fee_parts_sum_to_gross(gross in 1..i64::MAX / 4, rate in 0..100_000i64, fixed in 0..10_000i64, share in 0..100_000i64) {
        let fee = Fee { rate_percent: decimal(rate).parse().unwrap(), fixed: hundredths(fixed).parse().unwrap() };
        let commission = Commission { rate_percent: decimal(share).parse().unwrap() };
        match split_fee(Money::new(gross, Currency::USD), &fee, &commission) {
            Ok(split) => {
                let parts = [split.platform_fee, split.provider_commission, split.net_seller].map(Money::minor);
                prop_assert_eq!(parts.iter().sum::<i64>(), gross);
                prop_assert!(parts.iter().all(|part| *part >= 0) && parts[2] >= 1);
                let doubled = i128::from(gross) * i128::from(rate) * 2;
                prop_assert_eq!(i128::from(parts[0] - fixed), (doubled + 1_000_000) / 2_000_000);
            }
            Err(error) => prop_assert_eq!(error, RatingError::AmountTooSmall),
        }
    }
}

/// 10⁻⁸ parts as a plain decimal.
fn plain(parts: i128) -> String {
    let text = format!("{}.{:08}", parts / 100_000_000, parts % 100_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[test]
fn proration_is_exact_and_rounded_once() {
    let whole = Exact::from_minor(3_100, Currency::USD);
    let part = prorate(&whole, 1_382_400, 2_674_800).unwrap();
    assert_eq!(part.to_minor(Currency::USD), Ok(1_602));
    assert_eq!(prorate(&whole, 1, 0), Err(RatingError::EmptyPeriod));
}
