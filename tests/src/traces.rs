//! The two real usage traces, read without any code of the engine.
//!
//! Sources: Azure Public Dataset, "AzureLLMInferenceTrace_code" (2023-11-16), CC-BY 4.0; elastic/examples, "Common Data
//! Formats/apache_logs", Apache-2.0. They lie in a folder beside the project that users do not have. Where it is absent
//! the tests say so: of the first, the copy that ships in the binary is read then; the second is not run.

use std::path::PathBuf;

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

fn read(name: &str) -> Option<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data")
        .join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            println!("NOT RUN: the trace {} is absent: {error}", path.display());
            None
        }
    }
}

/// The trace that ships with the demo.
fn shipped() -> String {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../server/src/demo/data/llm_inference_code.csv");
    println!(
        "read instead: the copy that ships in the binary, {}",
        path.display()
    );
    std::fs::read_to_string(path).expect("the demo's trace")
}

/// 8,819 requests to an LLM service. It names no customer: line `n` belongs to customer `n mod 7`.
pub fn llm() -> Vec<Use> {
    let text = read("llm_inference_code.csv").unwrap_or_else(shipped);
    let uses = text.lines().skip(1).enumerate().map(|(line, row)| {
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
pub fn access_log() -> Option<Vec<Use>> {
    let text = read("apache_access.log")?;
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
    Some(uses.collect())
}
