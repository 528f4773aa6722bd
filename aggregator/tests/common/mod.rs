//! An aggregator over stores in memory, that can be restarted, and a directory that a test fills.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use parking_lot::RwLock;
use tower::ServiceExt as _;
use turnpike_aggregator::{Aggregator, Options, Parts, router, rows};
use turnpike_domain::catalog::{Catalog, Customer, Grant, Override, Subscription, Tenant};
use turnpike_domain::event::EventBatch;
use turnpike_domain::identity::{EventName, MeterId, NameKey, Scope, TenantId};
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::port::directory::{Directory, DirectoryChange, DirectoryListener as _};
use turnpike_domain::port::intake::{Intake as _, Outcome};
use turnpike_domain::port::log::EventLog;
use turnpike_domain::port::usage::{NoListener, SharedListener, SubjectSpan, TotalRequest, UsageReader as _};
use turnpike_domain::port::views::Views;
use turnpike_domain::problem::Problem;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::record::EventRecord;
use turnpike_domain::time::{TimeRange, Timestamp};
use turnpike_http::{Caller, RequestId};
use turnpike_stores::machine::ManualClock;
use turnpike_stores::memory::{MemoryLog, MemoryViews};

pub const TENANT: TenantId = TenantId(1);
pub const KEY: NameKey = NameKey([7; 16]);

/// Meters and customers as a test declares them.
#[derive(Default)]
pub struct Declared {
    catalogs: RwLock<BTreeMap<TenantId, Arc<Catalog>>>,
    customers: RwLock<BTreeMap<String, Arc<Customer>>>,
    /// Subject → customer.
    owners: RwLock<BTreeMap<String, String>>,
}

impl Declared {
    pub fn set(&self, tenant: TenantId, meters: &[Meter]) {
        let meters = meters
            .iter()
            .map(|m| (m.key.clone(), Arc::new(m.clone())))
            .collect();
        let catalog = Catalog {
            meters,
            ..Catalog::default()
        };
        self.catalogs.write().insert(tenant, Arc::new(catalog));
    }

    pub fn add_customer(&self, key: &str, subjects: &[&str]) {
        let json = serde_json::json!({"key": key, "name": key, "subjects": subjects});
        let customer = Arc::new(serde_json::from_value(json).unwrap());
        self.customers.write().insert(key.to_owned(), customer);
        for subject in subjects {
            self.owners.write().insert((*subject).to_owned(), key.to_owned());
        }
    }
}

impl Directory for Declared {
    fn tenant(&self, id: TenantId) -> Option<Arc<Tenant>> {
        Some(Arc::new(Tenant {
            id,
            key: format!("t{}", id.0),
            name: String::new(),
            test: false,
            clock: None,
            suspended: false,
            timezone: "UTC".to_owned(),
            calls_per_second: None,
        }))
    }

    fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.catalogs
            .read()
            .keys()
            .filter_map(|id| self.tenant(*id))
            .collect()
    }

    fn catalog(&self, tenant: TenantId) -> Arc<Catalog> {
        self.catalogs.read().get(&tenant).cloned().unwrap_or_default()
    }

    fn customer(&self, _: TenantId, key: &str) -> Option<Arc<Customer>> {
        self.customers.read().get(key).cloned()
    }

    fn customers_from(&self, _: TenantId, from: &str, number: usize) -> Vec<Arc<Customer>> {
        let customers = self.customers.read();
        let behind = customers.range(from.to_owned()..).take(number);
        behind.map(|(_, customer)| Arc::clone(customer)).collect()
    }

    fn customer_of_subject(&self, tenant: TenantId, subject: &str) -> Option<Arc<Customer>> {
        let owner = self.owners.read().get(subject).cloned()?;
        self.customer(tenant, &owner)
    }

    fn children(&self, _: TenantId, _: &str) -> Vec<Arc<Customer>> {
        Vec::new()
    }

    fn subscriptions(&self, _: TenantId, _: &str) -> Vec<Arc<Subscription>> {
        Vec::new()
    }

    fn subscription(&self, _: TenantId, _: &str) -> Option<Arc<Subscription>> {
        None
    }

    fn overrides(&self, _: TenantId, _: &str) -> Vec<Arc<Override>> {
        Vec::new()
    }

    fn grants(&self, _: TenantId, _: &str) -> Vec<Arc<Grant>> {
        Vec::new()
    }

    fn grant_holders(&self, _: TenantId, _: &str) -> Vec<Arc<Customer>> {
        Vec::new()
    }

    fn epoch(&self) -> u64 {
        0
    }
}

