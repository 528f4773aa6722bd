use std::sync::Arc;
use std::time::Duration;

use turnpike_aggregator::{Aggregator, Options, Parts, rows};
use turnpike_domain::event::EventBatch;
use turnpike_domain::identity::{NameKey, TenantId};
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::intake::{Correction, Intake as _, Outcome};
use turnpike_domain::port::log::{EventLog as _, LogHealth};
use turnpike_domain::port::usage::{NoListener, SubjectSpan, TotalRequest, Totals, UsageReader as _};
use turnpike_domain::port::views::Views;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::record::{EventRecord, Watermark};
use turnpike_domain::time::{Clock, TimeRange, Timestamp};
use turnpike_stores::embedded::log::{LogOptions, SegmentedLog};
use turnpike_stores::embedded::views::{EmbeddedViews, ViewsOptions};
use turnpike_stores::fault::{FailPoints, FaultDisk};
use turnpike_stores::machine::{ManualClock, SeededRandomness};

use super::declared::Declared;
use crate::oracle::{Oracle, OracleEvent, OracleMeter, Select};

/// 2026-01-01T00:00:00Z: the three days behind it have all events.
pub(super) const START_US: i64 = 1_767_225_600_000_000;
const DAYS_US: i64 = 3 * 86_400_000_000;
const KEY: NameKey = NameKey([3; 16]);
const METERS: [(&str, Aggregation); 4] = [
    ("count", Aggregation::Count),
    ("sum", Aggregation::Sum),
    ("max", Aggregation::Max),
    ("unique_count", Aggregation::UniqueCount),
];

/// The parts of the engine that stand between an event and its total, on a disk that fails.
pub(super) struct Engine {
    pub(super) disk: FaultDisk,
    seed: u64,
    partitions: u32,
    clock: Arc<ManualClock>,
    directory: Arc<Declared>,
    running: Option<Running>,
}

struct Running {
    log: Arc<SegmentedLog>,
    views: Vec<Arc<EmbeddedViews>>,
    aggregator: Arc<Aggregator>,
    /// A checkpoint or merge failed: the engine goes on, but the test restarts it, for every failure here is the disk's.
    failed: bool,
}

impl Engine {
    pub(super) fn new(seed: u64, tenants: u32, partitions: u32) -> Self {
        let start = Timestamp::from_micros(START_US + DAYS_US).expect("a time");
        let mut engine = Self {
            disk: FaultDisk::new(seed),
            seed,
            partitions,
            clock: Arc::new(ManualClock::new(start)),
            directory: Arc::new(Declared::new(tenants, &METERS)),
            running: None,
        };
        engine.running = Some(engine.open());
        engine
    }

    fn open(&self) -> Running {
        let (disk, fail) = (Arc::new(self.disk.clone()), Arc::new(FailPoints::default()));
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        let options = LogOptions {
            segment_bytes: 64 * 1024,
            ahead_bytes: 16 * 1024,
            tick: Duration::from_hours(1),
            ..LogOptions::new("/log")
        };
        let randomness = SeededRandomness::new(self.seed, Arc::clone(&clock));
        let log = SegmentedLog::open(
            options,
            disk.clone(),
            Arc::clone(&clock),
            &randomness,
            Arc::clone(&fail),
        );
        let log = log.expect("the log opens");
        let view = |partition| {
            let options = ViewsOptions {
                background: false,
                ..ViewsOptions::new("/views", partition)
            };
            EmbeddedViews::open(options, rows::merge(), disk.clone(), Arc::clone(&fail))
                .expect("the views open")
        };
        let views: Vec<_> = (0..self.partitions).map(view).collect();
        let parts = Parts {
            log: Arc::<SegmentedLog>::clone(&log),
            views: views
                .iter()
                .map(|views| Arc::clone(views) as Arc<dyn Views>)
                .collect(),
            directory: Arc::<Declared>::clone(&self.directory),
            listener: Arc::new(NoListener),
            clock,
            key: KEY,
            // Checkpoints are steps of the simulation.
            options: Options {
                checkpoint_interval_us: u64::MAX,
                ..Options::default()
            },
        };
        let aggregator = Aggregator::start(parts).expect("the aggregator starts");
        Running {
            log,
            views,
            aggregator,
            failed: false,
        }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("a running engine")
    }

    /// Ends the process and starts it again on what the disk kept.
    pub(super) async fn restart(&mut self, power_lost: bool) {
        self.disk = if power_lost {
            self.disk.crash()
        } else {
            self.disk.kill()
        };
        if let Some(running) = self.running.take() {
            // Its handles of the disk's earlier life fail; it only has to let go of its threads.
            let _ = running.aggregator.shutdown().await;
            let _ = running.log.close();
        }
        self.running = Some(self.open());
    }

