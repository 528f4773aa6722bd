use std::collections::BTreeMap;

use num_rational::BigRational;
use num_traits::Zero as _;
use serde_json::{Value, json};

use super::calendar::{calendar, month_period, zoned};
use super::{Oracle, OracleEvent, OracleMeter, Select, decimal, show};

/// The source of events that granted calls become.
pub const QUOTA_SOURCE: &str = "turnpike:quota";

/// What happens at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OracleMode {
    /// Nothing beyond it.
    Hard,
    /// So many per cent beyond it.
    Soft(u32),
    /// Any amount beyond it.
    Overage,
}

/// A limit of one customer.
#[derive(Debug, Clone)]
pub struct OracleLimit {
    /// Whose it is.
    pub customer: String,
    /// Whose events count against it: the customer's and those of all below it.
    pub subjects: Vec<String>,
    /// `second` to `month`, `billing` or `ever`.
    pub period: String,
    /// How much.
    pub limit: String,
    /// What happens at it.
    pub mode: OracleMode,
    /// The zone of its calendar windows.
    pub zone: String,
    /// Where `billing` windows are counted from, in microseconds since 1970.
    pub anchor_us: i64,
}

impl OracleLimit {
    fn window(&self, at_us: i64) -> (i64, i64) {
        match self.period.as_str() {
            "ever" => (0, i64::MAX),
            "billing" => {
                let (_, start, end) = month_period(self.anchor_us, &self.zone, at_us);
                (start, end)
            }
            unit => calendar(unit, &zoned(at_us, &self.zone)),
        }
    }

    /// The most that is granted; none: no bound.
    fn ceiling(&self) -> Option<BigRational> {
        let limit = decimal(&self.limit);
        match self.mode {
            OracleMode::Hard => Some(limit),
            OracleMode::Soft(percent) => Some(limit * decimal(&(100 + percent).to_string()) / decimal("100")),
            OracleMode::Overage => None,
        }
    }
}

/// What stands against a limit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// Whose limit it is.
    pub customer: String,
    /// Its window.
    pub period: String,
    /// What was used.
    pub used: String,
    /// What is held.
    pub reserved: String,
    /// What is left below the limit.
    pub remaining: String,
}

/// What became of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It holds its amount.
    Open,
    /// It became usage.
    Committed,
    /// It was given back.
    Released,
    /// Its time ran out.
    Expired,
}

#[derive(Debug, Clone)]
struct Reservation {
    subject: String,
    amount: BigRational,
    made_us: i64,
    expires_us: i64,
    fate: Fate,
}

/// Somebody asks for an amount.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The call's id.
    pub id: String,
    /// The subject that a grant counts for.
    pub subject: String,
    /// How much.
    pub amount: String,
    /// When it is decided, in microseconds since 1970.
    pub at_us: i64,
}

/// Quota decisions on one feature. What was used is read from the events each time; only reservations are kept.
#[derive(Debug, Clone)]
pub struct OracleQuota {
    meter: OracleMeter,
    reservations: BTreeMap<String, Reservation>,
}

impl OracleQuota {
    /// A feature that is counted by `meter`, a sum.
    pub fn new(meter: OracleMeter) -> Self {
        Self {
            meter,
            reservations: BTreeMap::new(),
        }
    }

    /// Used and reserved in the window of `limit` around an instant.
    fn counts(&self, oracle: &Oracle, limit: &OracleLimit, at_us: i64) -> (BigRational, BigRational) {
        let (from_us, to_us) = limit.window(at_us);
        let select = Select {
            subjects: limit.subjects.clone(),
            from_us,
            to_us,
            ..Select::default()
        };
        let used = oracle.total(&self.meter, &select);
        let held = self.reservations.values().filter(|one| {
            one.fate == Fate::Open
                && limit.subjects.contains(&one.subject)
                && (from_us..to_us).contains(&one.made_us)
        });
        let held = held.map(|one| &one.amount).sum();
        (used.map_or_else(BigRational::zero, |text| decimal(&text)), held)
    }

    /// What stands against each limit.
    pub fn standing(&self, oracle: &Oracle, limits: &[OracleLimit], at_us: i64) -> Vec<Standing> {
        let stand = |limit: &OracleLimit| {
            let (used, reserved) = self.counts(oracle, limit, at_us);
            let remaining = (decimal(&limit.limit) - &used - &reserved).max(BigRational::zero());
            Standing {
                customer: limit.customer.clone(),
                period: limit.period.clone(),
                used: show(&used, 12),
                reserved: show(&reserved, 12),
                remaining: show(&remaining, 12),
            }
        };
        let mut standing: Vec<_> = limits.iter().map(stand).collect();
        standing.sort();
        standing
    }

    /// Whether so much more fits below all limits.
    pub fn admits(&self, oracle: &Oracle, limits: &[OracleLimit], amount: &str, at_us: i64) -> bool {
        limits.iter().all(|limit| {
            let (used, reserved) = self.counts(oracle, limit, at_us);
            limit
                .ceiling()
                .is_none_or(|ceiling| used + reserved + decimal(amount) <= ceiling)
        })
    }

    fn event(&self, id: &str, subject: &str, amount: &str, time_us: i64) -> OracleEvent {
        let member = self.meter.value.clone().expect("a meter of values");
        let mut data = json!({});
        data[member] = Value::String(amount.to_owned());
        OracleEvent {
            source: QUOTA_SOURCE.to_owned(),
            id: id.to_owned(),
            kind: self.meter.event_type.clone(),
            subject: subject.to_owned(),
            time_us,
            data,
        }
    }

