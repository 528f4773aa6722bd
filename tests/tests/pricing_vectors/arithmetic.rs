//! Rounding, proration, and what taxes, discounts and credit notes rest on.

use serde_json::{Value, json};
use turnpike_domain::catalog::Interval;
use turnpike_domain::invoice::{Basis, Line, LineKind, Totals};
use turnpike_domain::money::Currency;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::rating::{Decimal, Exact, prorate, split};
use turnpike_domain::time::{Cycle, TimeRange, Timestamp, Zone};

use crate::{currency, exact, text};

/// Runs an example of rounding or proration.
pub(crate) fn run(id: &str, model: &str, inputs: &Value, expected: &Value) -> bool {
    let currency = currency(inputs);
    let minor = |value: &Value| value.as_i64().unwrap();
    match model {
        "rounding" => {
            let value = text(&inputs["value"]);
            // One of them has more digits than a price may have; what is behind the twelfth cannot turn its rounding.
            let cut = &value[..value.len().min(value.find('.').map_or(usize::MAX, |at| at + 13))];
            let rounded = Exact::from(Decimal::parse(cut).unwrap())
                .to_minor(currency)
                .unwrap();
            assert_eq!(
                Exact::from_minor(rounded, currency),
                exact(&expected["rounded"]),
                "{id}"
            );
        }
        "per_unit_decimal" => run_minor_units(id, inputs, expected),
        "minor_units" if inputs.get("major").is_some() => {
            let amount = currency.parse_amount(&text(&inputs["major"])).unwrap();
            assert_eq!(amount, minor(&expected["minor"]), "{id}");
        }
        "proration_seconds" if inputs.get("period_start").is_some() => {
            let whole = minor(&inputs["period_end"]) - minor(&inputs["period_start"]);
            let part = minor(&inputs["period_end"]) - minor(&inputs["at"]);
            let amount = Exact::from_minor(minor(&inputs["new_minor"]), currency);
            let share = prorate(&amount, part, whole).unwrap().to_minor(currency).unwrap();
            assert_eq!(share, minor(&expected["debit_minor"]), "{id}");
        }
        "proration_seconds" => {
            let (part, whole) = text(&inputs["remaining_fraction"])
                .split_once('/')
                .map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()))
                .unwrap();
            let old = inputs.get("old_minor").unwrap_or(&inputs["last_billed_minor"]);
            let share = |value: &Value| {
                prorate(&Exact::from_minor(minor(value), currency), part, whole)
                    .unwrap()
                    .to_minor(currency)
                    .unwrap()
            };
            assert_eq!(
                (-share(old), share(&inputs["new_minor"])),
                (minor(&expected["credit_minor"]), minor(&expected["debit_minor"])),
                "{id}"
            );
        }
        "minor_units" => {
            let cents = exact(&inputs["unit_amount_decimal_minor"]);
            assert_eq!(cents.percent(), exact(&expected["major"]), "{id}");
        }
        // Providers move ten fils at a time.
        "minor_units_three_decimal" => {
            let amount = exact(&inputs["major"]).to_minor_step(currency, 10).unwrap();
            assert_eq!(amount, minor(&expected["minor"]), "{id}");
        }
        "proration_days" => run_days(id, inputs, expected),
        "day_count" => {
            let at = |name: &str| Timestamp::parse(&format!("{}Z", text(&inputs[name]))).unwrap();
            let zone = Zone::parse(inputs["timezone"].as_str().unwrap()).unwrap();
            let days = Cycle::new(at("from_utc"), zone, Interval::Day, 1).index_at(at("to_utc")) + 1;
            assert_eq!(days, minor(&expected["days"]), "{id}");
        }
        _ => return run_invoice(id, model, inputs, expected),
    }
    true
}