    /// Whether nothing has failed for good.
    pub(super) fn is_sound(&self) -> bool {
        let running = self.running();
        !running.failed && !matches!(running.log.health(), LogHealth::Poisoned(_))
    }

    pub(super) fn jump(&self, us: i64) {
        let at = self.clock.machine_now().plus_micros(us);
        self.clock.set(at);
    }

    pub(super) async fn checkpoint(&mut self) -> bool {
        let done = self.running().aggregator.checkpoint().await.is_ok();
        self.fail_unless(done);
        done
    }

    pub(super) fn merge(&mut self) -> Option<usize> {
        let merges: Result<usize, _> = self.running().views.iter().map(|views| views.merge_all()).sum();
        self.fail_unless(merges.is_ok());
        merges.ok()
    }

    fn fail_unless(&mut self, good: bool) {
        if let Some(running) = &mut self.running {
            running.failed |= !good;
        }
    }

    pub(super) async fn submit(&mut self, tenant: u32, events: &[OracleEvent]) -> Result<Vec<Outcome>, Code> {
        let mut batch = EventBatch::default();
        for event in events {
            let data = event.data.to_string();
            batch.push(&KEY, &record(tenant, event, &data));
        }
        let outcome = self
            .running()
            .aggregator
            .submit(Arc::new(batch))
            .await
            .map_err(|problem| problem.code);
        self.fail_unless(outcome.is_ok());
        outcome
    }

    /// Whether there was such an event, and one that takes the change.
    pub(super) async fn correct(
        &mut self,
        tenant: u32,
        event: &OracleEvent,
        change: Correction,
    ) -> Result<bool, Code> {
        let name = KEY.name(TenantId(tenant + 1), &event.source, &event.id);
        match self
            .running()
            .aggregator
            .correct(name, change, self.clock.machine_now())
            .await
        {
            Ok(known) => Ok(known.is_some()),
            Err(Problem {
                code: Code::EventVoided,
                ..
            }) => Ok(false),
            Err(problem) => {
                self.fail_unless(false);
                Err(problem.code)
            }
        }
    }

    pub(super) async fn totals(&self, tenant: u32) -> Vec<Option<String>> {
        let read = self
            .running()
            .aggregator
            .totals(TenantId(tenant + 1), requests(), None)
            .await;
        values(read.expect("totals can be read"))
    }

    pub(super) async fn totals_from_log(&self, tenant: u32) -> Vec<Option<String>> {
        let now = self
            .running()
            .aggregator
            .totals(TenantId(tenant + 1), requests(), None)
            .await;
        let watermark: Watermark = now.expect("totals can be read").watermark;
        let read = self
            .running()
            .aggregator
            .totals_from_log(TenantId(tenant + 1), requests(), watermark)
            .await;
        values(read.expect("the log can be read"))
    }
}

fn record<'e>(tenant: u32, event: &'e OracleEvent, data: &'e str) -> EventRecord<'e> {
    EventRecord {
        tenant: tenant + 1,
        source: &event.source,
        id: &event.id,
        kind: &event.kind,
        subject: &event.subject,
        time_us: event.time_us,
        time_sent: true,
        received_us: event.time_us,
        data,
        extensions: "",
        grant: None,
    }
}

fn requests() -> Vec<TotalRequest> {
    let start = Timestamp::from_micros(START_US).expect("a time");
    let range = TimeRange::new(start, start.plus_micros(DAYS_US));
    let subjects = (0..4).map(|n| SubjectSpan {
        subject: format!("s{n}"),
        span: TimeRange::ALL,
    });
    let subjects: Vec<_> = subjects.collect();
    let request = |(key, _): &(&str, Aggregation)| TotalRequest {
        meter: (*key).to_owned(),
        subjects: subjects.clone(),
        range,
        filter: Vec::new(),
        group_by: Vec::new(),
    };
    METERS.iter().map(request).collect()
}

fn values(totals: Totals) -> Vec<Option<String>> {
    let value =
        |rows: &Vec<turnpike_domain::port::usage::GroupTotal>| rows[0].value.map(|value| value.to_string());
    totals.rows.iter().map(value).collect()
}

/// What the oracle says of the same meters.
pub(super) fn expected(oracle: &Oracle) -> Vec<Option<String>> {
    let select = Select {
        from_us: START_US,
        to_us: START_US + DAYS_US,
        ..Select::default()
    };
    let total = |(key, _): &(&str, Aggregation)| {
        let meter = OracleMeter {
            event_type: "t".to_owned(),
            aggregation: (*key).to_owned(),
            value: (*key != "count").then(|| "v".to_owned()),
            ..OracleMeter::default()
        };
        oracle.total(&meter, &select)
    };
    METERS.iter().map(total).collect()
}
