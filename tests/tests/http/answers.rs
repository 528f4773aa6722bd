//! Answers are what the OpenAPI document says they are.

use serde_json::{Map, Value, json};
use turnpike_tests::app::Caller;

use super::app;

/// Where and how an instance differs from a schema of the document; as much of JSON Schema as the document uses for its
/// structure.
struct Checker<'d> {
    document: &'d Value,
}

impl Checker<'_> {
    fn check(&self, schema: &Value, instance: &Value, at: &str) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = self.document.pointer(&reference[1..]).expect("a schema");
            self.check(target, instance, at)?;
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.check(part, instance, at)?;
        }
        for name in ["oneOf", "anyOf"] {
            if let Some(either) = schema[name].as_array() {
                let tried: Vec<_> = either.iter().map(|one| self.check(one, instance, at)).collect();
                if tried.iter().all(Result::is_err) {
                    return Err(format!("{at} fits none of {name}: {tried:?}"));
                }
            }
        }
        if let Some(known) = schema["enum"].as_array()
            && !known.contains(instance)
        {
            return Err(format!("{at}: {instance} is none of {known:?}"));
        }
        let kinds = match &schema["type"] {
            Value::Array(kinds) => kinds.clone(),
            Value::Null => Vec::new(),
            one => vec![one.clone()],
        };
        if !kinds.is_empty() && !kinds.iter().any(|kind| is_a(kind, instance)) {
            return Err(format!("{at}: {instance} is not of the type {kinds:?}"));
        }
        for (index, one) in instance.as_array().into_iter().flatten().enumerate() {
            self.check(&schema["items"], one, &format!("{at}/{index}"))?;
        }
        instance
            .as_object()
            .map_or(Ok(()), |members| self.members(schema, members, at))
    }

    fn members(&self, schema: &Value, members: &Map<String, Value>, at: &str) -> Result<(), String> {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !members.contains_key(name.as_str().expect("a name")) {
                return Err(format!("{at} lacks {name}"));
            }
        }
        for (name, value) in members {
            let at = format!("{at}/{name}");
            match (schema["properties"].get(name), &schema["additionalProperties"]) {
                (Some(own), _) => self.check(own, value, &at)?,
                (None, Value::Bool(false)) => return Err(format!("{at} is not described")),
                (None, other) => self.check(other, value, &at)?,
            }
        }
        Ok(())
    }
}

fn is_a(kind: &Value, instance: &Value) -> bool {
    match kind.as_str().expect("a type") {
        "null" => instance.is_null(),
        "boolean" => instance.is_boolean(),
        "integer" => instance.is_i64() || instance.is_u64(),
        "number" => instance.is_number(),
        "string" => instance.is_string(),
        "array" => instance.is_array(),
        "object" => instance.is_object(),
        other => panic!("{other} is no type"),
    }
}

/// One of everything, with a past.
async fn furnish(admin: &Caller) {
    let overriding = |limit: &str| json!({"feature": "f", "limits": [{"limit": limit, "period": "day"}]});
    let price = json!({"key": "calls", "model": "per_unit", "meter": "m", "unit_amount": "0.10"});
    let plan = json!({
        "currency": "USD", "prices": [price],
        "entitlements": [{"feature": "f", "limits": [{"limit": "100", "period": "month"}]}],
    });
    for (path, body) in [
        (
            "/v1/meters/m",
            json!({"event_type": "t", "aggregation": "count", "group_by": {"d": "$.d"}}),
        ),
        ("/v1/features/f", json!({"kind": "metered", "meter": "m"})),
        ("/v1/plans/p", plan),
        ("/v1/add-ons/o", json!({"currency": "USD"})),
        ("/v1/customers/c", json!({"subjects": ["s"]})),
        ("/v1/customers/c/grants/g", json!({"feature": "f", "amount": "5"})),
        ("/v1/customers/c/overrides/f", overriding("5")),
    ] {
        admin.put(path, &body).await;
    }
    admin
        .created("/v1/subscriptions", &json!({"customer": "c", "plan": "p"}))
        .await;
    let event = json!({"id": "1", "source": "s", "type": "t", "subject": "s", "data": {"d": "x"}});
    assert_eq!(admin.post("/v1/events", &event).await.0, 200);
    let (_, clock) = admin.get("/v1/test-clock").await;
    let now: jiff::Timestamp = clock["now"].as_str().expect("a time").parse().expect("a time");
    let later = now.as_second() + 40 * 86_400;
    let later = jiff::Timestamp::from_second(later).expect("a time").to_string();
    admin
        .created("/v1/test-clock/advance", &json!({ "to": later }))
        .await;
    admin.put("/v1/customers/c/overrides/f", &overriding("6")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_fit_their_schemas() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let key = app.tenant(&json!({"key": "t", "test": true})).await;
    let tenant = app.caller(&key);
    furnish(&tenant).await;
    let (_, document) = app.caller("none").get("/openapi.json").await;
    let checker = Checker { document: &document };
    let id_of = async |list: &str| {
        let (_, page) = tenant.get(list).await;
        page["data"][0]["id"].as_str().unwrap_or("none").to_owned()
    };
    let (subscription, api_key) = (id_of("/v1/subscriptions").await, id_of("/v1/keys").await);
    let run = id_of("/v1/billing/runs").await;
    let mut fitting = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        let schema = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            continue;
        }
        let filled = [
            ("/subscriptions/{id}", format!("/subscriptions/{subscription}")),
            ("/runs/{id}", format!("/runs/{run}")),
            ("/keys/{id}", format!("/keys/{api_key}")),
            ("/grants/{id}", "/grants/g".to_owned()),
            ("/overrides/{feature}", "/overrides/f".to_owned()),
            ("/customers/{key}", "/customers/c".to_owned()),
            ("/features/{key}", "/features/f".to_owned()),
            ("/meters/{key}", "/meters/m".to_owned()),
            ("/meters/{slug}", "/meters/m".to_owned()),
            ("/plans/{key}", "/plans/p".to_owned()),
            ("/add-ons/{key}", "/add-ons/o".to_owned()),
            ("/tenants/{key}", "/tenants/t".to_owned()),
        ];
        let filled = filled
            .iter()
            .fold(path.clone(), |path, (part, own)| path.replace(part, own));
        let caller = if path.starts_with("/v1/tenants") {
            app.admin()
        } else {
            app.caller(&key)
        };
        let (status, body) = caller.get(&filled).await;
        println!("{filled}: {status}");
        if status == 200 {
            fitting += 1;
            assert_eq!(checker.check(schema, &body, ""), Ok(()), "{filled}: {body}");
        }
    }
    let (_, customer) = tenant.get("/v1/customers/c").await;
    assert!(customer["former_overrides"][0]["until"].is_string(), "{customer}");
    println!("{fitting} answers");
    assert!(fitting > 25, "{fitting}");
}
