//! The previews of prices and fees, over their routes.
#![expect(clippy::unwrap_used, reason = "a test may end early")]

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_http::{Caller, RequestId};

fn app() -> Router {
    turnpike_billing_sync::preview_router().split_for_parts().0
}

async fn post_as(scope: Scope, path: &str, body: &Value) -> (StatusCode, Value) {
    let caller = Caller {
        tenant: TenantId(1),
        key_id: "key".into(),
        scopes: Arc::new([scope].into()),
        request_id: RequestId("r".into()),
    };
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .extension(caller)
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = app().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

async fn price(body: Value) -> (StatusCode, Value) {
    post_as(Scope::Read, "/v1/price/preview", &body).await
}

#[tokio::test]
async fn the_contracts_example() {
    let package = json!({"model": "package", "package_size": "10", "package_amount": "100"});
    let (status, answer) = price(json!({"currency": "USD", "price": package, "quantity": "121"})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        answer,
        json!({"unrounded": "1300", "amount": {"amount": "1300.00", "currency": "USD"},
            "lines": [{"quantity": "13", "unit_amount": "100", "flat_amount": "0", "amount": "1300"}]})
    );
}

#[tokio::test]
async fn every_model_answers() {
    let tiers = json!([{"up_to": "5", "unit_amount": "7"}, {"up_to": null, "unit_amount": "6.5"}]);
    let rates = json!([{"up_to": "10", "rate_percent": "1", "flat_amount": "200"}, {"rate_percent": "2", "flat_amount": "300"}]);
    let matrix = json!({"model": "matrix", "dimensions": ["region"], "rates": [{"region": "eu", "unit_amount": "0.10"}],
        "default_unit_amount": "0.12"});
    for (body, unrounded, amount) in [
        (json!({"price": {"model": "flat", "amount": "29"}}), "29", "29.00"),
        (
            json!({"price": {"model": "per_unit", "unit_amount": "0.0005", "included": 0}, "quantity": 30}),
            "0.015",
            "0.02",
        ),
        (
            json!({"price": {"model": "graduated", "tiers": tiers}, "quantity": "6"}),
            "41.5",
            "41.50",
        ),
        (
            json!({"price": {"model": "volume", "tiers": tiers}, "quantity": "6"}),
            "39",
            "39.00",
        ),
        (
            json!({"price": {"model": "percentage", "rate_percent": "1.2", "fixed_amount": "0.10", "free_events": 3,
            "free_amount": "500"}, "amounts": ["200", "100", 100, "50"]}),
            "0.7",
            "0.70",
        ),
        (
            json!({"price": {"model": "graduated_percentage", "tiers": rates}, "amounts": ["5", "7"]}),
            "500.14",
            "500.14",
        ),
        (
            json!({"price": {"model": "graduated_percentage", "tiers": rates}, "quantity": "12"}),
            "500.14",
            "500.14",
        ),
        (
            json!({"price": matrix, "quantity": "10", "dimensions": {"region": "eu"}}),
            "1",
            "1.00",
        ),
        (json!({"price": matrix, "quantity": "10"}), "1.2", "1.20"),
        (
            json!({"price": {"model": "per_unit", "unit_amount": "1", "minimum_amount": "9"}, "quantity": "1"}),
            "9",
            "9.00",
        ),
    ] {
        answers(body, unrounded, amount).await;
    }
}

/// What `already_billed_quantity` leaves to pay: f(already + quantity) − f(already).
#[tokio::test]
async fn bills_in_steps() {
    let matrix = json!({"model": "matrix", "dimensions": ["region"], "rates": [{"region": "eu", "unit_amount": "0.10"}],
        "default_unit_amount": "0.12"});
    for (body, unrounded, amount) in [
        (
            json!({"price": {"model": "package", "package_size": "10", "package_amount": "15"}, "quantity": "5",
            "already_billed_quantity": "17"}),
            "15",
            "15.00",
        ),
        (
            json!({"price": matrix, "quantity": "10", "dimensions": {"region": "eu"}, "already_billed_quantity": "7"}),
            "1",
            "1.00",
        ),
        (
            json!({"price": {"model": "flat", "amount": "29"}, "already_billed_quantity": "1"}),
            "0",
            "0.00",
        ),
    ] {
        answers(body, unrounded, amount).await;
    }
}

/// A preview in dollars answers with these figures.
async fn answers(mut body: Value, unrounded: &str, amount: &str) {
    body["currency"] = json!("USD");
    let (status, answer) = price(body.clone()).await;
    assert_eq!(status, StatusCode::OK, "{body} {answer}");
    assert_eq!(
        (&answer["unrounded"], &answer["amount"]["amount"]),
        (&json!(unrounded), &json!(amount)),
        "{body}"
    );
}

/// Nothing, the ends of tiers and what lies beside them, parts of a unit, and much, in currencies of all decimals.
#[tokio::test]
async fn edges_of_every_model() {
    let tiers = json!([{"up_to": "100", "unit_amount": "0.1", "flat_amount": "5"}, {"up_to": "200", "unit_amount": "0.05"},
        {"unit_amount": "0.000000000000001", "flat_amount": "1"}]);
    let graduated = json!({"model": "graduated", "tiers": tiers});
    let volume = json!({"model": "volume", "tiers": tiers});
    let rates = json!({"model": "graduated_percentage", "tiers": [{"up_to": "10", "rate_percent": "1"}, {"rate_percent": "0.5"}]});
    let package = |round: &str| json!({"model": "package", "package_size": "1000", "package_amount": "1", "included": "10", "round": round});
    let bounded =
        json!({"model": "per_unit", "unit_amount": "0.5", "minimum_amount": "2", "maximum_amount": "10"});
    for (shape, currency, quantity, unrounded, amount) in [
        (&graduated, "USD", "0", "5", "5.00"),
        (&graduated, "USD", "100", "15", "15.00"),
        (&graduated, "USD", "100.5", "15.025", "15.03"),
        (&graduated, "USD", "200", "20", "20.00"),
        (
            &graduated,
            "USD",
            "200.000000000001",
            "21.000000000000000000000000001",
            "21.00",
        ),
        (&graduated, "JPY", "100.5", "15.025", "15"),
        (&graduated, "KWD", "100.5", "15.025", "15.025"),
        (&volume, "USD", "0", "5", "5.00"),
        (&volume, "USD", "100", "15", "15.00"),
        (&volume, "USD", "100.5", "5.025", "5.03"),
        (&volume, "USD", "1000000000000000", "2", "2.00"),
        (&rates, "KWD", "10.01", "0.10005", "0.100"),
        (&rates, "USD", "0", "0", "0.00"),
        (&package("up"), "USD", "10", "0", "0.00"),
        (&package("up"), "USD", "10.000000000001", "1", "1.00"),
        (&package("up"), "USD", "1010", "1", "1.00"),
        (&package("down"), "USD", "1009.9", "0", "0.00"),
        (&package("down"), "USD", "1010", "1", "1.00"),
        (&bounded, "USD", "0", "2", "2.00"),
        (&bounded, "USD", "4", "2", "2.00"),
        (&bounded, "USD", "20.01", "10", "10.00"),
        (&bounded, "XAF", "7", "3.5", "4"),
    ] {
        let body = json!({"currency": currency, "price": shape, "quantity": quantity});
        let (status, answer) = price(body.clone()).await;
        assert_eq!(status, StatusCode::OK, "{body} {answer}");
        let found = (&answer["unrounded"], &answer["amount"]["amount"]);
        assert_eq!(found, (&json!(unrounded), &json!(amount)), "{body}");
    }
    let bounds = json!({"model": "percentage", "rate_percent": "10", "fixed_amount": "0.5", "min_per_event": "1.75",
        "max_per_event": "12"});
    let amounts = json!(["0", "1", "12.5", "115", "1000000"]);
    let (_, answer) = price(json!({"currency": "USD", "price": bounds, "amounts": amounts})).await;
    let lines: Vec<&Value> = answer["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| &line["amount"])
        .collect();
    assert_eq!(lines, ["1.75", "1.75", "1.75", "12", "12"], "{answer}");
}

#[tokio::test]
async fn what_is_wrong_is_pointed_at() {
    let per_unit = json!({"model": "per_unit", "unit_amount": "1"});
    let percentage = json!({"model": "percentage", "rate_percent": "1"});
    for (body, pointer) in [
        (json!({"currency": "USD", "price": per_unit}), "/quantity"),
        (
            json!({"currency": "USD", "price": per_unit, "quantity": "-1"}),
            "/quantity",
        ),
        (
            json!({"currency": "USD", "price": per_unit, "quantity": "NaN"}),
            "/quantity",
        ),
        (
            json!({"currency": "USD", "price": per_unit, "quantity": "1", "already_billed_quantity": "-1"}),
            "/already_billed_quantity",
        ),
        (
            json!({"currency": "USD", "price": per_unit, "amounts": ["1"]}),
            "/amounts",
        ),
        (
            json!({"currency": "USD", "price": percentage, "quantity": "1"}),
            "/amounts",
        ),
        (
            json!({"currency": "USD", "price": percentage, "amounts": ["1", "-1"]}),
            "/amounts/1",
        ),
        (
            json!({"currency": "USD", "price": percentage, "amounts": ["1"], "already_billed_quantity": "1"}),
            "/already_billed_quantity",
        ),
        (
            json!({"currency": "USD", "price": {"model": "graduated", "tiers": []}, "quantity": "1"}),
            "/price/tiers",
        ),
        (
            json!({"currency": "usd", "price": per_unit, "quantity": "1"}),
            "/currency",
        ),
        (
            json!({"currency": "XXX", "price": per_unit, "quantity": "1"}),
            "/currency",
        ),
        (
            json!({"currency": "JPY", "price": {"model": "flat", "amount": "1.5"}}),
            "/price/amount",
        ),
        (
            json!({"currency": "JPY", "price": {"model": "per_unit", "unit_amount": "1", "minimum_amount": "0.1"}, "quantity": "1"}),
            "/price/minimum_amount",
        ),
        (
            json!({"currency": "USD", "price": {"model": "flat", "amount": "0.001"}}),
            "/price/amount",
        ),
        (json!({"currency": "USD", "price": {"model": "flat"}}), "/price"),
    ] {
        let (status, answer) = price(body.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body} {answer}");
        assert_eq!(answer["errors"][0]["pointer"], json!(pointer), "{body} {answer}");
    }
    let huge = json!({"currency": "USD", "price": {"model": "per_unit", "unit_amount": "1000000000000"}, "quantity": "1e20"});
    let (status, answer) = price(huge).await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("overflow"))
    );
}

