//! The OpenAPI document is whole, and every operation keeps to it.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::{App, app};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_are_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let nobody = app.caller("none");
    let (_, page) = nobody.get("/docs").await;
    let page = page.as_str().expect("HTML").to_owned();
    let (_, document) = nobody.get("/openapi.json").await;
    for path in document["paths"].as_object().expect("paths").keys() {
        assert!(
            page.contains(&format!("<code>{path}</code>")),
            "{path} is not on the page"
        );
    }
    for outside in ["http://", "src=", "<script", "@import", "<link"] {
        assert!(!page.contains(outside), "the page loads something: {outside}");
    }
    let tags = document["tags"].as_array().expect("tags").iter();
    let tags: Vec<_> = tags
        .map(|tag| tag["name"].as_str().expect("a name").to_lowercase())
        .collect();
    let distinct: BTreeSet<_> = tags.iter().collect();
    assert_eq!(distinct.len(), tags.len(), "{tags:?}");
    // Every reference of the document leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().expect("an end");
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id.to_owned()), "{id} stands for two operations");
            for (status, response) in operation["responses"].as_object().expect("answers") {
                let words = response["description"].as_str().unwrap_or("");
                assert!(!words.is_empty(), "{method} {path} {status} has no words");
                let failed = status.starts_with(['4', '5']) && path != "/readyz";
                let kinds: Vec<&String> = response["content"]
                    .as_object()
                    .into_iter()
                    .flat_map(|all| all.keys())
                    .collect();
                assert!(
                    !failed || kinds == ["application/problem+json"],
                    "{method} {path} {status}: {kinds:?}"
                );
            }
        }
    }
    assert_eq!(nobody.get("/docs/errors/invalid_json").await.0, 200);
    assert_eq!(nobody.get("/docs/errors/no_such_code").await.0, 404);
}

/// Pointers of the schemas in `value` that are made of several of which one takes nothing of the others: nothing fits them.
fn unfitting(document: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let closed = |part: &Value| meant(document, part)["additionalProperties"] == false;
    let parts = value["allOf"].as_array().map_or(&[][..], Vec::as_slice);
    if parts.len() > 1 && parts.iter().any(closed) {
        found.push(at.to_owned());
    }
    let listed = value.as_array().into_iter().flatten();
    let named = value.as_object().into_iter().flatten();
    let inner = listed
        .enumerate()
        .map(|(index, inner)| (index.to_string(), inner));
    for (name, inner) in inner.chain(named.map(|(name, inner)| (name.clone(), inner))) {
        unfitting(document, inner, &format!("{at}/{name}"), found);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_schema_can_be_fitted() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let (_, document) = app.caller("none").get("/openapi.json").await;
    let mut found = Vec::new();
    unfitting(&document, &document, "", &mut found);
    assert_eq!(found, Vec::<String>::new());
    for name in ["Override", "FormerOverride", "MeterState"] {
        let schema = &document["components"]["schemas"][name];
        assert_eq!(schema["additionalProperties"], false, "{name}: {schema}");
    }
    for path in ["/v1/meters/{key}/usage", "/v1/export/usage"] {
        let kinds = &document["paths"][path]["get"]["responses"]["200"]["content"];
        assert!(
            kinds["text/csv"].is_object() && kinds["application/x-ndjson"].is_object(),
            "{path}"
        );
    }
}

/// Path with its parameters filled in, and its operations.
pub(super) fn operations(document: &Value) -> Vec<(String, Method, Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let filled: Vec<&str> = path
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect();
        for (method, operation) in item.as_object().expect("operations") {
            let method = method.to_uppercase().parse().expect("a method");
            all.push((filled.join("/"), method, operation.clone()));
        }
    }
    all
}

/// Whether the document says that an operation may answer this.
pub(super) fn declares(operation: &Value, status: u16) -> bool {
    let responses = &operation["responses"];
    let class = format!("{}XX", status / 100);
    responses[status.to_string()].is_object() || responses[class].is_object()
}