/// Days of a period as its share: of both prices of a change, or of one.
fn run_days(id: &str, inputs: &Value, expected: &Value) {
    let currency = currency(inputs);
    let count = |name: &str| inputs[name].as_i64().or(expected[name].as_i64()).unwrap();
    let share = |amount: &Exact| {
        prorate(amount, count("days"), count("days_in_period"))
            .unwrap()
            .to_minor(currency)
            .unwrap()
    };
    let amount = |major: &str, minor: &str| match inputs.get(major) {
        Some(value) => exact(value),
        None => Exact::from_minor(inputs[minor].as_i64().unwrap(), currency),
    };
    let stated = |major: &str, minor: &str| match expected.get(major) {
        Some(value) => exact(value).to_minor(currency).unwrap(),
        None => expected[minor].as_i64().unwrap(),
    };
    if inputs.get("amount_minor").is_some() {
        let amount = amount("amount", "amount_minor");
        assert_eq!(share(&amount), expected["amount_minor"].as_i64().unwrap(), "{id}");
        return;
    }
    let (credit, debit) = (
        -share(&amount("old", "old_minor")),
        share(&amount("new", "new_minor")),
    );
    assert_eq!(
        (credit, debit, credit + debit),
        (
            stated("credit", "credit_minor"),
            stated("debit", "debit_minor"),
            stated("net", "net_minor")
        ),
        "{id}"
    );
}

/// `percent` of an amount, rounded once.
pub(crate) fn share_of(amount: &Exact, percent: &Value, currency: Currency) -> i64 {
    (amount * &exact(percent).percent()).to_minor(currency).unwrap()
}

/// Arithmetic that discounts, taxes and credit notes rest on: shares of a line, rounded once each, and sums.
fn run_invoice(id: &str, model: &str, inputs: &Value, expected: &Value) -> bool {
    let currency = currency(inputs);
    let minor = |value: &Value| exact(value).to_minor(currency).unwrap();
    match model {
        "tax_exclusive" => {
            let tax = share_of(&exact(&inputs["price"]), &inputs["tax_percent"], currency);
            assert_eq!(tax, minor(&expected["tax"]), "{id}");
        }
        "tax_inclusive" => {
            let (price, percent) = (exact(&inputs["price"]), inputs["tax_percent"].as_str().unwrap());
            let percent: i64 = percent.parse().unwrap();
            let tax = prorate(&price, percent, 100 + percent)
                .unwrap()
                .to_minor(currency)
                .unwrap();
            let net = price.to_minor(currency).unwrap() - tax;
            assert_eq!(
                (tax, net),
                (minor(&expected["tax"]), minor(&expected["net"])),
                "{id}"
            );
        }
        "tax_exclusive_per_line" => {
            let lines = inputs["lines"].as_array().unwrap().iter().enumerate();
            let percent = |at: usize| {
                inputs
                    .get("tax_percent")
                    .unwrap_or(&inputs["tax_percent_by_line"][at])
            };
            let taxes: Vec<i64> = lines
                .map(|(at, line)| share_of(&exact(line), percent(at), currency))
                .collect();
            let stated: Vec<i64> = expected["tax_by_line"]
                .as_array()
                .unwrap()
                .iter()
                .map(minor)
                .collect();
            assert_eq!(taxes, stated, "{id}");
            assert_eq!(taxes.iter().sum::<i64>(), minor(&expected["tax"]), "{id}");
        }
        "credit_note_unused_days" => {
            let whole = Exact::from_minor(inputs["amount_minor"].as_i64().unwrap(), currency);
            let days = |name: &str| inputs[name].as_i64().unwrap();
            let net = prorate(&whole, days("unused_days"), days("days_in_period")).unwrap();
            let tax = share_of(&net, &inputs["tax_percent"], currency);
            let net = net.to_minor(currency).unwrap();
            let found = json!({"net_minor": net, "tax_minor": tax, "total_minor": net + tax});
            assert_eq!(&found, expected, "{id}");
        }
        "coupon_tax_trueup" => run_coupon(id, inputs, expected),
        "invoice_waterfall" => run_waterfall(id, inputs, expected),
        "commitment_overage_by_feature" => {
            let feature = |feature: &Value| &exact(&feature["unit_amount"]) * &exact(&feature["quantity"]);
            let cost: Exact = inputs["features"].as_array().unwrap().iter().map(feature).sum();
            let beyond = &cost - &exact(&inputs["commitment"]);
            let total = &exact(&inputs["commitment"]) + &(&beyond * &exact(&inputs["overage_factor"]));
            assert_eq!(total, exact(&expected["total"]), "{id}");
        }
        _ => return false,
    }
    true
}

