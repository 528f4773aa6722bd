//! The kinds of requests of the mix, and how often each is sent.

use std::fmt::Write as _;

use super::client::{Call, Change, Client, Then};
use crate::job::{EventId, event, tokens};

/// Ids of the mix differ from those of what was there before by this number of their run.
const EPOCH: u64 = 77;
/// Events in a batch of the mix, and checks in one.
const EVENTS: u64 = 100;
const CHECKS: u64 = 50;
/// The month that usage is asked for.
const MONTH: &str = "from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z";

/// A kind of request.
pub struct Kind {
    /// Its name in the table.
    pub name: &'static str,
    /// How many of the requests are of this kind, beside the shares of the others.
    pub share: u32,
    /// Makes one; none where the client has nothing to go on with.
    pub make: Make,
}

/// How a request is made.
pub enum Make {
    /// A GET of a path, and what the answer says.
    Get(fn(&mut Client) -> String, &'static str),
    /// Anything else.
    Call(fn(&mut Client) -> Call),
    /// What goes on with something that the client did before.
    Next(fn(&mut Client) -> Option<Call>),
}

impl Kind {
    /// One request of this kind.
    pub fn make(&self, client: &mut Client) -> Option<Call> {
        match self.make {
            Make::Get(path, says) => Some(Call::new("GET", &path(client), "", says)),
            Make::Call(call) => Some(call(client)),
            Make::Next(call) => call(client),
        }
    }
}

const fn get(name: &'static str, share: u32, path: fn(&mut Client) -> String, says: &'static str) -> Kind {
    let make = Make::Get(path, says);
    Kind { name, share, make }
}

const fn call(name: &'static str, share: u32, call: fn(&mut Client) -> Call) -> Kind {
    let make = Make::Call(call);
    Kind { name, share, make }
}

const fn next(name: &'static str, share: u32, call: fn(&mut Client) -> Option<Call>) -> Kind {
    let make = Make::Next(call);
    Kind { name, share, make }
}

/// All kinds.
pub const KINDS: &[Kind] = &[
    call("event", 150, one_event),
    call("events, a batch", 30, events),
    call("events, OpenMeter", 20, openmeter_event),
    next("event amended", 10, amend),
    next("event voided", 5, void),
    get(
        "events of a customer",
        10,
        |client| format!("/v1/events?customer={}&limit=20", client.customer()),
        "\"data\":[",
    ),
    get("events, last", 5, |_| "/v1/events?limit=100".into(), "\"data\":["),
    get("event by id", 10, event_by_id, "\"data\":["),
    get(
        "dead letters",
        5,
        |_| "/v1/events/dead-letters".into(),
        "\"data\":[",
    ),
    call("check", 250, check),
    call("checks, a batch", 20, checks),
    call("consume", 80, consume),
    call("reserve", 40, reserve),
    next("commit", 25, commit),
    next("release", 15, release),
    get(
        "entitlements",
        20,
        |client| format!("/v1/customers/{}/entitlements", client.customer()),
        "\"limits\"",
    ),
    get(
        "reservations",
        5,
        |client| format!("/v1/quota/reservations?customer={}", client.customer()),
        "\"data\":[",
    ),
    get(
        "usage of a customer by hour",
        40,
        |client| {
            usage(
                "tokens",
                &format!("customer={}&window=hour&limit=1000", client.customer()),
            )
        },
        "\"data\":[",
    ),
    get(
        "usage of all by day",
        20,
        |_| usage("tokens", "window=day"),
        "\"data\":[",
    ),
    get(
        "usage by model",
        10,
        |_| usage("by_model", "group_by=model"),
        "\"data\":[",
    ),
    get(
        "usage, top customers",
        10,
        |_| usage("tokens", "group_by=customer&limit=100"),
        "\"data\":[",
    ),
    get("usage, OpenMeter", 10, openmeter_usage, "\"data\":["),
    get(
        "usage, exported",
        5,
        |client| {
            format!(
                "/v1/export/usage?meter=tokens&customer={}&{MONTH}",
                client.customer()
            )
        },
        "tokens",
    ),
    get("meters", 10, |_| "/v1/meters".into(), "\"data\":["),
    get("meter", 10, |_| "/v1/meters/tokens".into(), "\"tokens\""),
    get("features", 10, |_| "/v1/features".into(), "\"data\":["),
    get("feature", 5, |_| "/v1/features/feature_1".into(), "\"feature_1\""),
    get("plans", 5, |_| "/v1/plans".into(), "\"data\":["),
    get("plan", 5, |_| "/v1/plans/billed".into(), "\"billed\""),
    get("add-ons", 5, |_| "/v1/add-ons".into(), "\"data\":["),
    get("catalog", 5, |_| "/v1/catalog".into(), "\"billed\""),
    get(
        "customers",
        15,
        |_| "/v1/customers?limit=100".into(),
        "\"data\":[",
    ),
    get(
        "customer",
        20,
        |client| format!("/v1/customers/{}", client.customer()),
        "\"key\"",
    ),
    call("customer changed", 5, customer),
    get(
        "overrides",
        5,
        |client| format!("/v1/customers/{}/overrides", client.customer()),
        "\"data\":[",
    ),
    get(
        "grants",
        5,
        |client| format!("/v1/customers/{}/grants", client.customer()),
        "\"data\":[",
    ),
    get(
        "subscriptions",
        10,
        |_| "/v1/subscriptions?limit=100".into(),
        "\"data\":[",
    ),
    get(
        "subscriptions of a customer",
        10,
        |client| format!("/v1/subscriptions?customer={}", client.customer()),
        "\"active\"",
    ),
    get(
        "subscription",
        10,
        |client| format!("/v1/subscriptions/{}", client.subscription()),
        "\"active\"",
    ),
    get("invoices", 10, |_| "/v1/invoices?limit=100".into(), "\"data\":["),
    get(
        "invoices of a customer",
        15,
        |client| format!("/v1/invoices?customer={}", client.billed()),
        "\"lines\"",
    ),
    get(
        "invoice",
        15,
        |client| format!("/v1/invoices/{}", client.invoice()),
        "\"lines\"",
    ),
    get(
        "invoice, a page to print",
        5,
        |client| format!("/v1/invoices/{}.html", client.invoice()),
        "</html>",
    ),
    get(
        "invoice, upcoming",
        5,
        |client| format!("/v1/customers/{}/invoices/upcoming", client.billed()),
        "\"lines\"",
    ),
    get(
        "invoices, exported",
        5,
        |client| format!("/v1/export/invoices?customer={}", client.billed()),
        "tokens",
    ),
    call("invoice verified", 2, verify),
    get("billing runs", 5, |_| "/v1/billing/runs".into(), "\"data\":["),
    call("price preview", 5, price),
    call("fees preview", 5, fees),
    get("keys", 5, |_| "/v1/keys".into(), "\"data\":["),
    get("tenants", 5, |_| "/v1/tenants".into(), "\"data\":["),
    get("audit", 5, |_| "/v1/audit".into(), "\"data\":["),
    get("healthz", 5, |_| "/healthz".into(), ""),
    get("readyz", 5, |_| "/readyz".into(), ""),
    get("metrics", 2, |_| "/metrics".into(), "turnpike_"),
    get("OpenAPI document", 2, |_| "/openapi.json".into(), "\"openapi\""),
];

fn usage(meter: &str, how: &str) -> String {
    format!("/v1/meters/{meter}/usage?{MONTH}&{how}")
}

fn openmeter_usage(client: &mut Client) -> String {
    let subject = client.customer();
    format!("/api/v1/meters/tokens/query?{MONTH}&windowSize=DAY&subject={subject}")
}

fn counted(requests: u64, tokens: u64) -> Change {
    Change {
        requests: requests as i64,
        tokens: tokens as i64,
        calls: 0,
    }
}

/// An event of the client, in JSON, its id and tokens.
fn made(client: &mut Client) -> (Vec<u8>, String, u64) {
    let (number, mut body) = (client.name(), Vec::with_capacity(256));
    event(EPOCH, number, &client.world.load, &mut body);
    (body, EventId::new(EPOCH, number).to_string(), tokens(number))
}

fn one_event(client: &mut Client) -> Call {
    let (body, id, tokens) = made(client);
    let call = Call::of(
        ("POST", "/v1/events", "application/json"),
        &body,
        "\"accepted\":1,",
    );
    call.changes(counted(1, tokens)).then(Then::Stands(id, tokens))
}

fn openmeter_event(client: &mut Client) -> Call {
    let (body, id, tokens) = made(client);
    let call = Call::of(
        ("POST", "/api/v1/events", "application/cloudevents+json"),
        &body,
        "",
    );
    call.changes(counted(1, tokens)).then(Then::Stands(id, tokens))
}

fn events(client: &mut Client) -> Call {
    let (mut body, mut sum) = (Vec::with_capacity(EVENTS as usize * 256), 0);
    for _ in 0..EVENTS {
        let (event, _, tokens) = made(client);
        body.extend_from_slice(&event);
        body.push(b'\n');
        sum += tokens;
    }
    let call = Call::of(
        ("POST", "/v1/events", "application/x-ndjson"),
        &body,
        "\"accepted\":100,",
    );
    call.changes(counted(EVENTS, sum))
}

fn amend(client: &mut Client) -> Option<Call> {
    let (id, before) = client.standing()?;
    let body = r#"{"data":{"tokens":5000,"model":"gpt-4","status":"ok"}}"#;
    let call = Call::new(
        "POST",
        &format!("/v1/events/load/{id}/amend"),
        body,
        "\"tokens\":5000",
    );
    Some(call.changes(Change {
        tokens: 5_000 - before as i64,
        ..Change::default()
    }))
}

fn void(client: &mut Client) -> Option<Call> {
    let (id, tokens) = client.standing()?;
    let call = Call::new("POST", &format!("/v1/events/load/{id}/void"), "", "\"id\"");
    Some(call.changes(Change {
        requests: -1,
        tokens: -(tokens as i64),
        calls: 0,
    }))
}

/// One of the first events that were there before the mix.
fn event_by_id(client: &mut Client) -> String {
    let number = client.draw(1_000);
    format!("/v1/events?source=load&id={}", EventId::new(super::FILL, number))
}

/// A customer and a feature, as the members of a JSON object.
fn asked(client: &mut Client) -> String {
    let (customer, feature) = (client.customer(), client.draw(3));
    format!(r#""customer":"{customer}","feature":"feature_{feature}""#)
}

fn check(client: &mut Client) -> Call {
    let body = format!(r#"{{{},"amount":"1"}}"#, asked(client));
    Call::new("POST", "/v1/quota/check", &body, "\"allowed\":true")
}

fn checks(client: &mut Client) -> Call {
    let mut body = String::from(r#"{"checks":["#);
    for at in 0..CHECKS {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(body, r#"{comma}{{{},"amount":"1"}}"#, asked(client));
    }
    body.push_str("]}");
    Call::new("POST", "/v1/quota/batch", &body, "\"allowed\":true")
}

fn calls(calls: i64) -> Change {
    Change {
        calls,
        ..Change::default()
    }
}

fn consume(client: &mut Client) -> Call {
    let id = client.name();
    let body = format!(r#"{{"id":"mix-{id:x}",{},"amount":"1"}}"#, asked(client));
    let call = Call::new("POST", "/v1/quota/consume", &body, "\"allowed\":true");
    call.changes(calls(1))
}

fn reserve(client: &mut Client) -> Call {
    let id = format!("held-{:x}", client.name());
    let body = format!(r#"{{"id":"{id}",{},"amount":"5","ttl_s":3600}}"#, asked(client));
    let call = Call::new("POST", "/v1/quota/reservations", &body, "\"allowed\":true");
    call.then(Then::Open(id))
}

fn commit(client: &mut Client) -> Option<Call> {
    let path = format!("/v1/quota/reservations/{}/commit", client.open()?);
    let call = Call::new("POST", &path, r#"{"amount":"3"}"#, "\"allowed\":true");
    Some(call.changes(calls(3)))
}

fn release(client: &mut Client) -> Option<Call> {
    let path = format!("/v1/quota/reservations/{}/release", client.open()?);
    Some(Call::new("POST", &path, "", ""))
}

fn customer(client: &mut Client) -> Call {
    let (key, seen) = (client.customer(), client.name());
    let body = format!(r#"{{"metadata":{{"seen":"{seen:x}"}}}}"#);
    Call::new("PUT", &format!("/v1/customers/{key}"), &body, "\"seen\"")
}

fn verify(client: &mut Client) -> Call {
    let path = format!("/v1/invoices/{}/verify", client.invoice());
    Call::new("POST", &path, "", "\"verified\":true")
}

fn price(_: &mut Client) -> Call {
    let body = r#"{"currency":"USD","quantity":"2500","price":{"model":"graduated","tiers":[{"up_to":"1000","unit_amount":"0.05"},{"unit_amount":"0.04"}]}}"#;
    Call::new("POST", "/v1/price/preview", body, "\"110.00\"")
}

fn fees(_: &mut Client) -> Call {
    let body = r#"{"gross":{"amount":"100.00","currency":"USD"},"fee":{"rate_percent":"0.5","fixed":"0.30"},"commission":{"rate_percent":"10"}}"#;
    Call::new("POST", "/v1/fees/preview", body, "\"net_seller\"")
}
