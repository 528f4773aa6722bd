use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use serde_json::Value;
use turnpike_domain::limits::{IDEMPOTENCY_KEY_CHARS_MAX, IDEMPOTENT_ANSWER_DAYS};
use turnpike_http::ProblemBody;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Required, Response, Tag};

use super::error_pages;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
h1,h2,h3{line-height:1.25}h2{margin-top:2.5rem;border-bottom:1px solid #ccc}h3{margin-top:2rem}\
code,pre{font:14px/1.45 ui-monospace,monospace;background:#f3f3f3;border-radius:3px}code{padding:.1em .3em}\
pre{padding:.8rem;overflow-x:auto}table{border-collapse:collapse;width:100%;margin:.5rem 0}\
td,th{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;border-bottom:1px solid #ddd}\
.m{font-weight:700;text-transform:uppercase}a{color:#0645ad}nav ul{columns:2}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}code,pre{background:#262626}a{color:#8ab4f8}td,th,h2{border-color:#444}}";

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

/// What holds for all operations: the security scheme, and failures as problems.
pub(crate) fn complete(document: &mut OpenApi) {
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
            add_failures(operation);
            describe_answers(operation);
        }
    }
    tags.sort();
    tags.dedup();
    document.tags = Some(tags.into_iter().map(Tag::new).collect());
}

/// Calls that are sent like changing ones and change nothing.
const READING: &[&str] = &[
    "/v1/quota/check",
    "/v1/quota/batch",
    "/v1/catalog/diff",
    "/v1/fees/preview",
    "/v1/price/preview",
    "/v1/invoices/{id}/verify",
];

/// Every changing call takes the header, whichever handler serves it.
fn take_idempotency_key(operation: &mut Operation) {
    let words = format!(
        "Makes the call happen once: the same key with the same call is answered as it was first, marked by \
         `idempotent-replayed: true`; with another call it is 409. 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible characters. \
         Answers of events and quotas are kept {IDEMPOTENT_ANSWER_DAYS} days, all others for good. The `RateLimit` headers of \
         a quota call tell its own moment and are not repeated."
    );
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(IDEMPOTENCY_KEY_CHARS_MAX))
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
pub(crate) fn router(document: &Arc<OpenApi>) -> Router {
    let json: Arc<str> = document.to_json().unwrap_or_default().into();
    let html: Arc<str> = readable(&serde_json::from_str(&json).unwrap_or_default()).into();
    Router::new()
        .route("/openapi.json", get(openapi_json))
        .route("/docs", get(readable_page))
        .with_state(Pages { json, html })
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operations", responses(
    (status = 200, description = "OpenAPI 3.1, made from the handlers themselves", body = serde_json::Value, content_type = "application/json"),
))]
async fn openapi_json(State(pages): State<Pages>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        pages.json.to_string(),
    )
}

/// The same as a page to read, without scripts.
#[utoipa::path(get, path = "/docs", tag = "operations", responses(
    (status = 200, description = "HTML", body = String, content_type = "text/html"),
))]
async fn readable_page(State(pages): State<Pages>) -> Html<String> {
    Html(pages.html.to_string())
}

/// A page of our own: no scripts, nothing loaded.
pub(crate) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{} · Turnpike</title><style>{STYLE}</style></head><body>{body}</body></html>",
        escape(title)
    )
}

/// Text as HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn readable(document: &Value) -> String {
    let (mut menu, mut body) = (String::new(), String::new());
    for tag in document["tags"].as_array().into_iter().flatten() {
        let name = tag["name"].as_str().unwrap_or("");
        let _ = write!(menu, "<li><a href=\"#{0}\">{0}</a></li>", escape(name));
        let _ = write!(body, "<h2 id=\"{0}\">{0}</h2>", escape(name));
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                let tagged = operation["tags"]
                    .as_array()
                    .is_some_and(|tags| tags.iter().any(|one| one == name));
                if tagged {
                    describe(&mut body, path, method, operation, document);
                }
            }
        }
    }
    page(
        "API",
        &format!(
            "<h1>Turnpike API</h1><p>{}</p><p>Send <code>Authorization: Bearer &lt;API key&gt;</code>. \
             The same as a document for programs: <a href=\"/openapi.json\">OpenAPI 3.1</a>. All error codes: <a href=\"/docs/errors\">errors</a>.</p>\
             <nav><ul>{menu}</ul></nav>{body}",
            escape(document["info"]["description"].as_str().unwrap_or("")),
        ),
    )
}

