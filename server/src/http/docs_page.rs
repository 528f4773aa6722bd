use std::fmt::Write as _;

use serde_json::{Value, json};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
h1,h2,h3{line-height:1.25}h2{margin-top:2.5rem;border-bottom:1px solid #ccc}h3{margin-top:2rem}\
code,pre{font:14px/1.45 ui-monospace,monospace;background:#f3f3f3;border-radius:3px}code{padding:.1em .3em;overflow-wrap:anywhere}\
pre{padding:.8rem;overflow-x:auto}table{border-collapse:collapse;width:100%;margin:.5rem 0}\
td,th{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;border-bottom:1px solid #ddd}\
.m{font-weight:700;text-transform:uppercase}pre code,i code{background:none;padding:0}a{color:#0645ad}nav ul{columns:2}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}code,pre{background:#262626}a{color:#8ab4f8}td,th,h2{border-color:#444}}";

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

/// Prose as HTML: what stands between backticks is code.
pub(crate) fn prose(text: &str) -> String {
    let escaped = escape(text);
    let mut out = String::new();
    for (at, part) in escaped.split('`').enumerate() {
        match at % 2 {
            0 => out.push_str(part),
            _ => {
                let _ = write!(out, "<code>{part}</code>");
            }
        }
    }
    out
}

/// The document of the API as one page.
pub(crate) fn readable(document: &Value) -> String {
    let (mut menu, mut body) = (String::new(), String::new());
    for tag in document["tags"].as_array().into_iter().flatten() {
        let name = tag["name"].as_str().unwrap_or("");
        let _ = write!(menu, "<li><a href=\"#{0}\">{0}</a></li>", escape(name));
        let _ = write!(body, "<h2 id=\"{0}\">{0}</h2><ul>", escape(name));
        let operations = operations_of(document, name);
        for (path, method, operation) in &operations {
            let _ = write!(
                body,
                "<li><a href=\"#{}\"><code>{} {}</code></a> {}</li>",
                anchor(operation),
                method.to_uppercase(),
                escape(path),
                prose(operation["summary"].as_str().unwrap_or(""))
            );
        }
        body.push_str("</ul>");
        for (path, method, operation) in operations {
            describe(&mut body, path, method, operation, document);
        }
    }
    page(
        "API",
        &format!(
            "<h1>Turnpike API</h1><p>{}</p><p>Send <code>Authorization: Bearer &lt;API key&gt;</code>. \
             The same as a document for programs: <a href=\"/openapi.json\">OpenAPI 3.1</a>. All error codes: <a href=\"/docs/errors\">errors</a>.</p>\
             <nav><ul>{menu}</ul></nav>{body}",
            prose(document["info"]["description"].as_str().unwrap_or("")),
        ),
    )
}

/// Path, method and operation of everything under a tag.
fn operations_of<'a>(document: &'a Value, tag: &str) -> Vec<(&'a str, &'a str, &'a Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let all = paths.flat_map(|(path, item)| {
        let operations = item.as_object().into_iter().flatten();
        operations.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    });
    all.filter(|(_, _, operation)| {
        let tags = operation["tags"].as_array();
        tags.is_some_and(|tags| tags.iter().any(|one| one == tag))
    })
    .collect()
}

fn anchor(operation: &Value) -> String {
    escape(operation["operationId"].as_str().unwrap_or(""))
}

fn describe(out: &mut String, path: &str, method: &str, operation: &Value, document: &Value) {
    let text = |value: &Value| prose(value.as_str().unwrap_or(""));
    let _ = write!(
        out,
        "<h3 id=\"{}\"><span class=\"m\">{}</span> <code>{}</code></h3><p>{}</p>",
        anchor(operation),
        escape(method),
        escape(path),
        text(&operation["summary"])
    );
    if let Some(more) = operation["description"].as_str() {
        let _ = write!(out, "<p>{}</p>", prose(more).replace("\n\n", "</p><p>"));
    }
    let scopes: Vec<String> = operation["security"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|one| one["api_key"].as_array().cloned().unwrap_or_default())
        .filter_map(|scope| Some(format!("<code>{}</code>", escape(scope.as_str()?))))
        .collect();
    if !scopes.is_empty() {
        let _ = write!(out, "<p>Scope: {}</p>", scopes.join(" or "));
    }
    if let Some(all) = operation["parameters"].as_array() {
        parameters(out, all);
    }
    contents(out, "Body", &operation["requestBody"]["content"], document);
    out.push_str("<table><thead><tr><th>status</th><th>meaning</th></tr></thead><tbody>");
    let responses = || operation["responses"].as_object().into_iter().flatten();
    for (status, response) in responses() {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td></tr>",
            escape(status),
            text(&response["description"])
        );
    }
    out.push_str("</tbody></table>");
    for (_, response) in responses().filter(|(status, _)| status.starts_with('2')) {
        contents(out, "Answer", &response["content"], document);
    }
}