/// A schema with its references followed, and without the null of what may be left out.
pub(super) fn meant<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).expect("a schema"),
        None => schema,
    };
    match schema["oneOf"].as_array() {
        Some(either) if either.len() == 2 && either.iter().any(|one| one["type"] == "null") => {
            let other = either.iter().find(|one| one["type"] != "null");
            meant(document, other.expect("another"))
        }
        _ => schema,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_is_described_as_it_is_taken() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let (_, document) = app.caller("none").get("/openapi.json").await;
    let (mut times, mut cursors) = (0, 0);
    for (path, method, operation) in operations(&document) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            match parameter["name"].as_str() {
                Some("from" | "to") => {
                    times += 1;
                    assert_eq!(parameter["schema"]["format"], "date-time", "{method} {path}");
                }
                Some("cursor") => {
                    cursors += 1;
                    assert!(parameter["schema"]["pattern"].is_string(), "{method} {path}");
                }
                _ => {}
            }
        }
        let body = &operation["requestBody"];
        let schema = &body["content"]["application/json"]["schema"];
        let nullable = schema["oneOf"].as_array().into_iter().flatten();
        assert!(
            nullable.into_iter().all(|one| one["type"] != "null"),
            "{method} {path}: null is refused as a body"
        );
    }
    println!("{times} times, {cursors} cursors");
    assert!(times > 10 && cursors > 10, "{times} {cursors}");
    for (schema, field) in [
        ("CheckBody", "amount"),
        ("ConsumeBody", "amount"),
        ("ReserveBody", "amount"),
        ("CommitBody", "amount"),
        ("PricePreviewRequest", "quantity"),
    ] {
        let field = &document["components"]["schemas"][schema]["properties"][field];
        let kinds: Vec<&Value> = meant(&document, field)["oneOf"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| &one["type"])
            .collect();
        assert_eq!(kinds, ["string", "number"], "{schema}: {field}");
    }
    for body in [
        "/v1/events/dead-letters/replay",
        "/v1/subscriptions/{id}/cancel",
        "/v1/keys/{id}/rotate",
        "/v1/quota/reservations/{id}/commit",
    ] {
        let body = &document["paths"][body]["post"]["requestBody"];
        assert_ne!(body["required"], true, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_of_what_is_sent_are_described() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let (_, document) = app.caller("none").get("/openapi.json").await;
    let schemas = &document["components"]["schemas"];
    let kind = &schemas["MeterDefinition"]["properties"]["event_type"];
    assert_eq!((&kind["minLength"], &kind["maxLength"]), (&json!(1), &json!(512)));
    for body in ["EventInput", "OpenMeterEventInput"] {
        let fields = &schemas[body]["properties"];
        assert_eq!(fields["specversion"]["pattern"], r"^1\.0$", "{body}");
        let told = fields["time"]["description"].as_str().expect("a description");
        assert!(
            told.contains("microsecond") && told.contains(":60"),
            "{body}: {told}"
        );
    }
    let positions = &schemas["ReplayInput"]["properties"]["positions"];
    let unique = positions["uniqueItems"].as_bool().unwrap_or_default();
    assert_eq!(
        (unique, &positions["maxItems"]),
        (false, &json!(1_000)),
        "{positions}"
    );
    let forms = &meant(&document, &positions["items"])["oneOf"];
    assert_eq!(forms[0]["type"], "integer", "{forms}");
    assert_eq!(
        (&forms[0]["format"], &forms[0]["minimum"]),
        (&json!("int64"), &json!(0))
    );
    assert_eq!(
        (&forms[1]["type"], &forms[1]["pattern"]),
        (&json!("string"), &json!("^[0-9]{1,19}$"))
    );
    for (position, taken) in [
        (json!(i64::MAX), true),
        (json!(i64::MAX.to_string()), true),
        (json!(i64::MAX as u64 + 1), false),
        (json!("9223372036854775808"), false),
    ] {
        let path = "/v1/events/dead-letters/replay";
        let body = json!({"positions": [position, position]});
        let (status, answer) = app.admin().post(path, &body).await;
        assert_eq!(status == 200, taken, "{body}: {answer}");
    }
}

/// A cursor that the list of features gave.
async fn cursor_of_features(app: &App) -> String {
    for key in ["a", "b"] {
        app.admin()
            .put(&format!("/v1/features/{key}"), &json!({"kind": "boolean"}))
            .await;
    }
    let (_, page) = app.admin().get("/v1/features?limit=1").await;
    page["next_cursor"].as_str().expect("a cursor").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_refuses_what_it_does_not_take() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let (_, document) = app.caller("none").get("/openapi.json").await;
    let foreign = cursor_of_features(&app).await;
    let (mut lists, mut bodiless) = (0, 0);
    for (path, method, operation) in operations(&document) {
        if operation["security"].as_array().is_none_or(Vec::is_empty) {
            continue;
        }
        let call = async |query: &str, body: Option<&Value>| {
            let target = format!("{path}{query}");
            let answer = app.admin().send(method.clone(), &target, body).await;
            let (status, body) = answer.expect("an answer");
            assert!(declares(&operation, status), "{method} {target}: {status} {body}");
            (status, body)
        };
        let (status, body) = call("?bogus=1", None).await;
        assert_eq!(
            (status, &body["errors"][0]["pointer"]),
            (422, &json!("/bogus")),
            "{method} {path}: {body}"
        );
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        if parameters.iter().any(|one| one["name"] == "cursor") {
            lists += 1;
            for cursor in ["zzz", "0", "1.0.1", "AAAAAAAAAAAA", foreign.as_str()] {
                if path == "/v1/features" && cursor == foreign {
                    assert_eq!(call(&format!("?cursor={cursor}"), None).await.0, 200);
                    continue;
                }
                let (status, body) = call(&format!("?cursor={cursor}"), None).await;
                let known = status == 404 || (status == 422 && body["errors"][0]["pointer"] == "/cursor");
                assert!(known, "{method} {path} {cursor}: {status} {body}");
            }
            for limit in ["0", "1001", "-1", "x", "1.5"] {
                let (status, body) = call(&format!("?limit={limit}"), None).await;
                let known = status == 404 || (status == 422 && body["errors"][0]["pointer"] == "/limit");
                assert!(known, "{method} {path} {limit}: {status} {body}");
            }
        }
        if method != Method::GET && operation["requestBody"].is_null() {
            bodiless += 1;
            let (status, body) = call("", Some(&json!({"bogus": 1}))).await;
            assert_eq!(
                (status, &body["errors"][0]["pointer"]),
                (422, &json!("/bogus")),
                "{method} {path}: {body}"
            );
            let (status, body) = call("", Some(&json!({}))).await;
            assert_ne!(status, 422, "{method} {path}: {body}");
        }
    }
    println!("{lists} lists, {bodiless} operations without a body");
    assert!(lists > 10 && bodiless > 10, "{lists} {bodiless}");
}
