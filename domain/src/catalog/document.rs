use serde::{Deserialize, Serialize};

use super::{AddOn, Catalog, Feature, Plan};
use crate::meter::MeterDefinition;

/// A whole catalog, as it is applied: the same in JSON and in TOML files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogDocument {
    /// All meters.
    #[serde(default)]
    pub meters: Vec<MeterDefinition>,
    /// All features.
    #[serde(default)]
    pub features: Vec<Feature>,
    /// All plans.
    #[serde(default)]
    pub plans: Vec<Plan>,
    /// All add-ons.
    #[serde(default)]
    pub add_ons: Vec<AddOn>,
}

impl CatalogDocument {
    /// The catalog in force as a document, in the order of keys.
    pub fn of(catalog: &Catalog) -> Self {
        Self {
            meters: catalog
                .meters
                .values()
                .map(|meter| MeterDefinition::of(meter))
                .collect(),
            features: catalog
                .features
                .values()
                .map(|feature| Feature::clone(feature))
                .collect(),
            plans: catalog
                .plans
                .values()
                .filter_map(|all| all.last())
                .map(|plan| Plan::clone(plan))
                .collect(),
            add_ons: catalog
                .add_ons
                .values()
                .filter_map(|all| all.last())
                .map(|a| AddOn::clone(a))
                .collect(),
        }
    }

    /// Adds what `other` declares, such as the next file of a directory.
    pub fn extend(&mut self, other: Self) {
        self.meters.extend(other.meters);
        self.features.extend(other.features);
        self.plans.extend(other.plans);
        self.add_ons.extend(other.add_ons);
    }
}

/// What a catalog consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CatalogKind {
    /// A meter.
    Meter,
    /// A feature.
    Feature,
    /// A plan.
    Plan,
    /// An add-on.
    AddOn,
}

impl CatalogKind {
    /// Its name in messages and in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meter => "meter",
            Self::Feature => "feature",
            Self::Plan => "plan",
            Self::AddOn => "add-on",
        }
    }
}

/// One meter, feature, plan or add-on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CatalogItem {
    /// What it is.
    pub kind: CatalogKind,
    /// Its key.
    pub key: String,
}

/// A field that an application of a catalog changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldChange {
    /// JSON pointer of the field inside the item.
    pub pointer: String,
    /// What it was; null when it was not there.
    #[schema(value_type = Object)]
    pub from: serde_json::Value,
    /// What it will be; null when it is taken away.
    #[schema(value_type = Object)]
    pub to: serde_json::Value,
}

/// A feature, plan or add-on that an application of a catalog changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChangedItem {
    /// What it is.
    pub kind: CatalogKind,
    /// Its key.
    pub key: String,
    /// The version that it gets, for a plan or add-on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// What changes in it.
    pub changes: Vec<FieldChange>,
}

/// What an application of a catalog does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CatalogDiff {
    /// The version of the catalog that the difference is to; after an application, the new one.
    pub version: u64,
    /// What is new.
    pub created: Vec<CatalogItem>,
    /// What changes.
    pub changed: Vec<ChangedItem>,
    /// What goes.
    pub removed: Vec<CatalogItem>,
    /// What stays as it is.
    pub unchanged: Vec<CatalogItem>,
}

impl CatalogDiff {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.created.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// The fields in which two JSON values differ: members of objects are compared one by one, all else as a whole.
pub fn field_changes(from: &serde_json::Value, to: &serde_json::Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    compare(String::new(), from, to, &mut changes);
    changes
}

fn compare(pointer: String, from: &serde_json::Value, to: &serde_json::Value, out: &mut Vec<FieldChange>) {
    use serde_json::Value;
    if from == to {
        return;
    }
    match (from, to) {
        (Value::Object(a), Value::Object(b)) => {
            let new = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(new) {
                let at = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                let side =
                    |side: &serde_json::Map<String, Value>| side.get(key).cloned().unwrap_or(Value::Null);
                compare(at, &side(a), &side(b), out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(format!("{pointer}/{index}"), a, b, out);
            }
        }
        _ => out.push(FieldChange {
            pointer,
            from: from.clone(),
            to: to.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_are_told_by_field() {
        let from = json!({"name": "Pro", "prices": [{"key": "a", "amount": "1"}], "trial_days": 3});
        let to = json!({"name": "Pro", "prices": [{"key": "a", "amount": "2"}], "x/y": true});
        let changes = field_changes(&from, &to);
        let told: Vec<_> = changes
            .iter()
            .map(|c| (c.pointer.as_str(), c.from.clone(), c.to.clone()))
            .collect();
        assert_eq!(
            told,
            [
                ("/prices/0/amount", json!("1"), json!("2")),
                ("/trial_days", json!(3), json!(null)),
                ("/x~1y", json!(null), json!(true)),
            ]
        );
        assert!(field_changes(&from, &from).is_empty());
    }
}
