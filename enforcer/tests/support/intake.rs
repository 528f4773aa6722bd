use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use turnpike_domain::event::EventBatch;
use turnpike_domain::identity::{EventName, MeterId, TenantId};
use turnpike_domain::meter::aggregate::SampleValue;
use turnpike_domain::meter::{Fields, Readers};
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::directory::Directory as _;
use turnpike_domain::port::intake::{
    Correction, Expect, Hold, Intake, Known, Outcome, QuotaOutcome, QuotaRecord, Rejection,
};
use turnpike_domain::port::usage::{
    Derivation, GroupTotal, TotalRequest, Totals, Underivable, UsageChange, UsageListener, UsageReader,
};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::record::{EventRecord, Position, Record, Watermark, decode, encode};
use turnpike_domain::time::{TimeRange, Timestamp};

use super::{FakeDirectory, TENANT};

/// How the world misbehaves. Rates are one in so many; 0 never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub seed: u64,
    /// Delays of up to this many microseconds before and behind each call.
    pub delay_us_max: u64,
    /// Nothing is kept.
    pub fail_before: u64,
    /// The record is kept and applied, and its caller is told a failure.
    pub fail_after: u64,
}

/// One partition owner with its sums.
pub struct FakeLog {
    directory: Arc<FakeDirectory>,
    faults: Faults,
    random: AtomicU64,
    state: Mutex<State>,
    listener: Mutex<Option<Arc<dyn UsageListener>>>,
    pub failed: AtomicU64,
    pub reads: AtomicU64,
    /// Stretches of time that were summed up.
    pub parts: AtomicU64,
}

#[derive(Default)]
struct State {
    next: u64,
    names: HashMap<EventName, Known>,
    events: Vec<(MeterId, String, Timestamp, Quantity)>,
    granted: Vec<(String, String)>,
}

impl FakeLog {
    pub fn new(directory: Arc<FakeDirectory>, faults: Faults) -> Arc<Self> {
        Arc::new(Self {
            directory,
            faults,
            random: AtomicU64::new(faults.seed),
            state: Mutex::default(),
            listener: Mutex::default(),
            failed: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            parts: AtomicU64::new(0),
        })
    }

    pub fn listen(&self, listener: Arc<dyn UsageListener>) {
        *self.listener.lock() = Some(listener);
    }

    /// SplitMix64.
    fn draw(&self) -> u64 {
        let mut z = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    async fn delay(&self) {
        match self.faults.delay_us_max {
            0 => tokio::task::yield_now().await,
            max => tokio::time::sleep(Duration::from_micros(self.draw() % max)).await,
        }
    }

    fn fails(&self, one_in: u64) -> bool {
        let fails = one_in > 0 && self.draw().is_multiple_of(one_in);
        self.failed.fetch_add(u64::from(fails), Ordering::SeqCst);
        fails
    }

    /// A plain event, as the gateway would send it; a negative one takes back.
    pub fn plain(&self, kind: &str, subject: &str, time: Timestamp, data: &str, sign: i128) {
        let event = EventRecord {
            tenant: TENANT.0,
            source: "app",
            id: "",
            kind,
            subject,
            time_us: time.micros(),
            time_sent: true,
            received_us: time.micros(),
            data,
            extensions: "",
            grant: None,
        };
        let mut state = self.state.lock();
        self.apply(&mut state, &event, None, sign);
    }

    /// Tokens used by plain events.
    pub fn tokens(&self, subject: &str, time: Timestamp, amount: i64) {
        self.plain(
            "tokens.used",
            subject,
            time,
            &format!("{{\"n\":{}}}", amount.abs()),
            i128::from(amount.signum()),
        );
    }

    fn apply(&self, state: &mut State, event: &EventRecord<'_>, hold: Option<&Hold>, sign: i128) {
        let readers = Readers::new(self.directory.meters()).unwrap();
        let Some(reader) = readers.of(event.kind) else {
            return;
        };
        let mut changes = Vec::new();
        reader.read(event, &mut Fields::default(), |at, reading| {
            let amount = match reading.unwrap().sample.value {
                SampleValue::Number(amount) => amount,
                _ => Quantity::ONE,
            };
            changes.push((at.id, Quantity::from_parts(amount.parts() * sign).unwrap()));
        });
        let time = Timestamp::from_micros_clamped(event.time_us);
        let told: Vec<_> = changes
            .iter()
            .map(|(meter, amount)| UsageChange {
                tenant: TENANT,
                meter: *meter,
                subject: event.subject,
                time,
                amount: *amount,
                hold,
            })
            .collect();
        for (meter, amount) in &changes {
            state
                .events
                .push((*meter, event.subject.to_owned(), time, *amount));
        }
        let listener = self.listener.lock().clone();
        if let Some(listener) = listener {
            listener.applied(&told);
        }
    }

    /// Ids and data of the events that decisions made.
    pub fn granted(&self) -> Vec<(String, String)> {
        self.state.lock().granted.clone()
    }

    /// All that a meter counted for subjects.
    pub fn total(&self, meter: &str, subjects: &[&str]) -> Quantity {
        let id = self.directory.catalog(TENANT).meters[meter].id;
        let state = self.state.lock();
        let ours = state
            .events
            .iter()
            .filter(|(meter, subject, ..)| *meter == id && subjects.contains(&subject.as_str()));
        ours.fold(Quantity::ZERO, |sum, event| sum.checked_add(event.3).unwrap())
    }

    fn write(&self, quota: &QuotaRecord) -> QuotaOutcome {
        let mut state = self.state.lock();
        let known = state.names.get(&quota.name).cloned();
        let free = known
            .as_ref()
            .is_none_or(|known| matches!(decode(&known.record).unwrap(), Record::Released { .. }));
        let expected = match quota.expect {
            Expect::Free => free,
            Expect::At(position) => known.as_ref().is_some_and(|known| known.position == position),
        };
        if !expected {
            return QuotaOutcome::Occupied(known.unwrap());
        }
        let record = decode(&quota.record).unwrap();
        state.next += 1;
        let position = Position(state.next);
        let entry = Known {
            position,
            digest: quota.digest,
            record: quota.record.clone(),
            first: None,
        };
        state.names.insert(quota.name, entry);
        if let Record::Event(event) | Record::Committed { event, .. } = &record {
            state.granted.push((event.id.to_owned(), event.data.to_owned()));
            self.apply(&mut state, event, quota.hold.as_ref(), 1);
        }
        QuotaOutcome::Written(position)
    }
}

fn unavailable() -> Problem {
    Problem::new(Code::Unavailable, "a fault on purpose")
}

impl Intake for FakeLog {
    fn submit(&self, _: Arc<EventBatch>) -> BoxFuture<'_, Result<Vec<Outcome>, Problem>> {
        unreachable!("the quota engine submits no batches")
    }

