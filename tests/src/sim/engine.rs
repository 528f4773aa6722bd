use std::sync::Arc;
use std::time::Duration;

use axum::routing::Router;
use serde_json::{Value, json};
use turnpike_aggregator::{Aggregator, Options, Parts, rows};
use turnpike_billing_sync::{BillingOptions, BillingParts, BillingSync};
use turnpike_domain::event::EventBatch;
use turnpike_domain::identity::{NameKey, TenantId};
use turnpike_domain::port::StoreError;
use turnpike_domain::port::control::ControlStore as _;
use turnpike_domain::port::intake::{Correction, Intake as _, Outcome};
use turnpike_domain::port::log::{EventLog as _, LogHealth};
use turnpike_domain::port::usage::{Derivation, SubjectSpan, TotalRequest, Totals, UsageReader as _};
use turnpike_domain::port::views::Views;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::record::{EventRecord, Watermark};
use turnpike_domain::time::{Clock, Randomness, TimeRange, Timestamp};
use turnpike_enforcer::{Enforcer, EnforcerParts};
use turnpike_stores::embedded::log::{LogOptions, SegmentedLog};
use turnpike_stores::embedded::views::{EmbeddedViews, ViewsOptions};
use turnpike_stores::fault::{FailPoints, FaultDisk};
use turnpike_stores::machine::{ManualClock, SeededRandomness, TenantClock};
use turnpike_stores::sql::{SqlPlace, SqlStore};

use crate::commerce::START;
use crate::door::Door as _;
use crate::oracle::{Oracle, OracleEvent, OracleMeter, Select};

use super::hatch::{Hatch, router};

/// 2026-01-01T00:00:00Z: the three days behind it have all events.
pub(super) const START_US: i64 = 1_767_225_600_000_000;
const DAYS_US: i64 = 3 * 86_400_000_000;
/// One meter of each aggregation, whose key is its name.
const METERS: [&str; 9] = [
    "count",
    "sum",
    "max",
    "unique_count",
    "min",
    "avg",
    "latest",
    "percentile",
    "time_weighted_sum",
];
/// The meters that are compared after every step; all are at a restart.
pub(super) const QUICK: usize = 2;

/// The whole engine but its sockets, on a disk that fails and a clock that jumps.
pub(super) struct Engine {
    pub(super) disk: FaultDisk,
    seed: u64,
    partitions: u32,
    /// How often it was started: identifiers of a life differ from those of the life before.
    lives: u64,
    clock: Arc<ManualClock>,
    /// For the control store, which brings its own disk.
    directory: tempfile::TempDir,
    running: Option<Running>,
}

struct Running {
    log: Arc<SegmentedLog>,
    views: Vec<Arc<EmbeddedViews>>,
    sql: SqlStore,
    key: NameKey,
    aggregator: Arc<Aggregator>,
    enforcer: Arc<Enforcer>,
    billing: Arc<BillingSync>,
    router: Router,
    /// Something failed: the engine goes on, but the test restarts it, for every failure here is one that was injected.
    failed: bool,
}

impl Engine {
    /// An engine with plain tenants, which count the simulation's events, and a test tenant with its own clock.
    pub(super) async fn new(seed: u64, tenants: u32, partitions: u32) -> Self {
        let start = Timestamp::from_micros(START_US + DAYS_US).expect("a time");
        let mut engine = Self {
            disk: FaultDisk::new(seed),
            seed,
            partitions,
            lives: 0,
            clock: Arc::new(ManualClock::new(start)),
            directory: control_directory(),
            running: None,
        };
        let opened = engine.open(FailPoints::default()).await;
        engine.running = Some(opened.expect("nothing fails yet"));
        engine.declare(tenants).await;
        engine
    }

    async fn declare(&self, tenants: u32) {
        let must = async |tenant: u32, method, path: &str, body: Value| {
            let answer = self.hatch(tenant).call(method, path, Some(&body)).await;
            let (status, answer) = answer.expect("nothing fails yet");
            assert!((200..300).contains(&status), "{path}: {status} {answer}");
        };
        for tenant in 1..tenants {
            must(0, "POST", "/v1/tenants", json!({"key": format!("t{tenant}")})).await;
        }
        let lab = json!({"key": "lab", "test": true, "clock": START});
        must(0, "POST", "/v1/tenants", lab).await;
        for tenant in 0..tenants {
            for aggregation in METERS {
                let mut meter = json!({"event_type": "t", "aggregation": aggregation});
                if aggregation != "count" {
                    meter["value"] = json!("$.v");
                }
                if aggregation == "percentile" {
                    meter["percentile"] = json!("75");
                }
                must(tenant, "PUT", &format!("/v1/meters/{aggregation}"), meter).await;
            }
        }
    }

