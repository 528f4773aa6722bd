//! A small business under test: usage, quotas and invoices of a test tenant, step by step, each compared with the oracle.
//!
//! The steps come from a seed, one behind the other, and time passes only by steps. So the oracle says exactly what
//! each must be answered, also when a crash swallowed the answer and the step is taken again.

mod catalog;
mod steps;
mod take;
mod verify;

use std::collections::BTreeMap;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::json;

use crate::door::{Door, must};
use crate::instant::us;
use crate::oracle::{Oracle, OracleAccount, OracleEvent, OracleInvoice, OracleLimit, OracleQuota};
use catalog::{CUSTOMERS, KIND, declared_plan, limits_of, meter, plan};
pub use steps::Step;
pub use take::standing;

/// What the tenant's clock shows at first: a subscription of the last day of a month, before the clocks are changed.
pub const START: &str = "2026-01-31T10:30:00Z";

/// The business, and what the oracle knows of it.
pub struct Commerce {
    random: StdRng,
    oracle: Oracle,
    quota: OracleQuota,
    accounts: Vec<OracleAccount>,
    invoices: Vec<Vec<OracleInvoice>>,
    limits: Vec<Vec<OracleLimit>>,
    sent: Vec<OracleEvent>,
    reservations: BTreeMap<String, usize>,
    start_us: i64,
    now_us: i64,
    next: u64,
    /// How often each thing happened.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Commerce {
    /// The tenant's catalog and customers are made; its clock must show [`START`].
    pub async fn open(seed: u64, door: &impl Door) -> Self {
        let declared = json!({"event_type": KIND, "aggregation": "sum", "value": "$.n", "group_by": {"region": "$.region"}});
        must(door, "PUT", "/v1/meters/calls", &declared).await;
        let feature = json!({"kind": "metered", "meter": "calls"});
        must(door, "PUT", "/v1/features/calls", &feature).await;
        must(door, "PUT", "/v1/plans/pro", &declared_plan()).await;
        for (key, parent, subjects, zone) in CUSTOMERS {
            let customer = json!({"parent": parent, "subjects": subjects, "timezone": zone});
            must(door, "PUT", &format!("/v1/customers/{key}"), &customer).await;
            let subscription = json!({"customer": key, "plan": "pro", "start": START});
            must(door, "POST", "/v1/subscriptions", &subscription).await;
        }
        let start_us = us(START);
        let account = |(_, _, own, zone): (&str, Option<&str>, &[&str], &str)| {
            let own = own.iter().map(|subject| (*subject).to_owned()).collect();
            OracleAccount::new(plan(), own, zone, start_us)
        };
        Self {
            random: StdRng::seed_from_u64(seed),
            oracle: Oracle::default(),
            quota: OracleQuota::new(meter(None)),
            accounts: CUSTOMERS.map(account).into(),
            invoices: vec![Vec::new(); CUSTOMERS.len()],
            limits: CUSTOMERS.map(|customer| limits_of(customer, start_us)).into(),
            sent: Vec::new(),
            reservations: BTreeMap::new(),
            start_us,
            now_us: start_us,
            next: 0,
            counts: BTreeMap::new(),
        }
    }
}
