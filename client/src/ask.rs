//! What is asked of a quota.

use serde_json::{Map, Value, json};

use crate::Quantity;

/// Whose use of what is decided: 1 of it unless [`amount`](Self::amount) says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub(crate) customer: String,
    pub(crate) feature: String,
    pub(crate) amount: Quantity,
    pub(crate) id: Option<String>,
    pub(crate) properties: Map<String, Value>,
}

impl Ask {
    /// One unit of `feature` for `customer`, by their keys.
    pub fn new(customer: impl Into<String>, feature: impl Into<String>) -> Self {
        Self {
            customer: customer.into(),
            feature: feature.into(),
            amount: Quantity::ONE,
            id: None,
            properties: Map::new(),
        }
    }

    /// How much: above 0; a check takes 0 too, to see the figures.
    #[must_use]
    pub fn amount(self, amount: impl Into<Quantity>) -> Self {
        Self {
            amount: amount.into(),
            ..self
        }
    }

    /// The id under which a consume or a reservation counts once, 1 to 512 bytes: it becomes that of the event. Without
    /// one each call makes its own, so that it counts once however often it is tried within itself, but the same call made
    /// again counts again.
    #[must_use]
    pub fn id(self, id: impl Into<String>) -> Self {
        Self {
            id: Some(id.into()),
            ..self
        }
    }

    /// Another member of the data of the event that a consume or a commit becomes. Numbers that count are exact as strings.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// The body of a check.
    pub(crate) fn question(&self) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("customer".to_owned(), json!(self.customer));
        body.insert("feature".to_owned(), json!(self.feature));
        body.insert("amount".to_owned(), json!(self.amount));
        body
    }

    /// The body of a consume or a reservation.
    pub(crate) fn order(&self) -> Map<String, Value> {
        let mut body = self.question();
        let id = self.id.clone().unwrap_or_else(crate::transport::new_id);
        body.insert("id".to_owned(), Value::String(id));
        if !self.properties.is_empty() {
            body.insert("properties".to_owned(), Value::Object(self.properties.clone()));
        }
        body
    }
}
