//! Steps are taken, and their answers compared.

use serde_json::{Value, json};

use super::catalog::{CUSTOMERS, FEATURE};
use super::{Commerce, Step};
use crate::billing::bill;
use crate::compare::Verdicts;
use crate::door::Door;
use crate::instant::time;
use crate::oracle::{Ask, Fate, OracleEvent, Standing};

impl Commerce {
    /// Takes a step and compares its answer. `again`: it may have been done before without an answer. False: there was
    /// none now either, and the oracle was told nothing.
    pub async fn take(&mut self, door: &impl Door, step: &Step, again: bool) -> bool {
        let (what, done) = match step {
            Step::Events(events) => ("events", self.send(door, events, again).await),
            Step::Correct(id, data) => ("corrections", self.correct(door, id, data.as_ref()).await),
            Step::Consume(customer, ask) => ("consumes", self.consume(door, *customer, ask).await),
            Step::Reserve(customer, ask, ttl_s) => {
                ("reservations", self.reserve(door, *customer, ask, *ttl_s).await)
            }
            Step::Commit(id, amount) => ("commits", self.commit(door, id, amount).await),
            Step::Release(id) => ("releases", self.release(door, id).await),
            Step::Advance(to_us) => ("advances", self.advance(door, *to_us).await),
            Step::Check(customer) => ("checks", self.check(door, *customer).await),
        };
        if done {
            *self.counts.entry(what).or_default() += 1;
        }
        done
    }

    async fn send(&mut self, door: &impl Door, events: &[OracleEvent], again: bool) -> bool {
        let body = events.iter().map(OracleEvent::to_json).collect();
        let Some((status, answer)) = door.call("POST", "/v1/events", Some(&body)).await else {
            return false;
        };
        assert_eq!(status, 200, "{answer}");
        Verdicts::of(&mut self.oracle, events).assert_said(&answer, again);
        self.sent.extend_from_slice(events);
        true
    }

    async fn correct(&mut self, door: &impl Door, id: &str, data: Option<&Value>) -> bool {
        let step = if data.is_some() { "amend" } else { "void" };
        let body = data.map_or_else(|| json!({}), |data| json!({ "data": data }));
        let path = format!("/v1/events/gateway/{id}/{step}");
        let Some((status, answer)) = door.call("POST", &path, Some(&body)).await else {
            return false;
        };
        let done = match data {
            Some(data) => self.oracle.amend("gateway", id, Some(data.clone()), None),
            None => self.oracle.void("gateway", id),
        };
        // An event that was taken back cannot be amended.
        assert_eq!(status, if done { 200 } else { 409 }, "{path}: {answer}");
        true
    }

    async fn consume(&mut self, door: &impl Door, customer: usize, ask: &Ask) -> bool {
        let key = CUSTOMERS[customer].0;
        let body = json!({"id": ask.id, "customer": key, "feature": FEATURE, "amount": ask.amount});
        let Some((status, answer)) = door.call("POST", "/v1/quota/consume", Some(&body)).await else {
            return false;
        };
        let granted = self.quota.consume(&mut self.oracle, &self.limits[customer], ask);
        assert_eq!(
            (status, &answer["allowed"]),
            (200, &json!(granted)),
            "{body}: {answer}"
        );
        true
    }

    async fn reserve(&mut self, door: &impl Door, customer: usize, ask: &Ask, ttl_s: i64) -> bool {
        let key = CUSTOMERS[customer].0;
        let body =
            json!({"id": ask.id, "customer": key, "feature": FEATURE, "amount": ask.amount, "ttl_s": ttl_s});
        let Some((status, answer)) = door.call("POST", "/v1/quota/reservations", Some(&body)).await else {
            return false;
        };
        let expires_us = ask.at_us + ttl_s * 1_000_000;
        let granted = self
            .quota
            .reserve(&self.oracle, &self.limits[customer], ask, expires_us);
        assert_eq!(
            (status / 100, &answer["allowed"]),
            (2, &json!(granted)),
            "{body}: {answer}"
        );
        if granted {
            self.reservations.insert(ask.id.clone(), customer);
        }
        true
    }

    async fn commit(&mut self, door: &impl Door, id: &str, amount: &str) -> bool {
        let path = format!("/v1/quota/reservations/{id}/commit");
        let Some((status, answer)) = door.call("POST", &path, Some(&json!({ "amount": amount }))).await
        else {
            return false;
        };
        let limits = &self.limits[self.reservations[id]];
        let granted = self
            .quota
            .commit(&mut self.oracle, limits, id, amount, self.now_us);
        assert_eq!(
            (status, &answer["allowed"]),
            (200, &json!(granted)),
            "{path} {amount}: {answer}"
        );
        if self.quota.fate(id) != Some(Fate::Open) && self.quota.fate(id) != Some(Fate::Expired) {
            self.reservations.remove(id);
        }
        true
    }

    async fn release(&mut self, door: &impl Door, id: &str) -> bool {
        let path = format!("/v1/quota/reservations/{id}/release");
        let Some((status, answer)) = door.call("POST", &path, Some(&json!({}))).await else {
            return false;
        };
        self.quota.release(id, self.now_us);
        let fate = match self.quota.fate(id) {
            Some(Fate::Expired) => "expired",
            _ => "released",
        };
        let told = answer["reservation"]["status"].as_str();
        assert_eq!((status, told), (200, Some(fate)), "{path}: {answer}");
        if fate == "released" {
            self.reservations.remove(id);
        }
        true
    }

    /// The clock moves; each period that ends on the way is billed.
    async fn advance(&mut self, door: &impl Door, to_us: i64) -> bool {
        let body = json!({ "to": time(to_us) });
        let Some((status, answer)) = door.call("POST", "/v1/test-clock/advance", Some(&body)).await else {
            return false;
        };
        assert_eq!(status, 200, "{answer}");
        if !bill(door, to_us).await {
            return false;
        }
        for (account, invoices) in self.accounts.iter_mut().zip(&mut self.invoices) {
            while account.next_end_us() <= to_us {
                invoices.push(account.close(&self.oracle));
                *self.counts.entry("invoices").or_default() += 1;
            }
        }
        self.now_us = to_us;
        self.quota.expire(to_us);
        true
    }

    pub(super) async fn check(&mut self, door: &impl Door, customer: usize) -> bool {
        let body = json!({"customer": CUSTOMERS[customer].0, "feature": FEATURE, "amount": "1"});
        let Some((status, answer)) = door.call("POST", "/v1/quota/check", Some(&body)).await else {
            return false;
        };
        let limits = &self.limits[customer];
        let allowed = self.quota.admits(&self.oracle, limits, "1", self.now_us);
        assert_eq!((status, &answer["allowed"]), (200, &json!(allowed)), "{answer}");
        assert_eq!(
            standing(&answer),
            self.quota.standing(&self.oracle, limits, self.now_us),
            "{answer}"
        );
        true
    }
}

/// What stands against each limit, as a decision says it.
pub fn standing(answer: &Value) -> Vec<Standing> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let standing = |limit: &Value| Standing {
        customer: text(&limit["customer"]),
        period: text(&limit["period"]),
        used: text(&limit["used"]),
        reserved: text(&limit["reserved"]),
        remaining: text(&limit["remaining"]),
    };
    let limits = answer["limits"].as_array().expect("limits").iter();
    let mut found: Vec<_> = limits.map(standing).collect();
    found.sort();
    found
}
