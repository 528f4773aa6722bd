//! Invoices and billing runs, kept beside the catalog. What is final is never written again but for its status.

use std::sync::Arc;

use super::BoxFuture;
use super::control::{Answer, Change, PageAfter};
use crate::catalog::Subscription;
use crate::identity::TenantId;
use crate::invoice::{
    BillingRun, Difference, Invoice, InvoiceStatus, InvoiceStep, LateUsage, Line, StatusEntry, number_text,
};
use crate::problem::{Code, FieldError, Problem};
use crate::time::{TimeRange, Timestamp};

/// Which invoices are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InvoiceFilter {
    /// Of one customer.
    pub customer: Option<String>,
    /// Of one subscription.
    pub subscription: Option<String>,
    /// In one state.
    pub status: Option<InvoiceStatus>,
    /// Whose period ends in this time.
    pub ends: Option<TimeRange>,
}

/// What an invoice is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvoiceName {
    /// Its id.
    Id(String),
    /// Its number.
    Number(u64),
}

impl InvoiceName {
    /// Reads a number as it stands on invoices, else takes the text for an id.
    pub fn parse(text: &str) -> Self {
        let number = text.strip_prefix("INV-").and_then(|digits| digits.parse().ok());
        number.map_or_else(|| Self::Id(text.to_owned()), Self::Number)
    }
}

/// What there is of an invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are whole")]
pub enum Kept {
    /// All of it.
    Whole(Invoice),
    /// Not all of it can be read.
    Broken(Broken),
    /// Nothing, though the number was given.
    Missing(u64),
}

/// An invoice of which something cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its id; empty where that is what cannot be read.
    pub id: String,
    /// Its number, if it has one that can be read.
    pub number: Option<u64>,
    /// The first field that cannot be read.
    pub field: Difference,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, field, .. } = self;
        write!(
            f,
            "invoice {id}: {} cannot be read: {}",
            field.pointer, field.found
        )
    }
}

impl From<Broken> for Problem {
    fn from(broken: Broken) -> Self {
        let Broken { id, field, .. } = &broken;
        let detail = format!(
            "damaged data: {} of the invoice \"{id}\" is not what was written; verify the invoice, and restore the database from a \
             backup",
            field.pointer
        );
        let fields = vec![FieldError {
            pointer: field.pointer.clone(),
            detail: "cannot be read".to_owned(),
        }];
        Self {
            fields,
            ..Self::new(Code::Damaged, detail)
        }
        .because(broken.to_string())
    }
}

impl Kept {
    /// The number as it stands on invoices, else the id.
    pub fn name(&self) -> String {
        let (number, id) = match self {
            Self::Whole(invoice) => (invoice.number, &invoice.id),
            Self::Broken(broken) => (broken.number, &broken.id),
            Self::Missing(number) => return number_text(*number),
        };
        number.map_or_else(|| id.clone(), number_text)
    }
}

/// A tenant's series of invoice numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumberSeries {
    /// The last number that was given; 0 before the first.
    pub last: u64,
    /// The hash of its invoice.
    pub hash: String,
    /// The highest number of an invoice: the last one, unless somebody meddled with either.
    pub highest: u64,
}

impl NumberSeries {
    /// The number with which it ends, whatever was meddled with.
    pub fn end(&self) -> u64 {
        self.last.max(self.highest)
    }
}

/// Which billed lines are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BilledFilter {
    /// Of this subscription.
    pub subscription: String,
    /// For periods that end after this.
    pub ends_after: Timestamp,
    /// On invoices with a number below this; none: on all that are locked.
    pub number_below: Option<u64>,
}

/// An instant at which a subscription is billed once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boundary {
    /// The subscription.
    pub subscription: String,
    /// The end of the period.
    pub at: Timestamp,
    /// 0 for the invoice of the period; see [`Invoice::round`].
    pub round: u32,
}

impl Boundary {
    /// Where an invoice stands.
    pub fn of(invoice: &Invoice) -> Self {
        Self {
            subscription: invoice.subscription.clone(),
            at: invoice.boundary(),
            round: invoice.round,
        }
    }
}

/// What becomes of a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// It had nothing to charge, and is closed.
    Empty {
        /// The subscription.
        subscription: String,
        /// The period.
        period: TimeRange,
    },
    /// A draft is kept, or replaces the draft of the same boundary, which keeps its id, `created` and `locks_at`.
    Draft(Invoice),
    /// The same, and the draft is locked: it becomes `finalizing` with its watermark, and its period is closed.
    Locked(Invoice),
}

/// Periods to close together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closings {
    /// What becomes of each.
    pub closings: Vec<Closing>,
    /// The subscriptions that the closings were made from.
    pub seen: Vec<Arc<Subscription>>,
    /// The run that closes them, which counts them.
    pub run: Option<String>,
}

/// When billing is to look at a subscription again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The subscription, as it was with that many changes.
    pub subscription: Arc<Subscription>,
    /// Not before then.
    pub at: Timestamp,
    /// Counts changes of the subscription; each makes it due at once.
    pub change: i64,
}

/// A result of the store.
pub type Stored<'a, T> = BoxFuture<'a, Result<T, Problem>>;

/// Keeps invoices and billing runs.
pub trait BillingStore: Send + Sync {
    /// Until when each of these subscriptions is billed, in the order asked; `None` where nothing was yet.
    fn closed_until(
        &self,
        tenant: TenantId,
        subscriptions: Vec<String>,
    ) -> Stored<'_, Vec<Option<Timestamp>>>;