    /// Takes an amount where all limits allow it: a grant is an event from then on.
    pub fn consume(&mut self, oracle: &mut Oracle, limits: &[OracleLimit], ask: &Ask) -> bool {
        let granted = self.admits(oracle, limits, &ask.amount, ask.at_us);
        if granted {
            oracle.send(self.event(&ask.id, &ask.subject, &ask.amount, ask.at_us));
        }
        granted
    }

    /// Holds an amount until `expires_us` where all limits allow it.
    pub fn reserve(&mut self, oracle: &Oracle, limits: &[OracleLimit], ask: &Ask, expires_us: i64) -> bool {
        let granted = self.admits(oracle, limits, &ask.amount, ask.at_us);
        if granted {
            let reservation = Reservation {
                subject: ask.subject.clone(),
                amount: decimal(&ask.amount),
                made_us: ask.at_us,
                expires_us,
                fate: Fate::Open,
            };
            self.reservations.insert(ask.id.clone(), reservation);
        }
        granted
    }

    /// Turns a reservation into usage of the time at which it was made; what is above it must fit, and once its time
    /// has run out, all of it must, as usage of `at_us`.
    pub fn commit(
        &mut self,
        oracle: &mut Oracle,
        limits: &[OracleLimit],
        id: &str,
        amount: &str,
        at_us: i64,
    ) -> bool {
        self.expire(at_us);
        let found = self.reservations[id].clone();
        let (beyond, time_us) = match found.fate {
            Fate::Open => (decimal(amount) - &found.amount, found.made_us),
            Fate::Expired => (decimal(amount), at_us),
            Fate::Committed | Fate::Released => return false,
        };
        if beyond > BigRational::zero() && !self.admits(oracle, limits, &show(&beyond, 12), time_us) {
            return false;
        }
        oracle.send(self.event(id, &found.subject, amount, time_us));
        self.end(id, Fate::Committed);
        true
    }

    /// Gives a reservation back.
    pub fn release(&mut self, id: &str, at_us: i64) {
        self.expire(at_us);
        if self.fate(id) == Some(Fate::Open) {
            self.end(id, Fate::Released);
        }
    }

    /// Ends what has run out of time.
    pub fn expire(&mut self, at_us: i64) {
        for one in self.reservations.values_mut() {
            if one.fate == Fate::Open && one.expires_us <= at_us {
                one.fate = Fate::Expired;
            }
        }
    }

    /// What became of a reservation; none: there is none.
    pub fn fate(&self, id: &str) -> Option<Fate> {
        self.reservations.get(id).map(|one| one.fate)
    }

    fn end(&mut self, id: &str, fate: Fate) {
        self.reservations.get_mut(id).expect("a reservation").fate = fate;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_US: i64 = 86_400_000_000;

    fn limit(period: &str, limit: &str, mode: OracleMode) -> OracleLimit {
        OracleLimit {
            customer: "c".into(),
            subjects: vec!["c".into(), "child".into()],
            period: period.into(),
            limit: limit.into(),
            mode,
            zone: "UTC".into(),
            anchor_us: 0,
        }
    }

    fn ask(id: &str, amount: &str, at_us: i64) -> Ask {
        Ask {
            id: id.into(),
            subject: "c".into(),
            amount: amount.into(),
            at_us,
        }
    }

    #[test]
    fn decisions_by_hand() {
        let meter = OracleMeter {
            event_type: "t".into(),
            aggregation: "sum".into(),
            value: Some("n".into()),
            ..OracleMeter::default()
        };
        let (mut oracle, mut quota) = (Oracle::default(), OracleQuota::new(meter));
        let limits = [
            limit("day", "10", OracleMode::Soft(20)),
            limit("ever", "20", OracleMode::Hard),
        ];
        assert!(quota.consume(&mut oracle, &limits, &ask("a", "8", 5)));
        assert!(!quota.consume(&mut oracle, &limits, &ask("b", "4.000000000001", 5)));
        assert!(quota.reserve(&oracle, &limits, &ask("r", "4", 5), 100));
        assert!(!quota.admits(&oracle, &limits, "0.1", 99));
        let standing = quota.standing(&oracle, &limits, 99);
        assert_eq!(
            (standing[0].used.as_str(), standing[0].reserved.as_str()),
            ("8", "4")
        );
        assert_eq!(
            (standing[0].remaining.as_str(), standing[1].remaining.as_str()),
            ("0", "8")
        );
        // The day after, only the limit that never resets has it.
        assert!(quota.commit(&mut oracle, &limits, "r", "3", 50));
        assert_eq!(quota.fate("r"), Some(Fate::Committed));
        assert!(quota.admits(&oracle, &limits, "9", DAY_US));
        assert!(!quota.admits(&oracle, &limits, "9.5", DAY_US));
        // What ran out is decided anew.
        assert!(quota.reserve(&oracle, &limits, &ask("s", "9", DAY_US), DAY_US + 1));
        assert!(
            quota.consume(&mut oracle, &limits, &ask("d", "9", DAY_US))
                == quota.admits(&oracle, &limits, "9", DAY_US)
        );
        assert!(!quota.commit(&mut oracle, &limits, "s", "12", DAY_US + 1));
        assert!(quota.commit(&mut oracle, &limits, "s", "9", DAY_US + 1));
        let standing = quota.standing(&oracle, &limits, DAY_US);
        assert_eq!(standing[1].used, "20");
    }
}
