use num_rational::BigRational;
use num_traits::Zero as _;

use super::calendar::month_boundary;
use super::price::{OraclePrice, fixed};
use super::{Oracle, OracleMeter, Select, decimal, show};

/// What comes so long after the end of a closed period, or before the next one ends, is corrected on the next invoice.
const LOOK_BACK_US: i64 = 35 * 86_400_000_000;

/// A price of a plan.
#[derive(Debug, Clone)]
pub struct OracleCharge {
    /// The price's key.
    pub key: String,
    /// What is counted; none for a flat price, which is charged at the end of the period.
    pub meter: Option<OracleMeter>,
    /// How much.
    pub price: OraclePrice,
}

/// What a subscription is charged for: monthly, in a currency with so many decimals.
#[derive(Debug, Clone)]
pub struct OraclePlan {
    /// Its prices.
    pub charges: Vec<OracleCharge>,
    /// What a period comes to at least.
    pub minimum_commitment: Option<String>,
    /// Decimals of the currency.
    pub places: u32,
}

/// A line of an invoice: kind, price and amount.
pub type OracleLine = (String, String, String);

/// An invoice as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OracleInvoice {
    /// Start of the period, in microseconds since 1970.
    pub start_us: i64,
    /// End of the period.
    pub end_us: i64,
    /// The lines in order of kind, price and amount.
    pub lines: Vec<OracleLine>,
    /// Their sum.
    pub total: String,
}

/// What was billed for a closed period: per charge, and for the commitment.
#[derive(Debug, Clone)]
struct Closed {
    start_us: i64,
    end_us: i64,
    charged: Vec<BigRational>,
    settled: BigRational,
}

/// A subscription that is billed period by period.
#[derive(Debug, Clone)]
pub struct OracleAccount {
    plan: OraclePlan,
    subjects: Vec<String>,
    zone: String,
    anchor_us: i64,
    closed: Vec<Closed>,
}

impl OracleAccount {
    /// A subscription whose start is its anchor.
    pub fn new(plan: OraclePlan, subjects: Vec<String>, zone: &str, anchor_us: i64) -> Self {
        Self {
            plan,
            subjects,
            zone: zone.to_owned(),
            anchor_us,
            closed: Vec::new(),
        }
    }

    /// When the next period to be closed ends.
    pub fn next_end_us(&self) -> i64 {
        month_boundary(self.anchor_us, &self.zone, self.closed.len() as i64 + 1)
    }

    /// Closes the next period with what is known now: its lines, and what has changed of earlier ones.
    pub fn close(&mut self, oracle: &Oracle) -> OracleInvoice {
        let start_us = month_boundary(self.anchor_us, &self.zone, self.closed.len() as i64);
        let end_us = self.next_end_us();
        let mut lines = Vec::new();
        let corrected: Vec<usize> = (0..self.closed.len())
            .filter(|at| self.closed[*at].end_us >= start_us - LOOK_BACK_US)
            .collect();
        for at in corrected {
            self.correct(oracle, at, &mut lines);
        }
        let charged = self.charges(oracle, start_us, end_us);
        for (charge, amount) in self.plan.charges.iter().zip(&charged) {
            let kind = if charge.meter.is_some() {
                "usage"
            } else {
                "recurring"
            };
            lines.push((kind, charge.key.clone(), amount.clone()));
        }
        let settled = self.missing(&charged);
        if !settled.is_zero() {
            lines.push(("minimum", "minimum_commitment".to_owned(), settled.clone()));
        }
        self.closed.push(Closed {
            start_us,
            end_us,
            charged,
            settled,
        });
        self.invoice(start_us, end_us, lines)
    }

