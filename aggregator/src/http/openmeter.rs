//! `GET /api/v1/meters/{slug}/query` as OpenMeter's clients call it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::value::RawValue;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::meter::Meter;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{CalendarUnit, TimeRange, Timestamp, Zone};
use turnpike_http::{Caller, Format, ProblemBody, Reply, csv};

use super::params::{Pairs, ceil_minute, end_of_now, time, unit, windows, zone};
use super::python::dict;
use super::table;
use super::usage::{parts, subjects};
use crate::Aggregator;
use crate::query::{Split, UsageQuery, UsageReading, UsageRow, Windows};

/// Usage in OpenMeter's shape.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueryResult {
    #[serde(flatten)]
    head: QueryHead,
    /// The rows.
    data: Vec<QueryRow>,
}

/// What of a query stands before its rows.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueryHead {
    /// Start of the range, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// End of the range, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// The windows asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    window_size: Option<String>,
}

/// One row in OpenMeter's shape.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueryRow {
    /// The value, as a JSON number with all its digits.
    #[schema(value_type = f64)]
    value: Box<RawValue>,
    /// Start of the window.
    #[schema(value_type = String, format = DateTime)]
    window_start: Timestamp,
    /// End of the window.
    #[schema(value_type = String, format = DateTime)]
    window_end: Timestamp,
    /// The subject, where rows are split by it.
    subject: Option<String>,
    /// The customer, where rows are split by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    customer_id: Option<String>,
    /// Values of the dimensions that rows are split by.
    group_by: BTreeMap<String, Option<String>>,
}

/// What the query string asks for.
struct Asked {
    head: QueryHead,
    unit: Option<CalendarUnit>,
    zone: Zone,
    /// Without `from`: over one window, from 1970 on.
    query: UsageQuery,
}