/// A coupon split over fees by largest remainder, then each fee's tax on what is left of it.
fn run_coupon(id: &str, inputs: &Value, expected: &Value) {
    let fees = inputs["fees"].as_array().unwrap();
    let amounts: Vec<i64> = fees
        .iter()
        .map(|fee| fee["amount_minor"].as_i64().unwrap())
        .collect();
    let weights: Vec<u64> = amounts.iter().map(|amount| *amount as u64).collect();
    let coupons = split(inputs["coupon_minor"].as_i64().unwrap(), &weights).unwrap();
    let mut taxes = 0;
    for ((fee, amount), coupon) in fees.iter().zip(&amounts).zip(&coupons) {
        let name = fee["id"].as_str().unwrap();
        assert_eq!(json!(coupon.to_string()), expected["coupon_by_fee"][name], "{id}");
        let left = Exact::from_minor(amount - coupon, currency(inputs));
        let tax = share_of(&left, &fee["tax_percent"], currency(inputs));
        assert_eq!(json!(tax), expected["tax_by_fee"][name], "{id}");
        taxes += tax;
    }
    let total = amounts.iter().sum::<i64>() - coupons.iter().sum::<i64>() + taxes;
    assert_eq!(json!(total), expected["total_minor"], "{id}");
}

/// Discounts, then credits, then tax: the sums of an invoice.
fn run_waterfall(id: &str, inputs: &Value, expected: &Value) {
    let currency = currency(inputs);
    let whole = inputs["metered_line_minor"].as_i64().unwrap();
    let percent =
        |amount: i64, percent: &Value| share_of(&Exact::from_minor(amount, currency), percent, currency);
    let discount = percent(whole, &inputs["percent_discount"]);
    let credits = inputs["credit_grant_minor"].as_i64().unwrap();
    let tax = percent(whole - discount - credits, &inputs["tax_percent"]);
    let line = |kind, amount| Line {
        kind,
        source: String::new(),
        price: String::new(),
        meter: None,
        description: String::new(),
        quantity: Quantity::ZERO,
        amount,
        period: TimeRange::ALL,
        basis: Basis::Commitment {
            commitment: 0,
            part_us: 1,
            whole_us: 1,
            billed_amount: 0,
            settled_amount: 0,
        },
        hash: String::new(),
    };
    let totals = Totals::of(&[
        line(LineKind::Usage, whole),
        line(LineKind::Discount, -discount),
        line(LineKind::Credit, -credits),
        line(LineKind::Tax, tax),
    ]);
    assert_eq!(json!(totals.unwrap().total), expected["total_minor"], "{id}");
}

fn run_minor_units(id: &str, inputs: &Value, expected: &Value) {
    // The examples price in cents; 10^12 units of 10^-12 cents fit the 15 places of a price in dollars only as 10^-14.
    let line = |inputs: &Value| {
        let cents = exact(&inputs["unit_amount_decimal_minor"]);
        (&exact(&inputs["quantity"]) * &cents.percent())
            .to_minor(Currency::USD)
            .unwrap()
    };
    match inputs.get("lines") {
        None => assert_eq!(line(inputs), expected["line_minor"].as_i64().unwrap(), "{id}"),
        Some(lines) => {
            let each: Vec<i64> = lines.as_array().unwrap().iter().map(line).collect();
            assert_eq!(json!(each), expected["line_minor"], "{id}");
            assert_eq!(
                each.iter().sum::<i64>(),
                expected["total_minor"].as_i64().unwrap(),
                "{id}"
            );
        }
    }
}
