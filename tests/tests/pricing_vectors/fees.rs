//! Fees of transactions, and splits.

use serde_json::{Value, json};
use turnpike_domain::money::{Currency, Money};
use turnpike_domain::rating::{Commission, Decimal, Fee, split, split_fee};

use crate::{text, vectors};

fn run_split(id: &str, inputs: &Value, expected: &Value) {
    let currency = if id.contains("jpy") {
        "JPY"
    } else if id.contains("kwd") {
        "KWD"
    } else {
        "USD"
    };
    let currency = Currency::parse(currency).unwrap();
    let fixed = currency.format_amount(inputs["fee_fixed_minor"].as_i64().unwrap());
    let fee = Fee {
        rate_percent: Decimal::parse(&text(&inputs["fee_percent"])).unwrap(),
        fixed: Decimal::parse(&fixed).unwrap(),
    };
    let commission = Commission {
        rate_percent: Decimal::parse(&text(&inputs["commission_percent"])).unwrap(),
    };
    let gross = Money::new(inputs["gross_minor"].as_i64().unwrap(), currency);
    let found = match split_fee(gross, &fee, &commission) {
        Err(_) => json!({"error": "amount_too_small"}),
        Ok(split) => {
            json!({"platform_fee": split.platform_fee.minor(), "provider_commission": split.provider_commission.minor(),
            "net_seller": split.net_seller.minor()})
        }
    };
    assert_eq!(&found, expected, "{id}");
}

#[test]
fn fee_and_split_examples() {
    let mut run = 0;
    for vector in vectors("splits.json") {
        let (id, scenario) = (
            vector["id"].as_str().unwrap(),
            vector["scenario"].as_str().unwrap(),
        );
        let (inputs, expected) = (&vector["inputs"], &vector["expected"]);
        let parts = |total: &Value| {
            let weights: Vec<u64> = inputs["weights"]
                .as_array()
                .unwrap()
                .iter()
                .map(|w| w.as_u64().unwrap())
                .collect();
            json!(split(total.as_i64().unwrap(), &weights).unwrap())
        };
        match scenario {
            "split" => run_split(id, inputs, expected),
            "allocate" => assert_eq!(parts(&inputs["total_minor"]), expected["parts"], "{id}"),
            "allocate_cumulative" => {
                assert_eq!(parts(&inputs["total_a"]), expected["parts_a"], "{id}");
                assert_eq!(parts(&inputs["total_b"]), expected["parts_b"], "{id}");
            }
            _ => panic!("{id} has a scenario that this test does not know: {scenario}"),
        }
        run += 1;
    }
    println!("split examples: {run} run");
    assert!(run >= 12, "only {run} examples were run");
}
