//! Everything at once: totals, limits and invoices.

use std::collections::BTreeSet;

use super::Commerce;
use super::catalog::{CUSTOMERS, meter};
use crate::billing::assert_invoices;
use crate::door::Door;
use crate::oracle::Select;

impl Commerce {
    /// Totals, limits and invoices must be what the oracle says, each invoice must follow from the raw log, and the
    /// numbers of all must have no gap.
    pub async fn verify(&mut self, door: &impl Door) {
        let get = async |path: &str| {
            let (status, body) = door.call("GET", path, None).await.expect("an answer");
            assert_eq!(status, 200, "{path}: {body}");
            body
        };
        let mut numbers = BTreeSet::new();
        for (customer, (key, _, own, _)) in CUSTOMERS.into_iter().enumerate() {
            assert!(self.check(door, customer).await);
            for subject in own {
                let range = format!("from=2026-01-31T00:00:00Z&to=2036-01-01T00:00:00Z&subject={subject}");
                let body = get(&format!("/v1/meters/calls/usage?{range}")).await;
                let select = Select {
                    subjects: vec![(*subject).to_owned()],
                    from_us: 0,
                    to_us: i64::MAX,
                    ..Select::default()
                };
                let expected = self.oracle.total(&meter(None), &select);
                let found = body["data"][0]["value"].as_str().unwrap_or("0");
                assert_eq!(Some(found), expected.as_deref(), "{subject}: {body}");
            }
            for invoice in assert_invoices(door, key, &self.invoices[customer]).await {
                numbers.insert(invoice["number"].as_str().expect("a number").to_owned());
            }
        }
        let made: usize = self.invoices.iter().map(Vec::len).sum();
        let expected: BTreeSet<_> = (1..=made).map(|n| format!("INV-{n:06}")).collect();
        assert_eq!(numbers, expected, "the numbers of invoices");
    }
}
