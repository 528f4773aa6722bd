use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::time::Timestamp;

fn document(value: serde_json::Value) -> CatalogDocument {
    serde_json::from_value(value).unwrap()
}

/// A document of those of four items per kind that the bits of `mask` name, in the form that `style` names.
fn some(mask: u16, style: u8) -> CatalogDocument {
    let named = |kind: u16| (0..4u16).filter(move |n| mask & (1 << (kind * 4 + n)) != 0);
    let meters: Vec<_> = named(0)
        .map(|n| json!({"key": format!("m{n}"), "event_type": "e", "aggregation": "count"}))
        .collect();
    let features: Vec<_> = named(1)
        .map(|n| json!({"key": format!("f{n}"), "kind": "metered", "meter": format!("m{n}"), "name": format!("{style}")}))
        .collect();
    let plans: Vec<_> = named(2)
        .map(|n| {
            let entitlement = json!({"feature": format!("f{n}"), "limits": [{"limit": style}]});
            json!({"key": format!("p{n}"), "currency": "USD", "entitlements": [entitlement]})
        })
        .collect();
    let add_ons: Vec<_> = named(3)
        .map(|n| json!({"key": format!("a{n}"), "currency": "USD"}))
        .collect();
    document(json!({"meters": meters, "features": features, "plans": plans, "add_ons": add_ons}))
}

/// The same with what plans and features refer to.
fn closed(mask: u16, style: u8) -> CatalogDocument {
    let features = mask | (mask >> 4) & 0xf0;
    some(features | (features >> 4) & 0x0f, style)
}

fn apply(current: &Catalog, document: CatalogDocument) -> Result<CatalogPlan, Problem> {
    let mut next = 100;
    apply_document(current, document, &CatalogUse::default(), || {
        next += 1;
        MeterId(next)
    })
}

proptest! {
    #[test]
    fn what_is_applied_is_in_force_and_the_second_time_nothing_is_done(
        steps in prop::collection::vec((any::<u16>(), 0u8..3), 1..8),
    ) {
        let mut catalog = Catalog::default();
        for (mask, style) in steps {
            let wanted = closed(mask, style);
            let plan = apply(&catalog, wanted.clone()).unwrap();
            let CatalogDiff { created, changed, removed, unchanged, .. } = &plan.diff;
            let wanted_items = wanted.meters.len() + wanted.features.len() + wanted.plans.len() + wanted.add_ons.len();
            prop_assert_eq!(created.len() + changed.len() + unchanged.len(), wanted_items);
            let before = CatalogDocument::of(&catalog);
            let had = before.meters.len() + before.features.len() + before.plans.len() + before.add_ons.len();
            prop_assert_eq!(changed.len() + unchanged.len() + removed.len(), had);
            prop_assert_eq!(plan.effects.len(), created.len() + changed.len() + removed.len());
            for all in plan.after.plans.values().chain(plan.after.retired_plans.values()) {
                let versions: Vec<_> = all.iter().map(|plan| plan.version as usize).collect();
                prop_assert_eq!(versions, (1..=all.len()).collect::<Vec<_>>());
            }
            let again = apply(&plan.after, wanted).unwrap();
            prop_assert!(again.effects.is_empty() && again.diff.is_empty());
            let shown = apply(&plan.after, CatalogDocument::of(&plan.after)).unwrap();
            prop_assert!(shown.effects.is_empty(), "what is shown can be applied and changes nothing");
            catalog = plan.after;
        }
    }

    #[test]
    fn a_document_with_a_hole_is_refused(mask in any::<u16>()) {
        let hole = (0..4).any(|n| {
            let has = |kind: u16| mask & (1 << (kind * 4 + n)) != 0;
            has(1) && !has(0) || has(2) && !has(1)
        });
        prop_assert_eq!(apply(&Catalog::default(), some(mask, 0)).is_err(), hole);
    }
}

#[test]
fn a_version_in_use_keeps_what_it_names() {
    let current = apply(&Catalog::default(), closed(0x0100, 0)).unwrap().after;
    let used = CatalogUse {
        plans: [("p0".to_owned(), 1)].into(),
        ..CatalogUse::default()
    };
    let without = |mask| apply_document(&current, closed(mask, 0), &used, || MeterId(9));
    assert_eq!(without(0).unwrap_err().code, Code::InUse);
    let mut no_entitlement = closed(0x0100, 0);
    no_entitlement.plans[0].entitlements.clear();
    no_entitlement.features.clear();
    let refused = apply_document(&current, no_entitlement.clone(), &used, || MeterId(9)).unwrap_err();
    assert_eq!(
        (refused.code, refused.detail.contains("plan \"p0\" version 1")),
        (Code::InUse, true)
    );
    apply_document(&current, no_entitlement, &CatalogUse::default(), || MeterId(9)).unwrap();
}

#[test]
fn a_meter_stays_as_it_is_while_what_it_counted_is_looked_at() {
    let price = json!({"key": "u", "meter": "m", "model": "per_unit", "unit_amount": "1"});
    let meter = json!({"key": "m", "event_type": "e", "aggregation": "count"});
    let all = json!({
        "meters": [meter.clone()],
        "plans": [
            {"key": "p", "currency": "USD", "prices": [price.clone()]},
            {"key": "q", "currency": "USD", "prices_by_currency": {"EUR": [price.clone()]}},
            {"key": "r", "currency": "USD"},
        ],
        "add_ons": [{"key": "a", "currency": "USD", "prices": [price]}],
    });
    let before = apply(&Catalog::default(), document(all)).unwrap().after;
    let until = |minute| Timestamp::from_minute(minute);
    let closed = |plan: &str| CatalogUse {
        closed_plans: [((plan.to_owned(), 1), until(1))].into(),
        ..CatalogUse::default()
    };
    let add_on = CatalogUse {
        closed_add_ons: [(("a".to_owned(), 1), until(2))].into(),
        ..closed("p")
    };
    let without = |used: &CatalogUse| {
        let changed = apply_document(&before, CatalogDocument::default(), used, || MeterId(9));
        changed
            .map(|plan| plan.after)
            .map_err(|problem| (problem.code, problem.detail))
    };
    for (used, named) in [
        (closed("p"), "until 1970-01-01T00:01:00Z"),
        (closed("q"), "plan \"q\" version 1"),
        (add_on, "until 1970-01-01T00:02:00Z"),
    ] {
        let (code, detail) = without(&used).unwrap_err();
        assert_eq!((code, detail.contains(named)), (Code::InUse, true), "{detail}");
    }
    let after = without(&closed("r")).unwrap();
    // Nor does another come in its place.
    let again = |used: &CatalogUse| {
        let declared = document(json!({ "meters": [meter.clone()] }));
        apply_document(&after, declared, used, || MeterId(9)).map_err(|problem| problem.code)
    };
    assert_eq!(again(&closed("p")).map(|_| ()), Err(Code::InUse));
    again(&closed("r")).unwrap();
    // Behind that time it may go, and its key stays that of what it counted.
    let past = CatalogUse {
        now: until(1),
        ..closed("p")
    };
    without(&past).unwrap();
    assert_eq!(again(&past).map(|_| ()), Err(Code::InUse));
}

#[test]
fn a_document_reads_the_same_from_numbers_and_strings() {
    let of = |limit: serde_json::Value| {
        let plan = json!({"key": "p", "currency": "USD", "minimum_commitment": limit});
        apply(&Catalog::default(), document(json!({ "plans": [plan] })))
            .unwrap()
            .after
            .current_plan("p")
            .cloned()
    };
    assert_eq!(of(json!(100)), of(json!("100.00")));
}
