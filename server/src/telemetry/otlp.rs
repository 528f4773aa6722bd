//! Spans by OTLP over HTTP with JSON: the protocol's own encoding for plain HTTP clients, so that no second stack of
//! libraries is needed. Source: OpenTelemetry Protocol 1.x, "JSON Protobuf Encoding".

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use turnpike_domain::time::{Clock, Randomness, Timestamp};

/// Spans that may wait; further ones are dropped and counted.
const WAITING_MAX: usize = 8_192;
/// Spans sent at once.
const BATCH_MAX: usize = 512;
/// The longest that a span waits for others.
const PAUSE: Duration = Duration::from_secs(2);

/// A span that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct EndedSpan {
    trace: u128,
    span: u64,
    parent: Option<u64>,
    name: &'static str,
    start: Timestamp,
    end: Timestamp,
    fields: Vec<(&'static str, String)>,
}

/// What is remembered of an open span.
struct OpenSpan {
    trace: u128,
    span: u64,
    parent: Option<u64>,
    start: Timestamp,
    fields: Fields,
}

/// Takes spans from `tracing` and hands them to the sender.
pub(crate) struct OtlpLayer {
    clock: Arc<dyn Clock>,
    randomness: Arc<dyn Randomness>,
    percent: u8,
    sender: Sender<EndedSpan>,
}

/// A layer, and the task that sends what it takes to `endpoint` until the layer is gone.
pub(crate) fn start(
    endpoint: String,
    percent: u8,
    clock: Arc<dyn Clock>,
    randomness: Arc<dyn Randomness>,
) -> (OtlpLayer, JoinHandle<()>) {
    let (sender, receiver) = channel(WAITING_MAX);
    let layer = OtlpLayer {
        clock,
        randomness,
        percent,
        sender,
    };
    (layer, tokio::spawn(send_all(endpoint, receiver)))
}

impl OtlpLayer {
    fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.randomness.fill(&mut bytes);
        u64::from_le_bytes(bytes).max(1)
    }

    fn taken(&self, trace: u128) -> bool {
        (trace % 100) < u128::from(self.percent)
    }
}

impl<S> Layer<S> for OtlpLayer
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let above = span.parent().and_then(|above| {
            above
                .extensions()
                .get::<OpenSpan>()
                .map(|open| (open.trace, open.span))
        });
        let (trace, parent) = match (above, fields.remote()) {
            (Some((trace, parent)), _) | (None, Some((trace, parent))) => (trace, Some(parent)),
            (None, None) => (
                (u128::from(self.random()) << 64) | u128::from(self.random()),
                None,
            ),
        };
        let open = OpenSpan {
            trace,
            span: self.random(),
            parent,
            start: self.clock.machine_now(),
            fields,
        };
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<OpenSpan>()
        {
            values.record(&mut open.fields);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(open) = span.extensions_mut().remove::<OpenSpan>() else {
            return;
        };
        if !self.taken(open.trace) {
            return;
        }
        let ended = EndedSpan {
            trace: open.trace,
            span: open.span,
            parent: open.parent,
            name: span.name(),
            start: open.start,
            end: self.clock.machine_now(),
            fields: open.fields.0,
        };
        if self.sender.try_send(ended).is_err() {
            metrics::counter!("turnpike_otlp_spans_dropped_total").increment(1);
        }
    }
}

#[derive(Debug, Default)]
struct Fields(Vec<(&'static str, String)>);

impl Fields {
    fn set(&mut self, field: &Field, value: String) {
        self.0.retain(|(name, _)| *name != field.name());
        self.0.push((field.name(), value));
    }

    /// The caller's trace and span, where it sent them as `traceparent`.
    fn remote(&self) -> Option<(u128, u64)> {
        let (_, text) = self.0.iter().find(|(name, _)| *name == "traceparent")?;
        read_traceparent(text)
    }
}

/// Reads `version-trace-span-flags`. Source: W3C Trace Context.
fn read_traceparent(text: &str) -> Option<(u128, u64)> {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, _] = parts[..] else {
        return None;
    };
    let hex = |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !hex(version, 2) || !hex(trace, 32) || !hex(span, 16) {
        return None;
    }
    let (trace, span) = (
        u128::from_str_radix(trace, 16).ok()?,
        u64::from_str_radix(span, 16).ok()?,
    );
    (trace != 0 && span != 0).then_some((trace, span))
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.to_owned());
    }
}