#[tokio::test]
async fn fees_are_shared_without_residue() {
    let usd = |amount: &str| json!({"amount": amount, "currency": "USD"});
    let body = |gross: Value| json!({"gross": gross, "fee": {"rate_percent": "0.5", "fixed": "0.30"}, "commission": {"rate_percent": "10"}});
    let fees = |body: Value| async move { post_as(Scope::Read, "/v1/fees/preview", &body).await };
    let (status, answer) = fees(body(usd("100.00"))).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        answer,
        json!({"platform_fee": usd("0.80"), "provider_commission": usd("10.00"), "net_seller": usd("89.20")})
    );
    let (status, answer) = fees(body(usd("0.33"))).await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("amount_too_small"))
    );
    for (gross, pointer) in [
        (usd("0"), "/gross/amount"),
        (usd("-1"), "/gross/amount"),
        (usd("1.234"), "/gross"),
    ] {
        let (status, answer) = fees(body(gross)).await;
        assert_eq!(
            (status, &answer["errors"][0]["pointer"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!(pointer))
        );
    }
    let too_much = json!({"gross": usd("1"), "fee": {"rate_percent": "101", "fixed": "0.301"}});
    let (_, answer) = fees(too_much).await;
    assert_eq!(answer["errors"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_key_without_the_scope_is_refused() {
    for path in ["/v1/price/preview", "/v1/fees/preview"] {
        let body = json!({"currency": "USD", "gross": {"amount": "1", "currency": "USD"},
            "price": {"model": "flat", "amount": "1"}});
        let body = if path.contains("fees") {
            json!({"gross": body["gross"]})
        } else {
            json!({"currency": "USD", "price": body["price"]})
        };
        assert_eq!(post_as(Scope::Ingest, path, &body).await.0, StatusCode::FORBIDDEN);
        assert_eq!(post_as(Scope::Admin, path, &body).await.0, StatusCode::OK);
    }
}
