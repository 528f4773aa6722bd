//! Each value of each body that the document describes, sent in another shape: a list in the place of an object, an
//! object in that of a word.

use serde_json::{Map, Value, json};

use super::app;
use super::document::{declares, meant, operations};

/// A place in a body, from its top down, and what the document wants there.
struct Place<'d> {
    steps: Vec<Step<'d>>,
    schema: &'d Value,
}

/// One step into a body.
#[derive(Clone)]
enum Step<'d> {
    /// To the member of an object that this schema describes.
    Member(String, &'d Value),
    /// To the only item of a list.
    Item,
}

impl Place<'_> {
    fn pointer(&self) -> String {
        let names = self.steps.iter().map(|step| match step {
            Step::Member(name, _) => format!("/{name}"),
            Step::Item => "/0".to_owned(),
        });
        names.collect()
    }

    /// A body with `value` at this place, and around it what must be there.
    fn body(&self, document: &Value, value: Value) -> Value {
        self.steps.iter().rev().fold(value, |inner, step| match step {
            Step::Item => json!([inner]),
            Step::Member(name, object) => {
                let mut members = Map::from_iter([(name.clone(), inner)]);
                for required in required(object).filter(|required| required != name) {
                    let schema = &object["properties"][required];
                    members.insert(required.to_owned(), sample(document, schema));
                }
                Value::Object(members)
            }
        })
    }

    /// Values that are of no kind that the document allows here.
    fn wrong(&self) -> Vec<Value> {
        if let Some(words) = self.schema["enum"].as_array() {
            let word = words[0].as_str().expect("a word");
            return vec![json!({ word: null }), json!({}), json!([word]), json!(5)];
        }
        match kind(self.schema) {
            Some("object") => vec![json!([]), json!(["x"]), json!("x"), json!(5)],
            Some("array") => vec![json!({}), json!("x")],
            Some(_) => vec![json!({}), json!([])],
            None => Vec::new(),
        }
    }
}

/// The names of what an object must have.
fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Something of the right kind.
fn sample(document: &Value, schema: &Value) -> Value {
    let schema = meant(document, schema);
    if let Some(words) = schema["enum"].as_array() {
        return words[0].clone();
    }
    match kind(schema) {
        Some("object") => {
            let members = required(schema).map(|name| {
                let member = sample(document, &schema["properties"][name]);
                (name.to_owned(), member)
            });
            Value::Object(members.collect())
        }
        Some("array") => json!([]),
        _ if schema["pattern"] == "^[A-Z]{3}$" => json!("USD"),
        _ if schema["format"] == "date-time" => json!("2026-01-01T00:00:00Z"),
        _ => json!("1"),
    }
}

/// The kind that a schema names; none where it allows several.
fn kind(schema: &Value) -> Option<&str> {
    match &schema["type"] {
        Value::Array(kinds) => kinds
            .iter()
            .filter_map(Value::as_str)
            .find(|kind| *kind != "null"),
        kind => kind.as_str(),
    }
}

/// This place and all within it.
fn places<'d>(document: &'d Value, steps: &[Step<'d>], schema: &'d Value, found: &mut Vec<Place<'d>>) {
    let schema = meant(document, schema);
    let mut within = |step: Step<'d>, inner: &'d Value| {
        let steps = [steps, &[step]].concat();
        places(document, &steps, inner, found);
    };
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        within(Step::Member(name.clone(), schema), field);
    }
    if schema["items"].is_object() {
        within(Step::Item, &schema["items"]);
    }
    if schema["additionalProperties"].is_object() {
        within(
            Step::Member("k".to_owned(), schema),
            &schema["additionalProperties"],
        );
    }
    let steps = steps.to_vec();
    found.push(Place { steps, schema });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_of_every_body_must_have_its_shape() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let (_, document) = app.caller("none").get("/openapi.json").await;
    let mut wrong = Vec::new();
    let (mut bodies, mut tried) = (0, 0);
    for (path, method, operation) in operations(&document) {
        let content = &operation["requestBody"]["content"];
        let list_too = content["application/cloudevents-batch+json"].is_object();
        let schema = &content["application/json"]["schema"];
        if schema.is_null() {
            continue;
        }
        bodies += 1;
        let mut found = Vec::new();
        places(&document, &[], schema, &mut found);
        for place in found {
            for value in place.wrong() {
                if list_too && place.steps.is_empty() && value.is_array() {
                    continue;
                }
                let body = place.body(&document, value);
                let answer = app.admin().send(method.clone(), &path, Some(&body)).await;
                let (status, answer) = answer.expect("an answer");
                tried += 1;
                let pointer = json!(place.pointer());
                let said = status == 422 && answer["errors"][0]["pointer"] == pointer;
                if !said || !declares(&operation, status) {
                    wrong.push(format!("{method} {path} {body}: {status} {answer}"));
                }
            }
        }
    }
    println!("{tried} values in {bodies} bodies");
    assert!(bodies > 25 && tried > 1_000, "{tried} in {bodies}");
    assert!(
        wrong.is_empty(),
        "{} taken otherwise:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