fn parameters(out: &mut String, all: &[Value]) {
    out.push_str("<table><thead><tr><th>parameter</th><th>in</th><th>meaning</th></tr></thead><tbody>");
    for parameter in all {
        let text = |name: &str| parameter[name].as_str().unwrap_or("");
        let _ = write!(
            out,
            "<tr><td><code>{}</code></td><td>{}{}</td><td>{}</td></tr>",
            escape(text("name")),
            escape(text("in")),
            if parameter["required"] == true {
                ", required"
            } else {
                ""
            },
            prose(text("description"))
        );
    }
    out.push_str("</tbody></table>");
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
    if let Some(parts) = schema["allOf"].as_array() {
        let mut whole = json!({"properties": {}, "required": []});
        for part in parts {
            merge(&mut whole, part, document);
        }
        return shape(out, &whole, document, depth);
    }
    if let Some(options) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        let given: Vec<&Value> = options.iter().filter(|one| one["type"] != "null").collect();
        for (at, one) in given.iter().enumerate() {
            if at > 0 {
                out.push_str(" or ");
            }
            shape(out, one, document, depth + usize::from(given.len() > 1));
        }
        if given.len() < options.len() {
            out.push_str("|null");
        }
        return;
    }
    if let Some(values) = schema["enum"].as_array() {
        let words: Vec<String> = values.iter().map(|value| escape(&value.to_string())).collect();
        out.push_str(&words.join("|"));
        return;
    }
    if schema["properties"].is_object() {
        return members(out, schema, document, depth);
    }
    let kinds = schema["type"].as_array().map_or(&[][..], Vec::as_slice);
    if schema["type"] == "array" || kinds.iter().any(|kind| kind == "array") {
        out.push('[');
        shape(out, &schema["items"], document, depth);
        out.push_str(if kinds.is_empty() { ", …]" } else { ", …]|null" });
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

/// The members of an object, each in a line.
fn members(out: &mut String, schema: &Value, document: &Value, depth: usize) {
    let pad = "  ".repeat(depth + 1);
    let required = |name: &str| {
        let all = schema["required"].as_array();
        all.is_some_and(|all| all.iter().any(|one| one == name))
    };
    out.push('{');
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let mark = if required(name) { "" } else { "?" };
        let _ = write!(out, "\n{pad}\"{}\"{mark}: ", escape(name));
        shape(out, property, document, depth + 1);
        if let Some(note) = property["description"].as_str() {
            let _ = write!(out, "   <i>{}</i>", prose(note.lines().next().unwrap_or("")));
        }
    }
    let _ = write!(out, "\n{}}}", "  ".repeat(depth));
}

/// Adds the members of an object's part to the whole.
fn merge(whole: &mut Value, part: &Value, document: &Value) {
    let part = match part["$ref"].as_str() {
        Some(reference) => {
            let name = reference.rsplit('/').next().unwrap_or("");
            &document["components"]["schemas"][name]
        }
        None => part,
    };
    for inner in part["allOf"].as_array().into_iter().flatten() {
        merge(whole, inner, document);
    }
    for (name, property) in part["properties"].as_object().into_iter().flatten() {
        whole["properties"][name] = property.clone();
    }
    if let (Some(all), Some(more)) = (whole["required"].as_array_mut(), part["required"].as_array()) {
        all.extend(more.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backticks_are_code_and_nothing_is_markup() {
        assert_eq!(
            prose("send `a<b` & <i>"),
            "send <code>a&lt;b</code> &amp; &lt;i&gt;"
        );
    }

    #[test]
    fn an_operation_has_its_place_and_every_answer_that_succeeds() {
        let document = json!({
            "tags": [{"name": "Things"}],
            "paths": {"/v1/things": {"post": {"tags": ["Things"], "operationId": "make_thing", "summary": "Makes one.",
                "responses": {"201": {"description": "Made", "content": {"application/json": {"schema":
                    {"allOf": [{"$ref": "#/components/schemas/Name"}, {"properties": {"n": {"type": ["array", "null"], "items": {"type": "integer"}}}}]}}}},
                    "422": {"description": "Wrong", "content": {"application/json": {"schema": {"type": "boolean"}}}}}}}},
            "components": {"schemas": {"Name": {"properties": {"name": {"type": "string"}}, "required": ["name"]}}}
        });
        let page = readable(&document);
        assert!(
            page.contains("<a href=\"#make_thing\"><code>POST /v1/things</code></a> Makes one."),
            "{page}"
        );
        assert!(page.contains("<h3 id=\"make_thing\">"), "{page}");
        let shape = "{\n  \"name\": string\n  \"n\"?: [integer, …]|null\n}";
        assert!(page.contains(shape), "{page}");
        assert!(!page.contains("boolean"), "only what succeeds is shown: {page}");
    }
}
