use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use turnpike_domain::limits::{BODY_BYTES_MAX, IDEMPOTENCY_KEY_CHARS_MAX, IDEMPOTENT_ANSWER_DAYS};
use turnpike_http::ProblemBody;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Required, Response, Tag};

use super::error_pages;

use super::docs_flat::flatten;
use super::docs_page::readable;

const PROBLEM: &str = "application/problem+json";
const PROBLEM_SCHEMA: &str = "ProblemBody";
const REFUSED: &str = "The request cannot be served as it is: `code` and `detail` say why.";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Turnpike",
        description = "Usage metering, quotas and billing. Quantities and unit prices are decimal strings in answers; times are RFC 3339 in UTC; every failure is application/problem+json with a stable code.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ProblemBody)),
    paths(openapi_json, readable_page, error_pages::all, error_pages::one)
)]
struct Preamble;

/// The document before the services' paths are in it.
pub(crate) fn preamble() -> OpenApi {
    Preamble::openapi()
}

/// What holds for all operations: the security scheme, and failures as problems. Schemas that nothing would fit are written out.
pub(crate) fn complete(document: &mut OpenApi) {
    flatten(document);
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "An API key. Each operation names the scope that it needs; `admin` includes all.",
        ))
        .build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("api_key", SecurityScheme::Http(scheme));
    let mut tags: Vec<String> = Vec::new();
    let mut ids: BTreeSet<String> = BTreeSet::new();
    for (path, item) in &mut document.paths.paths {
        let operations = [
            ("get", &mut item.get),
            ("put", &mut item.put),
            ("post", &mut item.post),
            ("delete", &mut item.delete),
            ("patch", &mut item.patch),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            tags.extend(operation.tags.clone().unwrap_or_default());
            name_apart(operation, method, path, &mut ids);
            if method != "get" && !READING.contains(&path.as_str()) {
                take_idempotency_key(operation);
            }
            once_each(operation);
            leave_out_null(operation);
            add_failures(operation);
            describe_answers(operation);
        }
    }
    tags.sort();
    tags.dedup();
    document.tags = Some(tags.into_iter().map(Tag::new).collect());
}

/// Takes out what is described twice: a parameter of the path is found in the handler's arguments too.
fn once_each(operation: &mut Operation) {
    let Some(parameters) = operation.parameters.as_mut() else {
        return;
    };
    parameters.sort_by_key(|one| matches!(one, RefOr::T(one) if one.description.is_none()));
    let mut seen = Vec::new();
    parameters.retain(|one| {
        let RefOr::T(one) = one else { return true };
        let this = (one.name.clone(), one.parameter_in.clone());
        let new = !seen.contains(&this);
        seen.push(this);
        new
    });
}

/// A body that may be left out is described as one that may be null; sent as null it is refused.
fn leave_out_null(operation: &mut Operation) {
    let Some(RefOr::T(body)) = &mut operation.request_body else {
        return;
    };
    for content in body.content.values_mut() {
        let RefOr::T(content) = content else { continue };
        let Some(RefOr::T(Schema::OneOf(either))) = &content.schema else {
            continue;
        };
        if let [RefOr::Ref(one), _] | [_, RefOr::Ref(one)] = &either.items[..] {
            content.schema = Some(RefOr::Ref(one.clone()));
        }
    }
}

/// Calls that are sent like changing ones and change nothing.
const READING: &[&str] = &[
    "/v1/quota/check",
    "/v1/quota/batch",
    "/v1/catalog/diff",
    "/v1/fees/preview",
    "/v1/price/preview",
    "/v1/invoices/verify",
    "/v1/invoices/{id}/verify",
];

/// Every changing call takes the header, whichever handler serves it.
fn take_idempotency_key(operation: &mut Operation) {
    let words = format!(
        "Makes the call happen once: the same key with the same call is answered as it was first, marked by \
         `idempotent-replayed: true`; with another call it is 409. 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible characters. \
         Answers of events and quotas are kept {IDEMPOTENT_ANSWER_DAYS} days, all others for good, with the \
         `RateLimit` headers of a quota call's limits. Events under a key, a stream of them too, arrive whole before any is \
         taken: at most {BODY_BYTES_MAX} bytes as sent. Their own ids tell repeats without one."
    );
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(IDEMPOTENCY_KEY_CHARS_MAX))
        .pattern(Some("^[ -~]+$"))
        .build();
    let header = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(words))
        .schema(Some(text));
    operation
        .parameters
        .get_or_insert_default()
        .push(RefOr::T(header.build()));
}

