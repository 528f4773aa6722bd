//! The audit log: listed by page, and exported as a whole.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::limits::PAGE_ROWS_MAX;
use turnpike_domain::port::control::{AuditEntry, AuditFilter, PageAfter};
use turnpike_domain::problem::Problem;
use turnpike_domain::time::{TimeRange, Timestamp};
use turnpike_http::{Caller, Format, Page, PageQuery, Params, ProblemBody, Reply, csv, ndjson};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::administration::Administration;

pub(super) fn router() -> OpenApiRouter<Arc<Administration>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(export))
}

/// Which entries are wanted.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// By one API key.
    actor: Option<String>,
    /// With this action, such as `plan.put`, or all that begin with it and a dot, such as `security`.
    action: Option<String>,
    /// To one object, such as `plan/pro`.
    object: Option<String>,
    /// From this instant on.
    #[param(value_type = Option<String>, format = DateTime)]
    #[serde(default, deserialize_with = "turnpike_http::optional_time")]
    from: Option<Timestamp>,
    /// Before this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    #[serde(default, deserialize_with = "turnpike_http::optional_time")]
    to: Option<Timestamp>,
}

/// How an export is written.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct ExportQuery {
    /// `csv` (one row per entry) or `ndjson` (one entry per line), before `Accept`; `csv` unless said.
    format: Option<String>,
}

impl AuditQuery {
    fn filter(&self) -> AuditFilter {
        let all = TimeRange::ALL;
        AuditFilter {
            actor: self.actor.clone(),
            action: self.action.clone(),
            object: self.object.clone(),
            range: Some(TimeRange::new(
                self.from.unwrap_or(all.start),
                self.to.unwrap_or(all.end),
            )),
        }
    }
}

/// Lists entries of the audit log, newest first.
#[utoipa::path(
    get, path = "/v1/audit", tag = "Audit", operation_id = "list_audit", params(PageQuery, AuditQuery),
    responses((status = 200, body = Page<AuditEntry>), (status = 4XX, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn list(
    State(administration): State<Arc<Administration>>,
    caller: Caller,
    page: PageQuery,
    Params(query): Params<AuditQuery>,
) -> Reply<Json<Page<AuditEntry>>> {
    caller.require(Scope::Admin)?;
    let rows = administration
        .store
        .audit(caller.tenant, query.filter(), page.with_one_more())
        .await?;
    Ok(Json(page.cut(rows, |entry| entry.id.to_string())))
}

/// Writes all entries that match, newest first, as CSV or NDJSON.
#[utoipa::path(
    get, path = "/v1/export/audit", tag = "Audit", operation_id = "export_audit", params(ExportQuery, AuditQuery),
    responses(
        (status = 200, content((String = "text/csv"), (String = "application/x-ndjson"))),
        (status = 4XX, body = ProblemBody),
    ),
    security(("api_key" = ["admin"]))
)]
async fn export(
    State(administration): State<Arc<Administration>>,
    caller: Caller,
    Params(export): Params<ExportQuery>,
    Params(query): Params<AuditQuery>,
    headers: HeaderMap,
) -> Reply<Response> {
    caller.require(Scope::Admin)?;
    let format = Format::of_export(export.format.as_deref(), &headers)?;
    let content_type = format.media_type();
    let pages = Pages {
        tenant: caller.tenant,
        filter: query.filter(),
        format,
        next: Some(page_after(None)),
        administration,
    };
    let stream = futures_util::stream::try_unfold(pages, Pages::next);
    Ok(([(header::CONTENT_TYPE, content_type)], Body::from_stream(stream)).into_response())
}

/// An export on its way, one page in memory at a time.
struct Pages {
    administration: Arc<Administration>,
    tenant: TenantId,
    filter: AuditFilter,
    format: Format,
    /// The next page; `None` behind the last.
    next: Option<PageAfter>,
}

impl Pages {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Problem> {
        let Some(page) = self.next.take() else {
            return Ok(None);
        };
        let first = page.after.is_none();
        let rows = self
            .administration
            .store
            .audit(self.tenant, self.filter.clone(), page)
            .await?;
        if rows.len() == PAGE_ROWS_MAX {
            self.next = rows.last().map(|entry| page_after(Some(entry.id.to_string())));
        }
        let bytes = match self.format {
            Format::Csv => csv_of(&rows, first)?,
            Format::Ndjson | Format::Json => ndjson(&rows)?,
        };
        Ok(Some((bytes.into(), self)))
    }
}

const fn page_after(after: Option<String>) -> PageAfter {
    PageAfter {
        after,
        rows: PAGE_ROWS_MAX,
    }
}

fn csv_of(rows: &[AuditEntry], heading: bool) -> Result<Vec<u8>, Problem> {
    let names = ["id", "at", "actor", "request_id", "action", "object", "detail"];
    let head = heading.then(|| names.map(str::to_owned));
    let rows = rows.iter().map(|entry| {
        [
            entry.id.to_string(),
            entry.at.to_string(),
            entry.actor.clone(),
            entry.request_id.clone(),
            entry.action.clone(),
            entry.object.clone(),
            entry.detail.to_string(),
        ]
    });
    csv(head.into_iter().chain(rows))
}