    /// The way in for tenant number `tenant`, counted from 0.
    pub(super) fn hatch(&self, tenant: u32) -> Hatch {
        Hatch {
            router: self.running().router.clone(),
            tenant: TenantId(tenant + 1),
        }
    }

    async fn open(&mut self, fail: FailPoints) -> Result<Running, Problem> {
        self.lives += 1;
        let fail = Arc::new(fail);
        let clocks = Arc::new(TenantClock::new(Arc::<ManualClock>::clone(&self.clock)));
        let seed = self.seed.wrapping_mul(1_000).wrapping_add(self.lives);
        let randomness: Arc<dyn Randomness> = Arc::new(SeededRandomness::new(seed, clocks.clone()));
        let place = SqlPlace::File(self.directory.path().join("control.db"));
        let sql = SqlStore::open(&place, clocks.clone(), Arc::clone(&randomness), Arc::clone(&fail)).await?;
        sql.first_start(None, &|_| Ok(())).await?;
        let (log, views) = self.open_stores(&clocks, randomness.as_ref(), &fail)?;
        let key = sql.name_key();
        let shared = Arc::new(sql.clone());
        let enforcer = Enforcer::new(EnforcerParts {
            directory: shared.clone(),
            clock: clocks.clone(),
            key,
        });
        let parts = Parts {
            log: Arc::<SegmentedLog>::clone(&log),
            views: views
                .iter()
                .map(|views| Arc::clone(views) as Arc<dyn Views>)
                .collect(),
            directory: shared.clone(),
            listener: enforcer.clone(),
            clock: clocks.clone(),
            key,
            // Checkpoints are steps of the simulation.
            options: Options {
                checkpoint_interval_us: u64::MAX,
                ..Options::default()
            },
        };
        let aggregator = Aggregator::start(parts)?;
        sql.listen(aggregator.clone());
        sql.listen(enforcer.clone());
        enforcer.connect(aggregator.clone(), aggregator.clone()).await?;
        let billing = BillingSync::start(BillingParts {
            directory: shared.clone(),
            control: shared.clone(),
            store: shared,
            usage: aggregator.clone(),
            clock: clocks.clone(),
            randomness: Arc::clone(&randomness),
            options: BillingOptions {
                check_interval_s: 0,
                ..BillingOptions::default()
            },
        });
        let router = router(&sql, &aggregator, &enforcer, &billing, &clocks, &randomness);
        Ok(Running {
            log,
            views,
            sql,
            key,
            aggregator,
            enforcer,
            billing,
            router,
            failed: false,
        })
    }

    /// Log and views on the disk that fails. The log seals nothing by itself, and nothing is merged behind the scenes.
    fn open_stores(
        &self,
        clocks: &Arc<TenantClock>,
        randomness: &dyn Randomness,
        fail: &Arc<FailPoints>,
    ) -> Result<(Arc<SegmentedLog>, Vec<Arc<EmbeddedViews>>), StoreError> {
        let disk = Arc::new(self.disk.clone());
        let options = LogOptions {
            segment_bytes: 64 * 1024,
            ahead_bytes: 16 * 1024,
            tick: Duration::from_hours(1),
            ..LogOptions::new("/log")
        };
        let log = SegmentedLog::open(
            options,
            disk.clone(),
            clocks.clone(),
            randomness,
            Arc::clone(fail),
        )?;
        let view = |partition| {
            let options = ViewsOptions {
                background: false,
                ..ViewsOptions::new("/views", partition)
            };
            EmbeddedViews::open(options, rows::merge(), disk.clone(), Arc::clone(fail))
        };
        let views: Result<Vec<_>, _> = (0..self.partitions).map(view).collect();
        Ok((log, views?))
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("a running engine")
    }

