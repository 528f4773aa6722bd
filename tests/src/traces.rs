//! The two real usage traces, read without any code of the engine.
//!
//! Sources: Azure Public Dataset, "AzureLLMInferenceTrace_code" (2023-11-16), CC-BY 4.0, the copy that ships in the binary;
//! elastic/examples, "Common Data Formats/apache_logs", Apache-2.0, in `tests/data/`.

use std::io::Read as _;

use serde_json::{Value, json};

/// A line of a trace as an event, with the figures that the test adds up by itself.
#[derive(Debug, Clone)]
pub struct Use {
    /// The CloudEvent.
    pub event: Value,
    /// Microseconds since 1970.
    pub time_us: i64,
    /// The customer.
    pub customer: String,
    /// Tokens or bytes; none where the line has none.
    pub amount: Option<u64>,
    /// What is counted as distinct.
    pub distinct: String,
}

/// The trace that ships with the demo.
const LLM: &str = include_str!("../../server/src/demo/data/llm_inference_code.csv");
/// An access log in the combined format, compressed.
const ACCESS_LOG: &[u8] = include_bytes!("../data/apache_access.log.gz");

/// 8,819 requests to an LLM service. It names no customer: line `n` belongs to customer `n mod 7`.
pub fn llm() -> Vec<Use> {
    let uses = LLM.lines().skip(1).enumerate().map(|(line, row)| {
        let fields: Vec<_> = row.trim().split(',').collect();
        let time = format!("{}Z", fields[0].replace(' ', "T"));
        let at: jiff::Timestamp = time.parse().expect("a time");
        let (context, generated): (u64, u64) = (fields[1].parse().expect("tokens"), fields[2].parse().expect("tokens"));
        let customer = format!("llm-{}", line % 7);
        let event = json!({
            "specversion": "1.0", "id": format!("line-{line}"), "source": "llm_inference_code.csv", "type": "llm.request",
            "subject": customer, "time": time,
            "data": {"tokens": context + generated, "context": context, "generated": generated},
        });
        Use { event, time_us: at.as_microsecond(), customer, amount: Some(context + generated), distinct: context.to_string() }
    });
    uses.collect()
}

/// 10,000 requests to a web site; the customer is the client's address.
pub fn access_log() -> Vec<Use> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(ACCESS_LOG)
        .read_to_string(&mut text)
        .expect("the access log");
    let uses = text.lines().enumerate().map(|(line, row)| {
        let customer = row.split(' ').next().expect("an address").to_owned();
        let (open, close) = (row.find('[').expect("a time"), row.find(']').expect("a time"));
        let at = jiff::fmt::strtime::parse("%d/%b/%Y:%H:%M:%S %z", &row[open + 1..close]).expect("a time");
        let at = at.to_timestamp().expect("a time");
        let quoted: Vec<_> = row.split('"').collect();
        let path = quoted[1].split(' ').nth(1).unwrap_or("").to_owned();
        let after: Vec<_> = quoted[2].split_whitespace().collect();
        let bytes: Option<u64> = after[1].parse().ok();
        let mut event = json!({
            "specversion": "1.0", "id": format!("line-{line}"), "source": "apache_access.log", "type": "http.request",
            "subject": customer, "time": at.to_string(), "data": {"status": after[0], "path": path},
        });
        if let Some(bytes) = bytes {
            event["data"]["bytes"] = json!(bytes);
        }
        Use { event, time_us: at.as_microsecond(), customer, amount: bytes, distinct: path }
    });
    uses.collect()
}