    fn correct(
        &self,
        name: EventName,
        _: Correction,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Known>, Problem>> {
        Box::pin(async move {
            let mut state = self.state.lock();
            let Some(known) = state.names.get(&name).cloned() else {
                return Ok(None);
            };
            let (Record::Event(event) | Record::Committed { event, .. }) = decode(&known.record).unwrap()
            else {
                return Ok(Some(known));
            };
            self.apply(&mut state, &event, None, -1);
            let mut record = Vec::new();
            let void = Record::Void {
                at_us: now.micros(),
                first: known.position.0,
                before: event,
            };
            encode(&void, &mut record);
            state.next += 1;
            let voided = Known {
                position: Position(state.next),
                digest: known.digest,
                record,
                first: Some(known.record.clone()),
            };
            state.names.insert(name, voided.clone());
            Ok(Some(voided))
        })
    }

    fn reject(&self, _: Vec<Rejection>) -> BoxFuture<'_, Result<Vec<Position>, Problem>> {
        unreachable!("the quota engine rejects no events")
    }

    fn resolve(&self, _: TenantId, _: Position) -> BoxFuture<'_, Result<(), Problem>> {
        unreachable!("the quota engine resolves no dead letters")
    }

    fn quota(&self, record: QuotaRecord) -> BoxFuture<'_, Result<QuotaOutcome, Problem>> {
        Box::pin(async move {
            self.delay().await;
            if self.fails(self.faults.fail_before) {
                return Err(unavailable());
            }
            let outcome = self.write(&record);
            drop(record);
            self.delay().await;
            if self.fails(self.faults.fail_after) {
                return Err(unavailable());
            }
            Ok(outcome)
        })
    }

    fn lookup(&self, names: Vec<EventName>) -> BoxFuture<'_, Result<Vec<Option<Known>>, Problem>> {
        Box::pin(async move {
            self.delay().await;
            let state = self.state.lock();
            Ok(names.iter().map(|name| state.names.get(name).cloned()).collect())
        })
    }
}

impl UsageReader for FakeLog {
    fn totals(
        &self,
        _: TenantId,
        requests: Vec<TotalRequest>,
        at_cut: Option<Box<dyn FnOnce() + Send>>,
    ) -> BoxFuture<'_, Result<Totals, Problem>> {
        Box::pin(async move {
            self.delay().await;
            self.reads.fetch_add(1, Ordering::SeqCst);
            let meters = self.directory.catalog(TENANT).meters.clone();
            let rows = {
                let state = self.state.lock();
                if let Some(at_cut) = at_cut {
                    at_cut();
                }
                let rows = requests.iter().map(|request| {
                    let meter = meters[&request.meter].id;
                    self.parts
                        .fetch_add(request.parts().len() as u64, Ordering::SeqCst);
                    let row = |part: TimeRange| GroupTotal {
                        group: Vec::new(),
                        value: Some(sum(&state, meter, request, part)),
                    };
                    request.parts().into_iter().map(row).collect()
                });
                rows.collect()
            };
            self.delay().await;
            Ok(Totals {
                rows,
                watermark: Watermark::default(),
            })
        })
    }

    fn totals_from_log(
        &self,
        _: Vec<Derivation>,
    ) -> BoxFuture<'_, Result<Vec<Result<Totals, Underivable>>, Problem>> {
        unreachable!("the quota engine verifies no invoices")
    }

    fn open_reservations(&self) -> BoxFuture<'_, Result<Vec<Vec<u8>>, Problem>> {
        Box::pin(async move {
            let state = self.state.lock();
            let ordered: BTreeMap<_, _> = state
                .names
                .values()
                .map(|known| (known.position, known))
                .collect();
            let open = ordered
                .values()
                .filter(|known| matches!(decode(&known.record).unwrap(), Record::Reserved(_)));
            Ok(open.map(|known| known.record.clone()).collect())
        })
    }
}

fn sum(state: &State, meter: MeterId, request: &TotalRequest, part: TimeRange) -> Quantity {
    let counts = |(id, subject, time, _): &&(MeterId, String, Timestamp, Quantity)| {
        let spans = request.subjects.iter().filter(|span| span.subject == *subject);
        *id == meter && part.contains(*time) && spans.map(|span| span.span).any(|span| span.contains(*time))
    };
    let ours = state.events.iter().filter(counts);
    ours.fold(Quantity::ZERO, |sum, event| sum.checked_add(event.3).unwrap())
}
