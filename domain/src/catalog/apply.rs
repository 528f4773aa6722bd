//! What becomes of a catalog when a document is applied, or one item of it is put or taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::check::Findings;
use super::document::field_changes;
use super::{
    AddOn, Catalog, CatalogDiff, CatalogDocument, CatalogItem, CatalogKind, CatalogUse, ChangedItem, Feature,
    Plan,
};
use crate::identity::MeterId;
use crate::limits::CATALOG_ITEMS_MAX;
use crate::meter::{Meter, MeterDefinition};
use crate::port::control::Effect;
use crate::problem::{Code, Problem};

/// A change of a catalog, thought through.
#[derive(Debug, Clone)]
pub struct CatalogPlan {
    /// What it does.
    pub effects: Vec<Effect>,
    /// The same in words.
    pub diff: CatalogDiff,
    /// The catalog afterwards (its version not yet raised).
    pub after: Catalog,
}

impl CatalogPlan {
    fn new(current: &Catalog) -> Self {
        Self {
            effects: Vec::new(),
            diff: CatalogDiff {
                version: current.version,
                ..CatalogDiff::default()
            },
            after: current.clone(),
        }
    }

    fn created(&mut self, kind: CatalogKind, key: &str) {
        self.diff.created.push(CatalogItem {
            kind,
            key: key.to_owned(),
        });
    }

    fn unchanged(&mut self, kind: CatalogKind, key: &str) {
        self.diff.unchanged.push(CatalogItem {
            kind,
            key: key.to_owned(),
        });
    }

    fn changed<T: Serialize>(
        &mut self,
        kind: CatalogKind,
        key: &str,
        version: Option<u32>,
        from: &T,
        to: &T,
    ) {
        let json = |item: &T| serde_json::to_value(item).unwrap_or_default();
        self.diff.changed.push(ChangedItem {
            kind,
            key: key.to_owned(),
            version,
            changes: field_changes(&json(from), &json(to)),
        });
    }

    /// Puts a meter. `new_id` gives a number to a new one.
    ///
    /// # Errors
    /// An invalid definition; [`Code::Immutable`] when there is one of this key with another definition.
    pub fn put_meter(
        &mut self,
        definition: MeterDefinition,
        new_id: impl FnOnce() -> MeterId,
    ) -> Result<(), Problem> {
        let before = self.after.meters.get(&definition.key).cloned();
        let id = before.as_ref().map_or(MeterId(0), |meter| meter.id);
        let mut meter: Meter = definition.into_meter(id)?;
        match before {
            Some(before) if *before == meter => self.unchanged(CatalogKind::Meter, &meter.key),
            Some(_) => {
                return Err(Problem::new(
                    Code::Immutable,
                    format!(
                        "meter \"{}\" has another definition, and a definition never changes: make another key",
                        meter.key
                    ),
                ));
            }
            None => {
                meter.id = new_id();
                self.created(CatalogKind::Meter, &meter.key);
                self.after
                    .meters
                    .insert(meter.key.clone(), Arc::new(meter.clone()));
                self.effects.push(Effect::Meter(meter));
            }
        }
        Ok(())
    }

    /// Puts a feature.
    pub fn put_feature(&mut self, feature: Feature) -> Result<(), Problem> {
        let feature = feature.normalized();
        feature.check(&self.after).into_result()?;
        match self.after.features.get(&feature.key).cloned() {
            Some(before) if *before == feature => {
                self.unchanged(CatalogKind::Feature, &feature.key);
                return Ok(());
            }
            Some(before) => self.changed(
                CatalogKind::Feature,
                &feature.key,
                None,
                before.as_ref(),
                &feature,
            ),
            None => self.created(CatalogKind::Feature, &feature.key),
        }
        self.after
            .features
            .insert(feature.key.clone(), Arc::new(feature.clone()));
        self.effects.push(Effect::Feature(feature));
        Ok(())
    }

