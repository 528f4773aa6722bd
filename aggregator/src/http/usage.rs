use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, stream};
use serde::Serialize;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::meter::Meter;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::problem::Problem;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::Timestamp;
use turnpike_http::{Caller, Cursor, Format, Page, PageQuery, ProblemBody, Reply, csv, ndjson};

use super::params::{Pairs, end_of_now, time, unit, whole_minutes, windows, zone};
use super::place::Place;
use super::table;
use crate::Aggregator;
use crate::query::{PART_ROWS, Split, UsageQuery, UsageReading, UsageRow, Windows};

/// Usage of one window.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(crate) struct UsageBody {
    /// Start of the window.
    #[schema(value_type = String, format = DateTime)]
    start: Timestamp,
    /// End of the window; not in it.
    #[schema(value_type = String, format = DateTime)]
    end: Timestamp,
    /// The customer, where rows are split by it.
    customer: Option<String>,
    /// The subject, where rows are split by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// Values of the dimensions that rows are split by; an event without one has an empty text.
    group: BTreeMap<String, String>,
    /// The meter's value; null where `error` says why there is none.
    value: Option<Quantity>,
    /// In ndjson only: `overflow` where the value has more than 26 digits before the point. The other rows stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    error: Option<&'static str>,
}

/// A page of usage.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct UsagePage {
    /// The meter's key.
    meter: String,
    /// The rows, by window and group (groups of more than 2,500 bytes that begin alike in an order of their own). Windows without events are left out; without `window` there is a row in any case.
    data: Vec<UsageBody>,
    /// Every change acknowledged before this moment is contained. Each page is read anew and has its own moment: what is
    /// acknowledged between two pages is contained in the later one only. For all rows as of one moment ask for csv or
    /// ndjson.
    #[schema(value_type = String, format = DateTime)]
    as_of: Timestamp,
    /// Whether the meter has counted all events of the time before it was made; until then values are too small.
    complete: bool,
    /// Only where raw events had been deleted by retention before the meter was made: those timed before this are not
    /// counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    lacks_before: Option<Timestamp>,
    /// Send as `cursor` for the next page; null on the last.
    #[schema(value_type = Option<String>)]
    next_cursor: Option<Cursor>,
}

