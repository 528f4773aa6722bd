use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::{Stream, TryStreamExt as _, stream};
use serde::Serialize;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::meter::Meter;
use turnpike_domain::problem::{Code, Problem};
use turnpike_http::{Caller, Format, ProblemBody, Reply, csv, ndjson};

use super::params::Pairs;
use super::table;
use super::usage::{UsageBody, body, parts, usage_query};
use crate::Aggregator;
use crate::query::{Split, UsageQuery};

/// One row of an export.
#[derive(Serialize)]
struct ExportRow {
    meter: String,
    #[serde(flatten)]
    usage: UsageBody,
}

/// Export usage.
///
/// Rows of one, several or all meters, split by customer unless `group_by` says otherwise, as CSV (one column `group`
/// with a JSON object) or NDJSON. They are sent as they are read, each meter as of one moment; an answer that has begun waits
/// for room to read its further meters. A row whose value has more than 26 digits before the point is told as such, and the others stand:
/// in CSV its `value` is `overflow`, in NDJSON `value` is null and `error` is `overflow`. An answer that ends before its time (the
/// connection is cut) is not whole, and the server's log says why. In CSV a text gets a quote (`'`) before it where a spreadsheet would take it
/// for a formula: it begins with `=`, `@`, a tab or a carriage return, or with `+` or `-` and has more behind that than ASCII
/// letters, digits, `_`, `.`, `-` and spaces. NDJSON has every text as it is.
#[utoipa::path(
    get, path = "/v1/export/usage", tag = "Usage",
    params(
        ("meter" = Option<Vec<String>>, Query, description = "Only these meters; may repeat"),
        ("customer" = Option<Vec<String>>, Query, description = "Only the subjects of these customers; may repeat"),
        ("subject" = Option<Vec<String>>, Query, description = "Only these subjects; may repeat"),
        ("from" = Option<String>, Query, format = DateTime, description = "Start, on a whole minute; needed with `window`"),
        ("to" = Option<String>, Query, format = DateTime, description = "End, on a whole minute, not contained; unless said the start of the minute after the one that is now"),
        ("window" = Option<String>, Query, description = "minute, hour, day or month"),
        ("tz" = Option<String>, Query, description = "IANA zone of the windows; UTC unless said"),
        ("group_by" = Option<Vec<String>>, Query, description = "A dimension, `customer` or `subject`; may repeat"),
        ("filter" = Option<BTreeMap<String, String>>, Query, style = DeepObject, explode, description = "`filter[dimension]=value`: only events with this value of the dimension; may repeat"),
        ("format" = Option<String>, Query, description = "csv or ndjson, before `Accept`; csv unless said"),
    ),
    responses(
        (status = 200, description = "The rows", content((String = "text/csv"), (String = "application/x-ndjson"))),
        (status = 404, body = ProblemBody, description = "There is no such meter"),
        (status = 422, body = ProblemBody, description = "A parameter is invalid"),
        (status = 503, body = ProblemBody, description = "A meter is still counting the events before it was made, or too many readings are under way: try again later"),
    ),
    security(("api_key" = ["read"])),
)]
pub(crate) async fn export(
    State(aggregator): State<Arc<Aggregator>>,
    caller: Caller,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Reply<Response> {
    caller.require(Scope::Read)?;
    let mut pairs = Pairs::parse(raw.as_deref())?;
    let format = Format::of_export(pairs.one("format")?.as_deref(), &headers)?;
    let named = pairs.all("meter")?;
    let mut query = usage_query(&aggregator, caller.tenant, &mut pairs)?;
    pairs.end()?;
    if query.split.is_empty() {
        query.split.push(Split::Customer);
    }
    query.always.clear();
    let meters = meters(&aggregator, caller.tenant, named)?;
    for meter in &meters {
        query.check(meter)?;
        if !aggregator.filled(meter).await {
            let key = &meter.key;
            let detail = format!("the meter \"{key}\" is still counting the events before it was made");
            return Err(Problem::new(Code::Unavailable, detail).into());
        }
    }
    let parts = all_parts(aggregator, caller.tenant, (meters, query), format);
    let head = match format {
        Format::Csv => csv(std::iter::once(head()))?,
        Format::Ndjson | Format::Json => Vec::new(),
    };
    Ok(table::streamed(format.media_type(), head, parts, 0).await?)
}

/// The meters of these keys, each once, however often it is named; all of the tenant where none is.
fn meters(
    aggregator: &Aggregator,
    tenant: TenantId,
    mut named: Vec<String>,
) -> Result<VecDeque<Arc<Meter>>, Problem> {
    if named.is_empty() {
        let catalog = aggregator.shared.directory.catalog(tenant);
        return Ok(catalog.meters.values().cloned().collect());
    }
    let mut once = BTreeSet::new();
    named.retain(|meter| once.insert(meter.clone()));
    named
        .iter()
        .map(|meter| aggregator.meter(tenant, meter))
        .collect()
}

/// The rows of one meter after the other. A meter is read once the rows of those before it have been taken; all but the first
/// wait for room, as the answer has begun.
fn all_parts(
    aggregator: Arc<Aggregator>,
    tenant: TenantId,
    (meters, query): (VecDeque<Arc<Meter>>, UsageQuery),
    format: Format,
) -> impl Stream<Item = Result<Vec<u8>, Problem>> + Send + 'static {
    let of_each = stream::try_unfold((meters, true), move |(mut meters, is_first)| {
        let (aggregator, query) = (Arc::clone(&aggregator), query.clone());
        async move {
            let Some(meter) = meters.pop_front() else {
                return Ok::<_, Problem>(None);
            };
            let (key, split) = (meter.key.clone(), query.split.clone());
            let reading = if is_first {
                aggregator.usage_reading((tenant, meter), query).await?
            } else {
                aggregator.further_reading((tenant, meter), &query).await?
            };
            let lines = parts(reading, move |rows| {
                let rows = rows.iter().map(|row| ExportRow {
                    meter: key.clone(),
                    usage: body(&split, row),
                });
                match format {
                    Format::Csv => csv(rows.map(|row| row.cells())),
                    Format::Ndjson | Format::Json => ndjson(rows),
                }
            });
            Ok(Some((lines, (meters, false))))
        }
    });
    of_each.try_flatten()
}

fn head() -> Vec<String> {
    ["meter", "start", "end", "customer", "subject", "group", "value"]
        .map(str::to_owned)
        .to_vec()
}

impl ExportRow {
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.meter.clone()];
        cells.extend(self.usage.cells());
        cells
    }
}