    /// Puts a plan: other content makes a new version.
    pub fn put_plan(&mut self, plan: Plan) -> Result<(), Problem> {
        let plan = plan.normalized();
        plan.check(&self.after).into_result()?;
        let retired = self.after.retired_plans.get(&plan.key).map_or(0, Vec::len);
        let (version, before) = match self
            .after
            .plans
            .get(&plan.key)
            .and_then(|all| all.last())
            .cloned()
        {
            Some(before) => (before.version + 1, Some(before)),
            None => (version_after(retired), None),
        };
        match before {
            Some(before) if before.as_ref().clone().normalized() == plan => {
                self.unchanged(CatalogKind::Plan, &plan.key);
                return Ok(());
            }
            Some(before) => {
                let from = before.as_ref().clone().normalized();
                self.changed(CatalogKind::Plan, &plan.key, Some(version), &from, &plan);
            }
            None => self.created(CatalogKind::Plan, &plan.key),
        }
        let plan = Plan { version, ..plan };
        self.after.add_plan(plan.clone());
        self.effects.push(Effect::Plan(plan));
        Ok(())
    }

    /// Puts an add-on: other content makes a new version.
    pub fn put_add_on(&mut self, add_on: AddOn) -> Result<(), Problem> {
        let add_on = add_on.normalized();
        add_on.check(&self.after).into_result()?;
        let retired = self.after.retired_add_ons.get(&add_on.key).map_or(0, Vec::len);
        let (version, before) = match self
            .after
            .add_ons
            .get(&add_on.key)
            .and_then(|all| all.last())
            .cloned()
        {
            Some(before) => (before.version + 1, Some(before)),
            None => (version_after(retired), None),
        };
        match before {
            Some(before) if before.as_ref().clone().normalized() == add_on => {
                self.unchanged(CatalogKind::AddOn, &add_on.key);
                return Ok(());
            }
            Some(before) => {
                let from = before.as_ref().clone().normalized();
                self.changed(CatalogKind::AddOn, &add_on.key, Some(version), &from, &add_on);
            }
            None => self.created(CatalogKind::AddOn, &add_on.key),
        }
        let add_on = AddOn { version, ..add_on };
        self.after.add_add_on(add_on.clone());
        self.effects.push(Effect::AddOn(add_on));
        Ok(())
    }

    /// Takes an item away. Nothing happens when there is none.
    pub fn remove(&mut self, kind: CatalogKind, key: &str) {
        let owned = key.to_owned();
        let effect = match kind {
            CatalogKind::Meter => self.after.meters.remove(key).map(|_| Effect::RemoveMeter(owned)),
            CatalogKind::Feature => self
                .after
                .features
                .remove(key)
                .map(|_| Effect::RemoveFeature(owned)),
            CatalogKind::Plan => self.after.plans.contains_key(key).then(|| {
                self.after.retire_plan(key);
                Effect::RetirePlan(owned)
            }),
            CatalogKind::AddOn => self.after.add_ons.contains_key(key).then(|| {
                self.after.retire_add_on(key);
                Effect::RetireAddOn(owned)
            }),
        };
        if let Some(effect) = effect {
            self.effects.push(effect);
            self.diff.removed.push(CatalogItem {
                kind,
                key: key.to_owned(),
            });
        }
    }
}

/// One change to `current`, such as a single item put or taken away.
pub fn change_catalog(
    current: &Catalog,
    used: &CatalogUse,
    change: impl FnOnce(&mut CatalogPlan) -> Result<(), Problem>,
) -> Result<CatalogPlan, Problem> {
    let mut plan = CatalogPlan::new(current);
    change(&mut plan)?;
    plan.check_use(current, used)?;
    check_size(&plan.after)?;
    Ok(plan)
}

