//! What the business sells, to whom, and up to which limits: as it is declared, and as the oracle knows it.

use serde_json::{Value, json};

use crate::billing::declared;
use crate::oracle::{
    OracleCharge, OracleLimit, OracleMeter, OracleMode, OraclePlan, OraclePrice, OracleTier,
};

pub(super) const KIND: &str = "call";
pub(super) const FEATURE: &str = "calls";

/// Customer, parent, subjects, zone.
pub(super) const CUSTOMERS: [(&str, Option<&str>, &[&str], &str); 3] = [
    ("org", None, &["org-eu", "org-us"], "Europe/Berlin"),
    ("team", Some("org"), &["team"], "America/New_York"),
    ("solo", None, &["solo"], "UTC"),
];

/// Limit, window, mode, grace.
pub(super) const LIMITS: [(&str, &str, OracleMode); 4] = [
    ("150", "hour", OracleMode::Hard),
    ("400", "day", OracleMode::Soft(10)),
    ("3000", "billing", OracleMode::Hard),
    ("1000", "ever", OracleMode::Overage),
];
pub(super) fn meter(filter: Option<(&str, &[&str])>) -> OracleMeter {
    let filter = filter.map(|(member, values)| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        (member.to_owned(), values)
    });
    OracleMeter {
        event_type: KIND.into(),
        aggregation: "sum".into(),
        value: Some("n".into()),
        group_by: [("region".to_owned(), "region".to_owned())].into(),
        filter: filter.into_iter().collect(),
        ..OracleMeter::default()
    }
}

pub(super) fn plan() -> OraclePlan {
    let charge = |key: &str, meter: Option<OracleMeter>, price| OracleCharge {
        key: key.into(),
        meter,
        price,
    };
    let tier = |up_to: Option<&str>, unit: &str, flat: &str| OracleTier {
        up_to: up_to.map(str::to_owned),
        unit_amount: unit.into(),
        flat_amount: flat.into(),
    };
    let units = OraclePrice::PerUnit {
        unit_amount: "0.0137".into(),
        included: "100".into(),
    };
    let tiers = OraclePrice::Graduated {
        tiers: vec![
            tier(Some("250.5"), "0.03", "1"),
            tier(Some("1000"), "0.0215", "0"),
            tier(None, "0.007", "0.5"),
        ],
    };
    let packs = OraclePrice::Package {
        size: "300".into(),
        amount: "2.35".into(),
    };
    OraclePlan {
        charges: vec![
            charge("base", None, OraclePrice::Flat { amount: "9.9".into() }),
            charge("units", Some(meter(None)), units),
            charge("tiers", Some(meter(None)), tiers),
            charge("packs", Some(meter(Some(("region", &["eu"])))), packs),
        ],
        minimum_commitment: Some("25.00".into()),
        places: 2,
    }
}

pub(super) fn declared_plan() -> Value {
    let limits = LIMITS.map(|(limit, period, mode)| match mode {
        OracleMode::Hard => json!({"limit": limit, "period": period, "mode": "hard"}),
        OracleMode::Overage => json!({"limit": limit, "period": period, "mode": "overage"}),
        OracleMode::Soft(grace) => {
            json!({"limit": limit, "period": period, "mode": "soft", "grace_percent": grace.to_string()})
        }
    });
    let meters = ["units", "tiers", "packs"].map(|key| (key, "calls"));
    let mut declared = declared(&plan(), &meters);
    declared["prices"][3]["filter"] = json!({"region": ["eu"]});
    declared["entitlements"] = json!([{"feature": FEATURE, "limits": limits}]);
    declared
}

fn subjects(customer: &str) -> Vec<String> {
    let below = |(key, parent, ..): &&(&str, Option<&str>, &[&str], &str)| {
        *key == customer || *parent == Some(customer)
    };
    let all = CUSTOMERS.iter().filter(below).flat_map(|(_, _, own, _)| *own);
    all.map(|subject| (*subject).to_owned()).collect()
}

/// The limits that stand against a customer: its own, and its parent's.
pub(super) fn limits_of(
    (key, parent, ..): (&str, Option<&str>, &[&str], &str),
    anchor_us: i64,
) -> Vec<OracleLimit> {
    let levels = CUSTOMERS
        .iter()
        .filter(|(other, ..)| *other == key || Some(*other) == parent);
    let all = levels.flat_map(|(customer, _, _, zone)| {
        LIMITS.map(|(limit, period, mode)| OracleLimit {
            customer: (*customer).to_owned(),
            subjects: subjects(customer),
            period: period.to_owned(),
            limit: limit.to_owned(),
            mode,
            zone: (*zone).to_owned(),
            anchor_us,
        })
    });
    all.collect()
}