/// Read a meter's usage.
///
/// Sums of whole windows: without `window` one row covers the range, with it each window of the calendar in zone `tz`
/// that has events. Without `customer` all subjects are summed; with it each customer that is named has its row. A
/// parameter without a value is 422, but for `filter[dimension]=` (events without the dimension) and `cursor`. A cursor goes
/// on with the query that it came from, and with no other.
#[utoipa::path(
    get, path = "/v1/meters/{key}/usage", tag = "Usage",
    params(
        ("key" = String, Path, description = "The meter's key"),
        ("customer" = Option<Vec<String>>, Query, description = "Only the subjects of these customers, one row each; may repeat"),
        ("subject" = Option<Vec<String>>, Query, description = "Only these subjects; may repeat"),
        ("from" = Option<String>, Query, format = DateTime, description = "Start, on a whole minute; needed with `window`"),
        ("to" = Option<String>, Query, format = DateTime, description = "End, on a whole minute, not contained; unless said the start of the minute after the one that is now"),
        ("window" = Option<String>, Query, description = "minute, hour, day or month"),
        ("tz" = Option<String>, Query, description = "IANA zone of the windows; UTC unless said"),
        ("group_by" = Option<Vec<String>>, Query, description = "A dimension of the meter, `customer` or `subject`; may repeat"),
        ("filter" = Option<BTreeMap<String, String>>, Query, style = DeepObject, explode, description = "`filter[dimension]=value`: only events with this value of the dimension; may repeat"),
        ("format" = Option<String>, Query, description = "json, csv or ndjson, before `Accept`; csv and ndjson are not paged (`limit` and `cursor` are 422 beside them), but sent as they are read, all as of one moment, and a row whose value has more than 26 digits before the point has `overflow` in its place (in ndjson as `error`); in csv a text that a spreadsheet would take for a formula has a quote before it"),
        PageQuery,
    ),
    responses(
        (status = 200, description = "The rows", content((UsagePage = "application/json"), (String = "text/csv"), (String = "application/x-ndjson"))),
        (status = 404, body = ProblemBody, description = "There is no such meter"),
        (status = 422, body = ProblemBody, description = "A parameter is invalid, or a value of the page has more than 26 digits before the point (`overflow`, with its window and group)"),
        (status = 503, body = ProblemBody, description = "Too many readings are under way: try again later"),
    ),
    security(("api_key" = ["read"])),
)]
pub(crate) async fn usage(
    State(aggregator): State<Arc<Aggregator>>,
    caller: Caller,
    Path(key): Path<String>,
    page: PageQuery,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Reply<Response> {
    caller.require(Scope::Read)?;
    let mut pairs = Pairs::parse(raw.as_deref())?;
    let format = Format::of(pairs.one("format")?.as_deref(), &headers, Format::Json)?;
    if format != Format::Json {
        unpaged(&pairs)?;
    }
    pairs.leave_out(&PAGE);
    let meter = aggregator.meter(caller.tenant, &key)?;
    let query = usage_query(&aggregator, caller.tenant, &mut pairs)?;
    pairs.end()?;
    let of = (caller.tenant, meter);
    if format != Format::Json {
        let split = query.split.clone();
        let reading = aggregator.usage_reading(of, query).await?;
        return Ok(written(format, split, reading).await?);
    }
    Ok(paged(&aggregator, of, query, &page).await?)
}

async fn paged(
    aggregator: &Aggregator,
    (tenant, meter): (TenantId, Arc<Meter>),
    query: UsageQuery,
    page: &PageQuery,
) -> Result<Response, Problem> {
    let (key, split) = (meter.key.clone(), query.split.clone());
    let of = (tenant, meter);
    let after = page.after().map(Place::read).transpose()?.map(Place::parts);
    let read = aggregator.usage_page(of, query, after, page.rows());
    let (rows, read, more) = read.await?;
    if let Some(problem) = rows.iter().find_map(|row| row.value.as_ref().err()) {
        return Err(Problem::clone(problem));
    }
    let last = rows.last().filter(|_| more);
    let next = last.map(|row| Place::of(row).text());
    let Page { data, next_cursor } = page.page(rows.iter().map(|row| body(&split, row)).collect(), next);
    let page = table::json(&UsagePage {
        meter: key,
        data,
        as_of: read.as_of,
        complete: read.complete && read.lacks_before.is_none(),
        lacks_before: read.lacks_before,
        next_cursor,
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], page).into_response())
}

/// The parameters that say which page is asked for.
const PAGE: [&str; 2] = ["limit", "cursor"];

/// Refuses what names a page where the rows are sent whole.
fn unpaged(pairs: &Pairs) -> Result<(), Problem> {
    let detail = "is for pages, which only json has: csv and ndjson have all rows";
    match PAGE.into_iter().find(|name| pairs.has(name)) {
        Some(name) => Err(Problem::invalid(format!("/{name}"), detail)),
        None => Ok(()),
    }
}

/// Takes the parameters that say what is asked for.
pub(super) fn usage_query(
    aggregator: &Aggregator,
    tenant: TenantId,
    pairs: &mut Pairs,
) -> Result<UsageQuery, Problem> {
    let customers = pairs.all("customer")?;
    let mut split = Vec::new();
    if !customers.is_empty() {
        split.push(Split::Customer);
    }
    for name in pairs.all("group_by")?.iter().flat_map(|names| names.split(',')) {
        let one = match name.trim() {
            "" => continue,
            "customer" => Split::Customer,
            "subject" => Split::Subject,
            dimension => Split::Dimension(dimension.to_owned()),
        };
        if !split.contains(&one) {
            split.push(one);
        }
    }
    let subjects = subjects(
        aggregator.shared.directory.as_ref(),
        tenant,
        &customers,
        &pairs.all("subject")?,
    );
    let always = always(pairs, &split, &customers);
    Ok(UsageQuery {
        windows: asked_windows(aggregator, tenant, pairs)?,
        filter: pairs.keyed("filter"),
        subjects,
        split,
        always,
    })
}

/// Without `window` the range has its row even where nothing happened: one, or one for each customer that is named.
/// What else rows are split by is known from events alone.
fn always(pairs: &Pairs, split: &[Split], customers: &[String]) -> Vec<Vec<String>> {
    match split {
        _ if pairs.has("window") => Vec::new(),
        [] => vec![Vec::new()],
        [Split::Customer] => customers.iter().map(|key| vec![key.clone()]).collect(),
        _ => Vec::new(),
    }
}

