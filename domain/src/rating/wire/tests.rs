use super::*;
use serde_json::json;

fn read(value: serde_json::Value) -> Result<Price, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[test]
fn every_shape_of_the_contract_survives_a_round_trip() {
    for shape in [
        json!({"key": "base", "model": "flat", "amount": "29", "timing": "arrears"}),
        json!({"key": "t", "meter": "tokens", "model": "per_unit", "unit_amount": "0.0004", "included": "1000"}),
        json!({"model": "graduated", "tiers": [
            {"up_to": "1000", "unit_amount": "0.05", "flat_amount": "10"},
            {"up_to": null, "unit_amount": "0.04", "flat_amount": "0"}]}),
        json!({"model": "volume", "tiers": [{"up_to": null, "unit_amount": "0.04", "flat_amount": "0"}]}),
        json!({"model": "package", "package_size": "1000", "package_amount": "1", "included": "0", "round": "down"}),
        json!({"model": "percentage", "rate_percent": "1.2", "fixed_amount": "0.1", "free_events": 3,
            "free_amount": "500", "min_per_event": "1.75", "max_per_event": "12"}),
        json!({"model": "graduated_percentage", "tiers": [
            {"up_to": "10", "rate_percent": "1", "flat_amount": "200"},
            {"up_to": null, "rate_percent": "3", "flat_amount": "0"}]}),
        json!({"model": "matrix", "dimensions": ["region"], "rates": [{"region": "eu", "unit_amount": "0.1"}],
            "default_unit_amount": "0.12"}),
        json!({"model": "flat", "amount": "1", "timing": "advance", "minimum_amount": "1", "maximum_amount": "2",
            "filter": {"model": ["gpt-4"]}}),
    ] {
        let price = read(shape.clone()).unwrap();
        assert_eq!(serde_json::to_value(&price).unwrap(), shape);
        assert_eq!(read(serde_json::to_value(&price).unwrap()).unwrap(), price);
    }
}

#[test]
fn left_out_fields_have_plain_defaults_and_numbers_are_read() {
    let price = read(json!({"model": "per_unit", "unit_amount": 0.0004})).unwrap();
    let Model::PerUnit(per_unit) = &price.model else {
        panic!("{price:?}")
    };
    assert_eq!(
        (
            per_unit.unit_amount.to_string().as_str(),
            per_unit.included.is_zero()
        ),
        ("0.0004", true)
    );
    assert!(read(json!({"model": "flat", "amount": 29})).unwrap().in_advance());
}

#[test]
fn fields_of_other_models_and_unknown_ones_are_refused() {
    for (shape, words) in [
        (
            json!({"model": "flat", "amount": "1", "unit_amount": "1"}),
            "a flat price has no `unit_amount`",
        ),
        (json!({"model": "flat"}), "a flat price needs `amount`"),
        (json!({"model": "graduated"}), "a graduated price needs `tiers`"),
        (
            json!({"model": "volume", "tiers": [{"rate_percent": "1"}]}),
            "has no `tiers/rate_percent`",
        ),
        (
            json!({"model": "graduated_percentage", "tiers": [{"unit_amount": "1"}]}),
            "has no `tiers/unit_amount`",
        ),
        (
            json!({"model": "flat", "amount": "1", "colour": "red"}),
            "unknown field `colour`",
        ),
        (
            json!({"model": "graduated", "tiers": [{"upto": "1"}]}),
            "unknown field `upto`",
        ),
        (
            json!({"model": "per_unit", "unit_amount": "0.0000000000000001"}),
            "more than 15 decimal places",
        ),
        (
            json!({"model": "surge", "amount": "1"}),
            "unknown variant `surge`",
        ),
        (json!({"amount": "1"}), "missing field `model`"),
    ] {
        let error = read(shape.clone()).unwrap_err();
        assert!(error.contains(words), "{shape}: {error}");
    }
}

#[test]
fn a_rate_names_each_dimension_once() {
    for (rate, words) in [
        (r#"{"region": "eu"}"#, "missing field `unit_amount`"),
        (
            r#"{"region": 1, "unit_amount": 1}"#,
            "invalid type: integer `1`, expected a string",
        ),
        (r#"{"a": "x", "a": "y", "unit_amount": 1}"#, "duplicate field `a`"),
        (
            r#"{"unit_amount": 1, "unit_amount": 1}"#,
            "duplicate field `unit_amount`",
        ),
        (r#"["1", "eu"]"#, "invalid type: sequence, expected an object"),
    ] {
        let error = serde_json::from_str::<MatrixRate>(rate).unwrap_err().to_string();
        assert!(error.starts_with(words), "{rate}: {error}");
    }
}