    /// Lines for what a closed period costs now and was not billed.
    fn correct(&mut self, oracle: &Oracle, at: usize, lines: &mut Vec<(&'static str, String, BigRational)>) {
        let Closed { start_us, end_us, .. } = self.closed[at];
        let charged = self.charges(oracle, start_us, end_us);
        if charged == self.closed[at].charged {
            return;
        }
        let before = std::mem::replace(&mut self.closed[at].charged, charged.clone());
        for (charge, (now, before)) in self.plan.charges.iter().zip(charged.iter().zip(&before)) {
            if now != before {
                lines.push(("adjustment", charge.key.clone(), now - before));
            }
        }
        let missing = self.missing(&charged);
        let settled = std::mem::replace(&mut self.closed[at].settled, missing.clone());
        if missing != settled {
            lines.push(("adjustment", "minimum_commitment".to_owned(), missing - settled));
        }
    }

    /// What each charge comes to in a period, rounded once.
    fn charges(&self, oracle: &Oracle, from_us: i64, to_us: i64) -> Vec<BigRational> {
        let amount = |charge: &OracleCharge| {
            let quantity = charge.meter.as_ref().and_then(|meter| {
                let select = Select {
                    subjects: self.subjects.clone(),
                    from_us,
                    to_us,
                    ..Select::default()
                };
                oracle.total(meter, &select)
            });
            let quantity = quantity.map_or_else(BigRational::zero, |text| decimal(&text));
            decimal(&show(&charge.price.exact(&quantity), self.plan.places))
        };
        self.plan.charges.iter().map(amount).collect()
    }

    /// What a period that was charged so much lacks to the commitment.
    fn missing(&self, charged: &[BigRational]) -> BigRational {
        let Some(commitment) = &self.plan.minimum_commitment else {
            return BigRational::zero();
        };
        (decimal(commitment) - charged.iter().sum::<BigRational>()).max(BigRational::zero())
    }

    fn invoice(
        &self,
        start_us: i64,
        end_us: i64,
        lines: Vec<(&'static str, String, BigRational)>,
    ) -> OracleInvoice {
        let total: BigRational = lines.iter().map(|(.., amount)| amount).sum();
        let shown = |(kind, key, amount): (&str, String, BigRational)| {
            (kind.to_owned(), key, fixed(&amount, self.plan.places))
        };
        let mut lines: Vec<_> = lines.into_iter().map(shown).collect();
        lines.sort();
        OracleInvoice {
            start_us,
            end_us,
            lines,
            total: fixed(&total, self.plan.places),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::OracleEvent;

    #[test]
    fn invoices_by_hand() {
        let meter = OracleMeter {
            event_type: "t".into(),
            aggregation: "sum".into(),
            value: Some("n".into()),
            ..OracleMeter::default()
        };
        let charge = |key: &str, meter, price| OracleCharge {
            key: key.into(),
            meter,
            price,
        };
        let units = OraclePrice::PerUnit {
            unit_amount: "0.5".into(),
            included: "2".into(),
        };
        let plan = OraclePlan {
            charges: vec![
                charge("base", None, OraclePrice::Flat { amount: "3".into() }),
                charge("units", Some(meter), units),
            ],
            minimum_commitment: Some("5".into()),
            places: 2,
        };
        let day = 86_400_000_000;
        let event = |id: &str, day_of: i64, n: &str| OracleEvent {
            source: "s".into(),
            id: id.into(),
            kind: "t".into(),
            subject: "c".into(),
            time_us: day_of * day,
            data: serde_json::json!({ "n": n }),
        };
        let line = |kind: &str, key: &str, amount: &str| (kind.to_owned(), key.to_owned(), amount.to_owned());
        let mut oracle = Oracle::default();
        let mut account = OracleAccount::new(plan, vec!["c".into()], "UTC", 0);
        oracle.send(event("a", 3, "4"));
        let january = account.close(&oracle);
        assert_eq!((january.end_us, january.total.as_str()), (31 * day, "5.00"));
        assert_eq!(
            january.lines,
            [
                line("minimum", "minimum_commitment", "1.00"),
                line("recurring", "base", "3.00"),
                line("usage", "units", "1.00")
            ]
        );
        // Six more units of January are 3.00, of which 1.00 was billed already to make up the commitment.
        oracle.send(event("late", 4, "6"));
        oracle.send(event("b", 40, "6.01"));
        let february = account.close(&oracle);
        assert_eq!(february.end_us, 59 * day);
        assert_eq!(
            february.lines,
            [
                line("adjustment", "minimum_commitment", "-1.00"),
                line("adjustment", "units", "3.00"),
                line("recurring", "base", "3.00"),
                line("usage", "units", "2.01")
            ]
        );
        assert_eq!(february.total, "7.01");
        // March begins less than 35 days behind January's end.
        assert!(oracle.void("s", "late") && oracle.void("s", "b"));
        let march = account.close(&oracle);
        assert_eq!(
            march.lines,
            [
                line("adjustment", "minimum_commitment", "1.00"),
                line("adjustment", "minimum_commitment", "2.00"),
                line("adjustment", "units", "-2.01"),
                line("adjustment", "units", "-3.00"),
                line("minimum", "minimum_commitment", "2.00"),
                line("recurring", "base", "3.00"),
                line("usage", "units", "0.00")
            ]
        );
        // January has left the time that is looked back on.
        assert!(oracle.void("s", "a"));
        assert_eq!(
            account.close(&oracle).lines,
            [
                line("minimum", "minimum_commitment", "2.00"),
                line("recurring", "base", "3.00"),
                line("usage", "units", "0.00")
            ]
        );
    }
}