fn describe(out: &mut String, path: &str, method: &str, operation: &Value, document: &Value) {
    let text = |value: &Value| escape(value.as_str().unwrap_or(""));
    let _ = write!(
        out,
        "<h3><span class=\"m\">{}</span> <code>{}</code></h3><p>{}</p>",
        escape(method),
        escape(path),
        text(&operation["summary"])
    );
    if let Some(more) = operation["description"].as_str() {
        let _ = write!(out, "<p>{}</p>", escape(more).replace("\n\n", "</p><p>"));
    }
    let scopes: Vec<String> = operation["security"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|one| one["api_key"].as_array().cloned().unwrap_or_default())
        .filter_map(|scope| {
            scope
                .as_str()
                .map(|scope| format!("<code>{}</code>", escape(scope)))
        })
        .collect();
    if !scopes.is_empty() {
        let _ = write!(out, "<p>Scope: {}</p>", scopes.join(" or "));
    }
    if let Some(parameters) = operation["parameters"].as_array() {
        out.push_str("<table><thead><tr><th>parameter</th><th>in</th><th>meaning</th></tr></thead><tbody>");
        for parameter in parameters {
            let required = if parameter["required"] == true {
                ", required"
            } else {
                ""
            };
            let _ = write!(
                out,
                "<tr><td><code>{}</code></td><td>{}{required}</td><td>{}</td></tr>",
                text(&parameter["name"]),
                text(&parameter["in"]),
                text(&parameter["description"])
            );
        }
        out.push_str("</tbody></table>");
    }
    contents(out, "Body", &operation["requestBody"]["content"], document);
    out.push_str("<table><thead><tr><th>status</th><th>meaning</th></tr></thead><tbody>");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td></tr>",
            escape(status),
            text(&response["description"])
        );
    }
    out.push_str("</tbody></table>");
    contents(out, "Answer", &operation["responses"]["200"]["content"], document);
}

fn contents(out: &mut String, title: &str, content: &Value, document: &Value) {
    for (kind, media) in content.as_object().into_iter().flatten() {
        let _ = write!(out, "<p>{title} (<code>{}</code>):</p><pre>", escape(kind));
        shape(out, &media["schema"], document, 0);
        out.push_str("</pre>");
    }
}

/// A schema as an example would look, with types in place of values.
fn shape(out: &mut String, schema: &Value, document: &Value, depth: usize) {
    const DEPTH_MAX: usize = 5;
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or("");
        if depth >= DEPTH_MAX {
            out.push_str(&escape(name));
            return;
        }
        return shape(out, &document["components"]["schemas"][name], document, depth);
    }
    if let Some(options) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        let given: Vec<&Value> = options.iter().filter(|one| one["type"] != "null").collect();
        for (at, one) in given.iter().enumerate() {
            if at > 0 {
                out.push_str(" or ");
            }
            shape(out, one, document, depth + usize::from(given.len() > 1));
        }
        return;
    }
    if let Some(values) = schema["enum"].as_array() {
        let words: Vec<String> = values.iter().map(|value| escape(&value.to_string())).collect();
        out.push_str(&words.join("|"));
        return;
    }
    let pad = "  ".repeat(depth + 1);
    if let Some(properties) = schema["properties"].as_object() {
        out.push('{');
        for (name, property) in properties {
            let required = schema["required"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one == name));
            let _ = write!(
                out,
                "\n{pad}\"{}\"{}: ",
                escape(name),
                if required { "" } else { "?" }
            );
            shape(out, property, document, depth + 1);
            if let Some(note) = property["description"].as_str() {
                let _ = write!(out, "   <i>{}</i>", escape(note.lines().next().unwrap_or("")));
            }
        }
        let _ = write!(out, "\n{}}}", "  ".repeat(depth));
        return;
    }
    if schema["type"] == "array" {
        out.push('[');
        shape(out, &schema["items"], document, depth);
        out.push_str(", …]");
        return;
    }
    let kind = match &schema["type"] {
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => kinds
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join("|"),
        _ => "any".to_owned(),
    };
    out.push_str(&escape(&kind));
}