/// Makes `current` what `document` declares: what it does not name goes. Either everything is done or nothing.
pub fn apply_document(
    current: &Catalog,
    document: CatalogDocument,
    used: &CatalogUse,
    mut new_meter: impl FnMut() -> MeterId,
) -> Result<CatalogPlan, Problem> {
    check_keys(&document)?;
    change_catalog(current, used, |plan| {
        remove_unnamed(plan, current, &document);
        for (index, meter) in document.meters.into_iter().enumerate() {
            plan.put_meter(meter, &mut new_meter)
                .map_err(|problem| at(problem, "meters", index))?;
        }
        for (index, feature) in document.features.into_iter().enumerate() {
            plan.put_feature(feature)
                .map_err(|problem| at(problem, "features", index))?;
        }
        for (index, item) in document.plans.into_iter().enumerate() {
            plan.put_plan(item)
                .map_err(|problem| at(problem, "plans", index))?;
        }
        for (index, add_on) in document.add_ons.into_iter().enumerate() {
            plan.put_add_on(add_on)
                .map_err(|problem| at(problem, "add_ons", index))?;
        }
        Ok(())
    })
}

fn remove_unnamed(plan: &mut CatalogPlan, current: &Catalog, document: &CatalogDocument) {
    fn unnamed<'a, V>(current: &'a BTreeMap<String, V>, named: BTreeSet<&'a str>) -> Vec<&'a String> {
        current
            .keys()
            .filter(|key| !named.contains(key.as_str()))
            .collect()
    }
    let add_ons = document.add_ons.iter().map(|item| item.key.as_str()).collect();
    let plans = document.plans.iter().map(|item| item.key.as_str()).collect();
    let features = document.features.iter().map(|item| item.key.as_str()).collect();
    let meters = document.meters.iter().map(|item| item.key.as_str()).collect();
    for (kind, keys) in [
        (CatalogKind::AddOn, unnamed(&current.add_ons, add_ons)),
        (CatalogKind::Plan, unnamed(&current.plans, plans)),
        (CatalogKind::Feature, unnamed(&current.features, features)),
        (CatalogKind::Meter, unnamed(&current.meters, meters)),
    ] {
        for key in keys {
            plan.remove(kind, key);
        }
    }
}

/// In a document every item has a key of its own.
fn check_keys(document: &CatalogDocument) -> Result<(), Problem> {
    let mut findings = Findings::default();
    let mut check = |list: &str, keys: Vec<&str>| {
        let mut seen = BTreeSet::new();
        for (index, key) in keys.into_iter().enumerate() {
            let pointer = format!("/{list}/{index}/key");
            findings.key(&pointer, key);
            if !seen.insert(key) {
                findings.add(pointer, format!("\"{key}\" stands here twice"));
            }
        }
    };
    check(
        "meters",
        document.meters.iter().map(|item| item.key.as_str()).collect(),
    );
    check(
        "features",
        document.features.iter().map(|item| item.key.as_str()).collect(),
    );
    check(
        "plans",
        document.plans.iter().map(|item| item.key.as_str()).collect(),
    );
    check(
        "add_ons",
        document.add_ons.iter().map(|item| item.key.as_str()).collect(),
    );
    findings.into_result()
}

/// The problem of an item of a document, its pointers seen from the document.
fn at(mut problem: Problem, list: &str, index: usize) -> Problem {
    let at = format!("/{list}/{index}");
    for field in &mut problem.fields {
        field.pointer.insert_str(0, &at);
    }
    if let Some(first) = problem.fields.first() {
        problem.detail = format!("{} {}", first.pointer, first.detail);
    }
    problem
}

fn check_size(catalog: &Catalog) -> Result<(), Problem> {
    for (list, count) in [
        ("meters", catalog.meters.len()),
        ("features", catalog.features.len()),
        ("plans", catalog.plans.len()),
        ("add_ons", catalog.add_ons.len()),
    ] {
        if count > CATALOG_ITEMS_MAX {
            return Err(Problem::new(
                Code::Invalid,
                format!("a catalog has at most {CATALOG_ITEMS_MAX} {list}, this one would have {count}"),
            ));
        }
    }
    Ok(())
}

/// The version behind as many as were taken away.
fn version_after(retired: usize) -> u32 {
    u32::try_from(retired).map_or(u32::MAX, |retired| retired.saturating_add(1))
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