/// Query a meter as OpenMeter's clients do.
///
/// Times are cut to their minute (`to` to the end of it). Without `from` the windows begin with the first usage, without
/// `to` they end with the minute that is now. A subject filter splits by subject, as OpenMeter does.
/// `advancedMeterGroupByFilters` is 422. The rows are sent as they are read; an answer that ends before its time (the
/// connection is cut) is not whole: so it is too where the value of a row behind the first 64 KiB has more than 26 digits before the point.
#[utoipa::path(
    get, path = "/api/v1/meters/{slug}/query", tag = "OpenMeter",
    params(
        ("slug" = String, Path, description = "The meter's key"),
        ("from" = Option<String>, Query, format = DateTime, description = "Start"),
        ("to" = Option<String>, Query, format = DateTime, description = "End; unless said the start of the minute after the one that is now"),
        ("windowSize" = Option<String>, Query, description = "MINUTE, HOUR, DAY or MONTH"),
        ("windowTimeZone" = Option<String>, Query, description = "IANA zone; UTC unless said"),
        ("subject" = Option<Vec<String>>, Query, description = "Only these subjects; may repeat"),
        ("filterCustomerId" = Option<Vec<String>>, Query, description = "Only these customers, by key; may repeat"),
        ("filterGroupBy" = Option<BTreeMap<String, String>>, Query, style = DeepObject, explode, description = "`filterGroupBy[dimension]=value`: only this value of the dimension; one that repeats allows each of its values. One `filterGroupBy` that is a JSON object of strings is taken too, but not beside the others"),
        ("groupBy" = Option<Vec<String>>, Query, description = "A dimension, subject or customer_id; may repeat"),
        ("clientId" = Option<String>, Query, description = "Taken and not used"),
    ),
    responses(
        (status = 200, body = QueryResult, description = "The rows; CSV where `Accept` says text/csv, with a column `customer_id` where rows are split by customer"),
        (status = 404, body = ProblemBody, description = "There is no such meter"),
        (status = 422, body = ProblemBody, description = "A parameter is invalid, or a value within the first 64 KiB of rows has more than 26 digits before the point (`overflow`)"),
        (status = 503, body = ProblemBody, description = "Too many readings are under way: try again later"),
    ),
    security(("api_key" = ["read"])),
)]
pub(crate) async fn query(
    State(aggregator): State<Arc<Aggregator>>,
    caller: Caller,
    Path(slug): Path<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Reply<Response> {
    caller.require(Scope::Read)?;
    let mut pairs = Pairs::parse(raw.as_deref())?;
    let of = (caller.tenant, aggregator.meter(caller.tenant, &slug)?);
    let mut asked = asked(&aggregator, caller.tenant, &mut pairs)?;
    pairs.end()?;
    asked.query.check(&of.1).map_err(in_its_names)?;
    let format = Format::of(None, &headers, Format::Json)?;
    if asked.head.from.is_none() {
        begin_with_usage(&aggregator, &of, &mut asked).await?;
    }
    let split = asked.query.split.clone();
    let reading = aggregator.usage_reading(of, asked.query).await?;
    Ok(match format {
        Format::Csv => as_csv(split, reading).await?,
        Format::Json | Format::Ndjson => as_json(&asked.head, split, reading).await?,
    })
}

fn asked(aggregator: &Aggregator, tenant: TenantId, pairs: &mut Pairs) -> Result<Asked, Problem> {
    let bound = |name: &str, text: Option<String>| text.map(|text| time(name, &text)).transpose();
    let from = bound("/from", pairs.one("from")?)?.map(Timestamp::floor_minute);
    let to = bound("/to", pairs.one("to")?)?.map(ceil_minute);
    let window_size = pairs.one("windowSize")?;
    let unit = match window_size.as_deref() {
        Some(text) => Some(unit("/windowSize", &text.to_lowercase())?),
        None => None,
    };
    let zone = zone("/windowTimeZone", pairs.one("windowTimeZone")?.as_deref())?;
    let start = from.unwrap_or(Timestamp::EPOCH);
    let end = to.unwrap_or_else(|| end_of_now(aggregator.shared.clock.now(tenant)));
    let windows = match (from, start < end) {
        (_, false) => Windows::NONE,
        // Where they begin is found out first.
        (None, true) => Windows::of(TimeRange::new(start, end), None, zone.clone()),
        (Some(_), true) => windows("/windowSize", TimeRange::new(start, end), unit, zone.clone())?,
    };
    let _ = pairs.one("clientId")?;
    if pairs.has("advancedMeterGroupByFilters") {
        let detail = "is not supported: filter by equal values with filterGroupBy, which may repeat";
        return Err(Problem::invalid("/advancedMeterGroupByFilters", detail));
    }
    let (named, customers) = (pairs.all("subject")?, pairs.all("filterCustomerId")?);
    let query = UsageQuery {
        split: splits(&pairs.all("groupBy")?, &named, &customers),
        filter: filters(pairs)?,
        subjects: subjects(aggregator.shared.directory.as_ref(), tenant, &customers, &named),
        windows,
        always: Vec::new(),
    };
    Ok(Asked {
        head: QueryHead {
            from,
            to,
            window_size,
        },
        unit,
        zone,
        query,
    })
}

/// Cuts a query over all time into its windows, from the first in which anything was used: found month by month, then
/// day by day within that month, for there may be more windows since 1970 than one query takes. What the values of those are
/// is not looked at: a month may be beyond all numbers and none of the windows asked for.
async fn begin_with_usage(
    aggregator: &Aggregator,
    (tenant, meter): &(TenantId, Arc<Meter>),
    asked: &mut Asked,
) -> Result<(), Problem> {
    let (Some(unit), Some(all)) = (asked.unit, asked.query.windows.range()) else {
        return Ok(());
    };
    let mut range = all;
    for coarse in [CalendarUnit::Month, CalendarUnit::Day] {
        let query = UsageQuery {
            windows: Windows::of(range, Some(coarse), asked.zone.clone()),
            split: Vec::new(),
            ..asked.query.clone()
        };
        let of = (*tenant, Arc::clone(meter));
        let (rows, ..) = aggregator.usage_page(of, query, None, 1).await?;
        let Some(first) = rows.first() else {
            asked.query.windows = Windows::NONE;
            return Ok(());
        };
        range = first.window;
    }
    // A first window that is longer than a day is whole too.
    let start = asked.zone.window(unit, range.start).start.max(Timestamp::EPOCH);
    let range = TimeRange::new(start, all.end);
    asked.query.windows = windows("/windowSize", range, Some(unit), asked.zone.clone())?;
    Ok(())
}

/// `problem` with its fields named as OpenMeter names them.
fn in_its_names(problem: Problem) -> Problem {
    let Some(field) = problem.fields.first() else {
        return problem;
    };
    let pointer = match field.pointer.strip_prefix("/filter[") {
        Some(rest) => format!("/filterGroupBy[{rest}"),
        None if field.pointer == "/group_by" => "/groupBy".to_owned(),
        None => return problem,
    };
    Problem::invalid(pointer, field.detail.clone())
}

fn splits(names: &[String], subjects: &[String], customers: &[String]) -> Vec<Split> {
    let mut split = Vec::new();
    let named = names
        .iter()
        .flat_map(|names| names.split(','))
        .map(|name| match name.trim() {
            "subject" => Split::Subject,
            "customer_id" | "customerId" => Split::Customer,
            dimension => Split::Dimension(dimension.to_owned()),
        });
    let implied = [
        (!subjects.is_empty(), Split::Subject),
        (!customers.is_empty(), Split::Customer),
    ];
    for one in named.chain(
        implied
            .into_iter()
            .filter(|(asked, _)| *asked)
            .map(|(_, split)| split),
    ) {
        if !split.contains(&one) {
            split.push(one);
        }
    }
    split
}

/// `filterGroupBy[model]=a`, or as one JSON object, or, as the Python client writes it, `filterGroupBy={'model': 'a'}`.
/// Both together are refused: OpenMeter says nothing of it, and a filter that is not what was meant is a wrong bill.
fn filters(pairs: &mut Pairs) -> Result<Vec<(String, Vec<String>)>, Problem> {
    let keyed = pairs.keyed("filterGroupBy");
    let Some(text) = pairs.one("filterGroupBy")? else {
        return Ok(keyed);
    };
    let wrong = |detail| Problem::invalid("/filterGroupBy", detail);
    if !keyed.is_empty() {
        return Err(wrong("is given beside filterGroupBy[…]: send one or the other"));
    }
    let json = serde_json::from_str::<BTreeMap<String, String>>(&text);
    let read = json.map_or_else(|_| dict(&text), |json| Some(json.into_iter().collect()));
    let read = read.ok_or_else(|| wrong("is no object of strings"))?;
    Ok(read
        .into_iter()
        .map(|(name, value)| (name, vec![value]))
        .collect())
}

/// A row; `None` where the meter has no value.
fn query_row(split: &[Split], row: &UsageRow) -> Result<Option<QueryRow>, Problem> {
    let Some(value) = row.value.clone().map_err(|problem| *problem)? else {
        return Ok(None);
    };
    let value = RawValue::from_string(value.to_string())
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let mut out = QueryRow {
        value,
        window_start: row.window.start,
        window_end: row.window.end,
        subject: None,
        customer_id: None,
        group_by: BTreeMap::new(),
    };
    for (split, text) in split.iter().zip(&row.group) {
        match split {
            Split::Subject => out.subject = Some(text.clone()),
            Split::Customer => out.customer_id = Some(text.clone()),
            Split::Dimension(name) => {
                out.group_by.insert(name.clone(), Some(text.clone()));
            }
        }
    }
    Ok(Some(out))
}

/// One JSON object whose rows are written as they are read.
async fn as_json(head: &QueryHead, split: Vec<Split>, reading: UsageReading) -> Result<Response, Problem> {
    let mut object = table::json(head)?;
    // The rows are its last field.
    object.pop();
    object.extend_from_slice(if object.len() > 1 {
        b",\"data\":["
    } else {
        b"\"data\":["
    });
    let begun = Arc::new(AtomicBool::new(false));
    let rows = parts(reading, move |rows| {
        let mut out = Vec::new();
        for row in rows {
            let Some(row) = query_row(&split, row)? else {
                continue;
            };
            // Parts are written one after the other.
            if begun.swap(true, Ordering::Relaxed) {
                out.push(b',');
            }
            out.extend(table::json(&row)?);
        }
        Ok(out)
    });
    let end = stream::iter([Ok(b"]}".to_vec())]);
    table::streamed(
        Format::Json.media_type(),
        object,
        rows.chain(end),
        table::HELD_BYTES,
    )
    .await
}

async fn as_csv(split: Vec<Split>, reading: UsageReading) -> Result<Response, Problem> {
    let mut head: Vec<String> = ["window_start", "window_end", "subject"]
        .map(str::to_owned)
        .to_vec();
    head.extend(split.contains(&Split::Customer).then(|| "customer_id".to_owned()));
    head.extend(dimensions(&split).cloned());
    head.push("value".to_owned());
    let rows = parts(reading, move |rows| {
        let rows = rows
            .iter()
            .filter_map(|row| query_row(&split, row).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        csv(rows.iter().map(|row| cells(&split, row)))
    });
    let head = csv(std::iter::once(head))?;
    table::streamed(Format::Csv.media_type(), head, rows, table::HELD_BYTES).await
}

fn dimensions(split: &[Split]) -> impl Iterator<Item = &String> {
    split.iter().filter_map(|split| match split {
        Split::Dimension(name) => Some(name),
        Split::Customer | Split::Subject => None,
    })
}

fn cells(split: &[Split], row: &QueryRow) -> Vec<String> {
    let mut cells = vec![row.window_start.to_string(), row.window_end.to_string()];
    cells.push(row.subject.clone().unwrap_or_default());
    cells.extend(row.customer_id.clone());
    cells.extend(dimensions(split).map(|name| row.group_by.get(name).cloned().flatten().unwrap_or_default()));
    cells.push(row.value.get().to_owned());
    cells
}