async fn send_all(endpoint: String, mut spans: Receiver<EndedSpan>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap_or_default();
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while spans.recv_many(&mut batch, BATCH_MAX).await > 0 {
        if batch.len() < BATCH_MAX {
            let _ = tokio::time::timeout(PAUSE, fill(&mut spans, &mut batch)).await;
        }
        let count = batch.len() as u64;
        let body = encode(&std::mem::take(&mut batch));
        let sent = client
            .post(&endpoint)
            .json(&body)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status);
        match sent {
            Ok(_) => metrics::counter!("turnpike_otlp_spans_sent_total").increment(count),
            Err(error) => {
                metrics::counter!("turnpike_otlp_spans_dropped_total").increment(count);
                // Outside of any span, and below the level of requests: must not feed itself.
                tracing::debug!(%error, "spans could not be sent");
            }
        }
    }
}

async fn fill(spans: &mut Receiver<EndedSpan>, batch: &mut Vec<EndedSpan>) {
    while batch.len() < BATCH_MAX {
        let room = BATCH_MAX - batch.len();
        if spans.recv_many(batch, room).await == 0 {
            return;
        }
    }
}

fn encode(spans: &[EndedSpan]) -> Value {
    let attribute = |name: &str, value: &str| json!({"key": name, "value": {"stringValue": value}});
    let spans: Vec<Value> = spans
        .iter()
        .map(|span| {
            let failed = span.fields.iter().any(|(name, value)| *name == "status" && value.starts_with('5'));
            json!({
                "traceId": format!("{:032x}", span.trace),
                "spanId": format!("{:016x}", span.span),
                "parentSpanId": span.parent.map(|parent| format!("{parent:016x}")).unwrap_or_default(),
                "name": span.name,
                "kind": if span.name == "request" { 2 } else { 1 },
                "startTimeUnixNano": format!("{}000", span.start.micros()),
                "endTimeUnixNano": format!("{}000", span.end.micros()),
                "attributes": span.fields.iter().map(|(name, value)| attribute(name, value)).collect::<Vec<_>>(),
                "status": {"code": if failed { 2 } else { 0 }},
            })
        })
        .collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": [attribute("service.name", "turnpike"), attribute("service.version", env!("CARGO_PKG_VERSION"))]},
        "scopeSpans": [{"scope": {"name": "turnpike"}, "spans": spans}],
    }]})
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, routing::post};
    use tracing_subscriber::layer::SubscriberExt as _;
    use turnpike_stores::machine::{MachineClock, MachineRandomness};

    use super::*;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[tokio::test]
    async fn spans_arrive_with_their_parents() {
        let (got, mut bodies) = channel::<Value>(10);
        let receiver = Router::new().route(
            "/v1/traces",
            post(move |Json(body): Json<Value>| async move {
                let _ = got.send(body).await;
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, receiver).await });
        let (layer, sending) = start(endpoint, 100, Arc::new(MachineClock), Arc::new(MachineRandomness));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let request =
                tracing::info_span!("request", traceparent = CALLER, status = tracing::field::Empty);
            request.in_scope(|| tracing::info_span!("inner", n = 1).in_scope(|| ()));
            request.record("status", 503);
        });
        sending.await.unwrap();
        let body = bodies.recv().await.unwrap();
        let spans = &body["resourceSpans"][0]["scopeSpans"][0]["spans"];
        let (inner, request) = (&spans[0], &spans[1]);
        assert_eq!(
            (&inner["name"], &request["name"]),
            (&json!("inner"), &json!("request"))
        );
        assert_eq!(inner["parentSpanId"], request["spanId"]);
        assert_eq!(request["parentSpanId"], "b7ad6b7169203331");
        assert_eq!(request["traceId"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(inner["traceId"], request["traceId"]);
        assert_eq!(request["status"]["code"], 2);
        assert!(
            request["attributes"]
                .as_array()
                .unwrap()
                .contains(&json!({"key": "status", "value": {"stringValue": "503"}}))
        );
    }

    #[tokio::test]
    async fn the_share_holds_per_trace() {
        let (layer, _) = start(
            String::new(),
            25,
            Arc::new(MachineClock),
            Arc::new(MachineRandomness),
        );
        assert_eq!((0..100).filter(|trace| layer.taken(*trace)).count(), 25);
    }

    #[test]
    fn only_whole_trace_parents_are_read() {
        assert_eq!(
            read_traceparent(CALLER),
            Some((0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331))
        );
        for bad in [
            "",
            "00-0-0-0",
            &CALLER.replace('b', "x"),
            &CALLER[..50],
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ] {
            assert_eq!(read_traceparent(bad), None, "{bad}");
        }
    }
}