    /// Closes periods, all in one transaction, in which their run counts the invoices that it locked and the periods
    /// without one. Where an invoice is locked already nothing changes. `None`, and nothing is written, where a
    /// subscription is no longer as it was seen: what it owes may be something else now. Else the subscriptions that
    /// learnt by it until when they are billed, which counts as one change of each ([`Look::change`]).
    fn close(&self, change: Change, closings: Closings) -> Stored<'_, Option<Vec<String>>>;

    /// Gives `finalizing` invoices their numbers, in this order and in one transaction, as [`BillingStore::finish`] does.
    /// Others stay as they are. Answers how many got one.
    fn finish_all(&self, change: Change, ids: Vec<String>) -> Stored<'_, u64>;

    /// Gives a `finalizing` invoice the tenant's next number and its hash, and makes it open (paid, when nothing is
    /// owed), in one transaction. The answer's body is the invoice; an invoice that is open stays as it is, and one
    /// that is beyond is an `IllegalTransition`.
    fn finish(&self, change: Change, id: String) -> Stored<'_, Answer>;

    /// Does a legal step. The answer's body is the invoice.
    fn step(&self, change: Change, id: String, step: InvoiceStep) -> Stored<'_, Answer>;

    /// An invoice.
    fn invoice(&self, tenant: TenantId, id: String) -> Stored<'_, Option<Invoice>>;

    /// What there is of an invoice; `None` for an id that is unknown, and for a number beyond the series.
    fn kept(&self, tenant: TenantId, name: InvoiceName) -> Stored<'_, Option<Kept>>;

    /// The tenant's series of numbers.
    fn series(&self, tenant: TenantId) -> Stored<'_, NumberSeries>;

    /// The statuses of a final invoice, oldest first; none for one that is not final.
    fn history(&self, tenant: TenantId, id: String) -> Stored<'_, Result<Vec<StatusEntry>, Broken>>;

    /// Invoices, newest first, before the id `page.after`. One that cannot be read stands in its place. It is not among those of a
    /// `filter` by what cannot be read.
    fn invoices(
        &self,
        tenant: TenantId,
        filter: InvoiceFilter,
        page: PageAfter,
    ) -> Stored<'_, Vec<Result<Invoice, Broken>>>;

    /// The invoices of boundaries, whatever their state, in the order asked.
    fn invoices_of(&self, tenant: TenantId, boundaries: Vec<Boundary>) -> Stored<'_, Vec<Option<Invoice>>>;

    /// Subscriptions that billing is to look at by `now`, ordered by that instant and their ids, behind `after`. A new or
    /// changed subscription is due at once.
    fn looks(
        &self,
        tenant: TenantId,
        now: Timestamp,
        after: Option<Look>,
        rows: usize,
    ) -> Stored<'_, Vec<Look>>;

    /// The first instant after `after` at which billing is to look at a subscription.
    fn next_look(&self, tenant: TenantId, after: Timestamp) -> Stored<'_, Option<Timestamp>>;

    /// Keeps when subscriptions are looked at next; one that was changed since it was read stays due.
    fn look_again(&self, tenant: TenantId, looks: Vec<Look>) -> Stored<'_, ()>;

    /// Until when these subscriptions are settled, in the order asked: what came late for one that is over, and was known
    /// by then, is on an invoice or listed. `None` where it was not looked at since it is over.
    fn settled_until(
        &self,
        tenant: TenantId,
        subscriptions: Vec<String>,
    ) -> Stored<'_, Vec<Option<Timestamp>>>;

    /// Keeps until when subscriptions are settled.
    fn settle(&self, tenant: TenantId, settled: Vec<(String, Timestamp)>) -> Stored<'_, ()>;

    /// Lines of recurring prices, usage, minimum and adjustment of locked invoices, in the order of the invoices.
    fn billed_lines(&self, tenant: TenantId, filter: BilledFilter) -> Stored<'_, Result<Vec<Line>, Broken>>;

    /// Ids of invoices that are locked but not yet final, oldest first.
    fn finalizing(&self, tenant: TenantId) -> Stored<'_, Vec<String>>;

    /// Keeps a new run. Where a run of the same `period_end` still waits, that one is answered instead. The answer's
    /// body is the run.
    fn begin_run(&self, change: Change, run: BillingRun) -> Stored<'_, Answer>;

    /// Keeps how far a run is. A run that is kept already goes on counting its invoices and empty periods by
    /// [`BillingStore::close`] alone.
    fn save_run(&self, tenant: TenantId, run: BillingRun) -> Stored<'_, ()>;

    /// Which of these no run lists yet.
    fn unlisted(&self, tenant: TenantId, late: Vec<LateUsage>) -> Stored<'_, Vec<LateUsage>>;

    /// A run.
    fn run(&self, tenant: TenantId, id: String) -> Stored<'_, Option<BillingRun>>;

    /// Runs, newest first, before the id `page.after`.
    fn runs(&self, tenant: TenantId, page: PageAfter) -> Stored<'_, Vec<BillingRun>>;

    /// The oldest run of a tenant that is not over.
    fn next_run(&self, tenant: TenantId) -> Stored<'_, Option<BillingRun>>;
}