/// The stores, which outlive the aggregator.
pub struct World {
    pub log: Arc<MemoryLog>,
    pub views: Vec<Arc<MemoryViews>>,
    pub directory: Arc<Declared>,
    pub clock: Arc<ManualClock>,
    pub options: Options,
    pub listener: SharedListener,
    pub aggregator: Arc<Aggregator>,
}

impl World {
    pub fn new(partitions: usize, meters: &[Meter]) -> Self {
        Self::with(partitions, meters, Options::default(), Arc::new(NoListener))
    }

    pub fn with(partitions: usize, meters: &[Meter], options: Options, listener: SharedListener) -> Self {
        let log = Arc::new(MemoryLog::new());
        let views: Vec<_> = (0..partitions)
            .map(|_| Arc::new(MemoryViews::new(rows::merge())))
            .collect();
        let directory = Arc::new(Declared::default());
        directory.set(TENANT, meters);
        let clock = Arc::new(ManualClock::new(at(1_000_000_000)));
        let parts = Parts {
            listener: listener.clone(),
            ..parts(log.clone(), shared(&views), &directory, &clock, &options)
        };
        Self {
            log,
            views,
            directory,
            clock,
            options,
            listener,
            aggregator: Aggregator::start(parts).unwrap(),
        }
    }

    /// Ends the process as a crash does, and starts it anew.
    pub fn crash(&mut self) {
        self.log = Arc::new(self.log.reopen());
        self.views = self.views.iter().map(|views| Arc::new(views.reopen())).collect();
        self.aggregator = Aggregator::start(self.parts(self.shared_views())).unwrap();
    }

    /// What its aggregator is made of, with these views.
    pub fn parts(&self, views: Vec<Arc<dyn Views>>) -> Parts {
        let Self {
            directory,
            clock,
            options,
            ..
        } = self;
        Parts {
            listener: self.listener.clone(),
            ..parts(self.log.clone(), views, directory, clock, options)
        }
    }

    pub fn shared_views(&self) -> Vec<Arc<dyn Views>> {
        shared(&self.views)
    }

    /// Views derived anew from the log.
    pub async fn derive(&self) -> Vec<Arc<dyn Views>> {
        let empty = || Arc::new(MemoryViews::new(rows::merge())) as Arc<dyn Views>;
        let views: Vec<_> = self.views.iter().map(|_| empty()).collect();
        let parts = Parts {
            listener: Arc::new(NoListener),
            ..self.parts(views.clone())
        };
        turnpike_aggregator::rebuild::derive(parts).await.unwrap();
        views
    }

    pub fn declare(&self, meters: &[Meter]) {
        self.directory.set(TENANT, meters);
        self.aggregator.changed(&DirectoryChange::Catalog(TENANT));
    }

    pub async fn submit(&self, events: &[Event]) -> Result<Vec<Outcome>, Problem> {
        let mut batch = EventBatch::default();
        for event in events {
            batch.push(&KEY, &event.record());
        }
        self.aggregator.submit(Arc::new(batch)).await
    }

    pub async fn total(
        &self,
        request: TotalRequest,
    ) -> Result<Vec<(Vec<String>, Option<Quantity>)>, Problem> {
        let totals = self.aggregator.totals(TENANT, vec![request], None).await?;
        let rows = totals.rows.into_iter().next().unwrap_or_default();
        Ok(rows.into_iter().map(|row| (row.group, row.value)).collect())
    }