    /// Ends the process and starts it again on what the disk kept; a fail point may be armed, and may end the start.
    pub(super) async fn restart(&mut self, power_lost: bool, fail_point: Option<&str>) {
        self.disk = if power_lost {
            self.disk.crash()
        } else {
            self.disk.kill()
        };
        self.disk.set_capacity(1 << 50);
        if let Some(running) = self.running.take() {
            // Its handles of the disk's earlier life fail; it only has to let go of its threads.
            running.billing.stop().await;
            let _ = running.aggregator.shutdown().await;
            let _ = running.log.close();
            let _ = running.sql.close().await;
        }
        let armed = fail_point.map_or_else(FailPoints::default, |text| {
            FailPoints::parse(text).expect("a fail point")
        });
        let opened = match self.open(armed).await {
            Ok(running) => running,
            Err(problem) if fail_point.is_some() => {
                let again = self.open(FailPoints::default()).await;
                again.unwrap_or_else(|again| panic!("{again}, after {problem}"))
            }
            Err(problem) => panic!("it does not start: {problem}"),
        };
        self.running = Some(opened);
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

    /// What the quota engine does about once a second.
    pub(super) async fn tick(&mut self) -> bool {
        let done = self.running().enforcer.tick().await.is_ok();
        self.fail_unless(done);
        done
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

    pub(super) fn fail_unless(&mut self, good: bool) {
        if let Some(running) = &mut self.running {
            running.failed |= !good;
        }
    }

    pub(super) async fn submit(&mut self, tenant: u32, events: &[OracleEvent]) -> Result<Vec<Outcome>, Code> {
        let (mut batch, key) = (EventBatch::default(), self.running().key);
        for event in events {
            let data = event.data.to_string();
            batch.push(&key, &record(tenant, event, &data));
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
        let name = self
            .running()
            .key
            .name(TenantId(tenant + 1), &event.source, &event.id);
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

    /// The first `meters` totals, of all events.
    pub(super) async fn totals(&self, tenant: u32, meters: usize) -> Vec<Option<String>> {
        let requests = requests(meters);
        let read = self
            .running()
            .aggregator
            .totals(TenantId(tenant + 1), requests, None)
            .await;
        values(read.expect("totals can be read"))
    }

    /// All totals from the raw log alone.
    pub(super) async fn totals_from_log(&self, tenant: u32) -> Vec<Option<String>> {
        let (aggregator, tenant) = (&self.running().aggregator, TenantId(tenant + 1));
        let now = aggregator.totals(tenant, requests(METERS.len()), None).await;
        let watermark: Watermark = now.expect("totals can be read").watermark;
        let derivation = Derivation {
            tenant,
            requests: requests(METERS.len()),
            watermark,
        };
        let read = aggregator.totals_from_log(vec![derivation]).await;
        let totals = read.expect("the log can be read").pop();
        values(totals.expect("one answer for each").expect("the log has all"))
    }
}

/// In memory where the machine has such a file system: the loss of power is not simulated for the control store, so its
/// syncs would only take time.
fn control_directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a directory")
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

fn requests(meters: usize) -> Vec<TotalRequest> {
    let start = Timestamp::from_micros(START_US).expect("a time");
    let range = TimeRange::new(start, start.plus_micros(DAYS_US));
    let subjects = (0..4).map(|n| SubjectSpan {
        subject: format!("s{n}"),
        span: TimeRange::ALL,
    });
    let subjects: Vec<_> = subjects.collect();
    let request = |key: &&str| TotalRequest {
        meter: (*key).to_owned(),
        subjects: subjects.clone(),
        range,
        cuts: Vec::new(),
        filter: Vec::new(),
        group_by: Vec::new(),
    };
    METERS[..meters].iter().map(request).collect()
}

fn values(totals: Totals) -> Vec<Option<String>> {
    let value =
        |rows: &Vec<turnpike_domain::port::usage::GroupTotal>| rows[0].value.map(|value| value.to_string());
    totals.rows.iter().map(value).collect()
}

/// What the oracle says of the first `meters`.
pub(super) fn expected(oracle: &Oracle, meters: usize) -> Vec<Option<String>> {
    let select = Select {
        from_us: START_US,
        to_us: START_US + DAYS_US,
        ..Select::default()
    };
    let total = |key: &&str| {
        let meter = OracleMeter {
            event_type: "t".to_owned(),
            aggregation: (*key).to_owned(),
            value: (*key != "count").then(|| "v".to_owned()),
            percentile: (*key == "percentile").then(|| "75".to_owned()),
            ..OracleMeter::default()
        };
        oracle.total(&meter, &select)
    };
    METERS[..meters].iter().map(total).collect()
}

/// How many meters there are.
pub(super) const fn all_meters() -> usize {
    METERS.len()
}