/// An operation's id is its handler's name unless said; where another has it, its method and path are.
fn name_apart(operation: &mut Operation, method: &str, path: &str, ids: &mut BTreeSet<String>) {
    let given = operation.operation_id.clone().unwrap_or_default();
    if !given.is_empty() && ids.insert(given) {
        return;
    }
    let words = path
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let id = std::iter::once(method).chain(words).collect::<Vec<_>>().join("_");
    ids.insert(id.clone());
    operation.operation_id = Some(id);
}

/// Each answer has words (the status's own where the handler gives none), and each failure is a problem.
fn describe_answers(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if response.description.is_empty() {
            let words = StatusCode::from_bytes(status.as_bytes()).ok();
            let words = words.and_then(|status| status.canonical_reason());
            response.description = words.unwrap_or(REFUSED).into();
        }
        if status.starts_with(['4', '5']) && response.content.values().any(is_problem) {
            response.content.clear();
            response.content.insert(PROBLEM.to_owned(), problem_content());
        }
    }
}

fn is_problem(content: &RefOr<Content>) -> bool {
    let name = Ref::from_schema_name(PROBLEM_SCHEMA).ref_location;
    matches!(content, RefOr::T(Content { schema: Some(RefOr::Ref(one)), .. }) if one.ref_location == name)
}

fn problem_content() -> RefOr<Content> {
    RefOr::T(Content::new(Some(RefOr::Ref(Ref::from_schema_name(
        PROBLEM_SCHEMA,
    )))))
}

/// Every operation behind a key can answer these; others it names itself.
fn add_failures(operation: &mut Operation) {
    // The macro reads `4XX` as a number and a suffix.
    if let Some(response) = operation.responses.responses.remove("4") {
        operation.responses.responses.insert("4XX".to_owned(), response);
    }
    let secured = operation.security.as_ref().is_some_and(|all| !all.is_empty());
    let mut common = vec![("500", "A defect of the server.")];
    if secured {
        common.extend([
            ("4XX", REFUSED),
            ("401", "No valid API key was sent."),
            ("403", "The key lacks the scope, or the tenant is suspended."),
            ("429", "Too many calls; see Retry-After."),
            ("503", "Overloaded, or a part is not ready; see Retry-After."),
        ]);
    }
    for (status, description) in common {
        let mut response = Response::new(description);
        response.content.insert(PROBLEM.to_owned(), problem_content());
        operation
            .responses
            .responses
            .entry(status.to_owned())
            .or_insert(RefOr::T(response));
    }
}

/// The document in its two forms, both made once.
#[derive(Clone)]
struct Pages {
    json: Arc<str>,
    html: Arc<str>,
}

/// `/openapi.json` and `/docs`.
pub(crate) fn router(document: &OpenApi) -> Router {
    let json: Arc<str> = document.to_json().unwrap_or_default().into();
    let html: Arc<str> = readable(&serde_json::from_str(&json).unwrap_or_default()).into();
    Router::new()
        .route("/openapi.json", get(openapi_json))
        .route("/docs", get(readable_page))
        .with_state(Pages { json, html })
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "Operations", responses(
    (status = 200, description = "OpenAPI 3.1, made from the handlers themselves", body = serde_json::Value, content_type = "application/json"),
))]
async fn openapi_json(State(pages): State<Pages>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        pages.json.to_string(),
    )
}

/// The same as a page to read, without scripts.
#[utoipa::path(get, path = "/docs", tag = "Operations", responses(
    (status = 200, description = "HTML", body = String, content_type = "text/html"),
))]
async fn readable_page(State(pages): State<Pages>) -> Html<String> {
    Html(pages.html.to_string())
}