    /// The one total of a meter over all time for subjects.
    pub async fn sum(&self, meter: &str, subjects: &[&str]) -> Option<Quantity> {
        self.total(request(meter, subjects, TimeRange::ALL))
            .await
            .unwrap()
            .remove(0)
            .1
    }
}

fn shared(views: &[Arc<MemoryViews>]) -> Vec<Arc<dyn Views>> {
    let views = views.iter();
    views.map(|views| Arc::clone(views) as Arc<dyn Views>).collect()
}

/// What an aggregator over these stores is made of, to which nobody listens.
pub fn parts(
    log: Arc<dyn EventLog>,
    views: Vec<Arc<dyn Views>>,
    directory: &Arc<Declared>,
    clock: &Arc<ManualClock>,
    options: &Options,
) -> Parts {
    Parts {
        log,
        views,
        directory: Arc::clone(directory) as _,
        listener: Arc::new(NoListener),
        clock: Arc::clone(clock) as _,
        key: KEY,
        options: options.clone(),
    }
}

/// An event as a test writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub tenant: TenantId,
    pub source: String,
    pub id: String,
    pub kind: String,
    pub subject: String,
    pub time: Timestamp,
    pub data: String,
}

impl Event {
    pub fn new(id: impl ToString, subject: &str, second: i64, data: impl ToString) -> Self {
        Self {
            tenant: TENANT,
            source: "s".to_owned(),
            id: id.to_string(),
            kind: "t".to_owned(),
            subject: subject.to_owned(),
            time: at(second),
            data: data.to_string(),
        }
    }

    pub fn record(&self) -> EventRecord<'_> {
        EventRecord {
            tenant: self.tenant.0,
            source: &self.source,
            id: &self.id,
            kind: &self.kind,
            subject: &self.subject,
            time_us: self.time.micros(),
            time_sent: true,
            received_us: self.time.micros(),
            data: &self.data,
            extensions: "",
            grant: None,
        }
    }

    pub fn name(&self) -> EventName {
        KEY.name(self.tenant, &self.source, &self.id)
    }
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000).unwrap()
}

pub fn range(from: i64, to: i64) -> TimeRange {
    TimeRange::new(at(from), at(to))
}

pub fn quantity(text: &str) -> Quantity {
    text.parse().unwrap()
}

pub fn meter(id: u32, key: &str, aggregation: Aggregation) -> Meter {
    Meter {
        id: MeterId(id),
        key: key.to_owned(),
        event_type: "t".to_owned(),
        aggregation,
        value: (aggregation != Aggregation::Count).then(|| "$.v".to_owned()),
        percentile: (aggregation == Aggregation::Percentile).then(|| "75".to_owned()),
        group_by: BTreeMap::from([("g".to_owned(), "$.g".to_owned())]),
        filter: BTreeMap::new(),
    }
}

pub fn request(meter: &str, subjects: &[&str], range: TimeRange) -> TotalRequest {
    let span = |subject: &&str| SubjectSpan {
        subject: (*subject).to_owned(),
        span: TimeRange::ALL,
    };
    TotalRequest {
        meter: meter.to_owned(),
        subjects: subjects.iter().map(span).collect(),
        range,
        cuts: Vec::new(),
        filter: Vec::new(),
        group_by: Vec::new(),
    }
}

/// The answer to a reader.
pub async fn answer(aggregator: &Arc<Aggregator>, uri: &str) -> Response {
    answer_to(aggregator, TENANT, uri).await
}

/// The answer to a reader of a tenant.
pub async fn answer_to(aggregator: &Arc<Aggregator>, tenant: TenantId, uri: &str) -> Response {
    let caller = Caller {
        tenant,
        key_id: Arc::from("k"),
        scopes: Arc::new(BTreeSet::from([Scope::Read])),
        request_id: RequestId(Arc::from("r")),
    };
    let routes = router(Arc::clone(aggregator)).split_for_parts().0;
    let request = Request::get(uri).body(Body::empty()).unwrap();
    routes.layer(Extension(caller)).oneshot(request).await.unwrap()
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}