fn asked_windows(aggregator: &Aggregator, tenant: TenantId, pairs: &mut Pairs) -> Result<Windows, Problem> {
    let unit = pairs
        .one("window")?
        .map(|text| unit("/window", &text))
        .transpose()?;
    let zone = zone("/tz", pairs.one("tz")?.as_deref())?;
    let from = match pairs.one("from")? {
        Some(text) => time("/from", &text)?,
        None if unit.is_some() => return Err(Problem::invalid("/from", "is needed with window")),
        None => Timestamp::EPOCH,
    };
    let to = match pairs.one("to")? {
        Some(text) => time("/to", &text)?,
        None => end_of_now(aggregator.shared.clock.now(tenant)).max(from.plus_micros(60_000_000)),
    };
    windows("/window", whole_minutes(from, to)?, unit, zone)
}

/// The subjects of customers, each once, restricted to `named` where any are; `None` for all.
pub(super) fn subjects(
    directory: &dyn Directory,
    tenant: TenantId,
    customers: &[String],
    named: &[String],
) -> Option<BTreeSet<String>> {
    let named: BTreeSet<String> = named.iter().cloned().collect();
    if customers.is_empty() {
        return (!named.is_empty()).then_some(named);
    }
    let of = |key: &String| directory.subjects_read_as(tenant, key);
    let mut all: BTreeSet<String> = customers.iter().flat_map(of).collect();
    all.retain(|subject| named.is_empty() || named.contains(subject));
    Some(all)
}

pub(super) fn body(split: &[Split], row: &UsageRow) -> UsageBody {
    let mut body = UsageBody {
        start: row.window.start,
        end: row.window.end,
        customer: None,
        subject: None,
        group: BTreeMap::new(),
        value: row.value.as_ref().ok().copied().flatten(),
        error: row.value.as_ref().err().map(|problem| problem.code.slug()),
    };
    for (split, text) in split.iter().zip(&row.group) {
        match split {
            Split::Customer => body.customer = Some(text.clone()),
            Split::Subject => body.subject = Some(text.clone()),
            Split::Dimension(name) => {
                body.group.insert(name.clone(), text.clone());
            }
        }
    }
    body
}

impl UsageBody {
    /// As cells of an export, the group as a JSON object.
    pub(super) fn cells(&self) -> Vec<String> {
        let group = serde_json::to_string(&self.group).unwrap_or_default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![
            self.start.to_string(),
            self.end.to_string(),
            text(&self.customer),
            text(&self.subject),
            group,
            self.error.map_or_else(|| number(self.value), str::to_owned),
        ]
    }
}

/// The rows of a reading, sent a few windows at a time.
async fn written(format: Format, split: Vec<Split>, reading: UsageReading) -> Result<Response, Problem> {
    if format == Format::Ndjson {
        let lines = parts(reading, move |rows| {
            ndjson(rows.iter().map(|row| body(&split, row)))
        });
        return table::streamed(format.media_type(), Vec::new(), lines, 0).await;
    }
    let mut head = vec!["start".to_owned(), "end".to_owned()];
    head.extend(split.iter().map(|split| match split {
        Split::Customer => "customer".to_owned(),
        Split::Subject => "subject".to_owned(),
        Split::Dimension(name) => name.clone(),
    }));
    head.push("value".to_owned());
    let lines = parts(reading, |rows| csv(rows.iter().map(cells)));
    let head = csv(std::iter::once(head))?;
    table::streamed(Format::Csv.media_type(), head, lines, 0).await
}

fn cells(row: &UsageRow) -> Vec<String> {
    let mut cells = vec![row.window.start.to_string(), row.window.end.to_string()];
    cells.extend(row.group.iter().cloned());
    cells.push(match &row.value {
        Ok(value) => number(*value),
        Err(problem) => problem.code.slug().to_owned(),
    });
    cells
}

/// A value as a cell.
fn number(value: Option<Quantity>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// The rows of a reading as `write` puts them. The next are read once the client has taken those before.
pub(super) fn parts(
    reading: UsageReading,
    write: impl Fn(&[UsageRow]) -> Result<Vec<u8>, Problem> + Clone + Send + 'static,
) -> impl Stream<Item = Result<Vec<u8>, Problem>> + Send + 'static {
    stream::try_unfold(reading, move |mut reading| {
        let write = write.clone();
        async move {
            let part = reading.next(PART_ROWS, move |rows| write(&rows)).await?;
            Ok(part.map(|part| (part, reading)))
        }
    })
}
