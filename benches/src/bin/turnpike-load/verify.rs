//! After a run: what the engine counts must be what it acknowledged.

use serde_json::Value;

use crate::Failure;
use crate::engine::Engine;

/// The value of a meter from the month of the load until now.
pub async fn total(engine: &Engine, meter: &str) -> Result<u64, Failure> {
    let path = format!("/v1/meters/{meter}/usage?from=2026-01-01T00:00:00Z");
    let (status, body) = engine.get(&path).await?;
    if status != 200 {
        return Err(format!("{path}: {status} {body}").into());
    }
    match &body["data"][0]["value"] {
        Value::String(text) => Ok(text.parse()?),
        _ => Ok(0),
    }
}

/// Checks that the engine counts exactly the `acknowledged` events of all runs so far.
pub async fn counted(engine: &Engine, acknowledged: u64) -> Result<(), Failure> {
    let (requests, by_model, tokens) = (
        total(engine, "requests").await?,
        total(engine, "by_model").await?,
        total(engine, "tokens").await?,
    );
    if requests != acknowledged || by_model != tokens {
        return Err(format!(
            "the totals are wrong: {acknowledged} events were acknowledged, {requests} counted; tokens {tokens}, by model {by_model}"
        )
        .into());
    }
    Ok(())
}
