use toml::Value;
use tracing_subscriber::EnvFilter;

use super::Config;

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 24 * HOUR_S;
const COUNT_MAX: i64 = 1_000_000_000;
const MEMORY_BYTES_MAX: i64 = 1 << 40;
/// Room for the longest event beside what is kept with it.
const EVENT_ROOM_BYTES: i64 = 2 * bytes(turnpike_domain::limits::EVENT_BYTES_MAX);
/// Room for the longest body and the events made from it.
const BODY_ROOM_BYTES: i64 = 2 * bytes(turnpike_domain::limits::BODY_BYTES_MAX);

#[expect(clippy::cast_possible_wrap, reason = "bounds of bodies are far below 2^63")]
const fn bytes(bound: usize) -> i64 {
    bound as i64
}

/// The least and the most that each number may be.
const RANGES: [(&str, i64, i64); 32] = [
    ("http.header_read_timeout_s", 1, HOUR_S),
    ("http.body_idle_timeout_s", 1, HOUR_S),
    ("http.body_rate_min", 0, COUNT_MAX),
    ("http.answer_idle_timeout_s", 1, HOUR_S),
    ("http.header_bytes_max", 8_192, 1_048_576),
    ("http.headers_max", 10, 1_000),
    ("http.connections_max", 1, 1_000_000),
    ("http.connections_per_address_max", 1, 1_000_000),
    ("http.drain_s", 0, HOUR_S),
    ("limits.key_calls_per_second", 0, COUNT_MAX),
    ("limits.tenant_calls_per_second", 0, COUNT_MAX),
    ("limits.failed_auth_per_minute", 1, COUNT_MAX),
    (
        "engine.partitions",
        0,
        turnpike_domain::limits::PARTITIONS_MAX as i64,
    ),
    ("engine.segment_bytes", 65_536, 4_294_967_296),
    ("engine.checkpoint_events", 1, COUNT_MAX),
    ("engine.checkpoint_interval_s", 1, DAY_S),
    ("engine.retention_days", 0, 36_500),
    ("engine.retention_check_interval_s", 1, DAY_S),
    ("engine.queue_events_max", 1, COUNT_MAX),
    ("engine.queue_bytes_max", EVENT_ROOM_BYTES, MEMORY_BYTES_MAX),
    ("engine.memory_bytes_max", 16_777_216, MEMORY_BYTES_MAX),
    ("engine.queries_max", 1, 1_000),
    ("engine.query_memory_bytes_max", 1_048_576, MEMORY_BYTES_MAX),
    ("ingest.in_flight_bytes_max", BODY_ROOM_BYTES, MEMORY_BYTES_MAX),
    ("ingest.dead_letters_per_s", 0, COUNT_MAX),
    ("ingest.dead_letters_burst", 0, COUNT_MAX),
    ("billing.grace_s", 0, 31 * DAY_S),
    ("billing.test_grace_s", 0, 31 * DAY_S),
    ("billing.look_back_days", 0, 3_660),
    ("billing.check_interval_s", 0, DAY_S),
    ("audit.retention_days", 0, 36_500),
    ("telemetry.otlp_sample_percent", 0, 100),
];

/// What is wrong with a value by itself: its type, which is that of the default, or its range.
pub(super) fn wrong_value(key: &str, default: &Value, value: &Value) -> Option<String> {
    let kind = match default {
        Value::Integer(_) => "a whole number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list of texts, such as [\"a\", \"b\"]",
        _ => "a text in quotes",
    };
    if !default.same_type(value) {
        return Some(format!("must be {kind}, not {value}"));
    }
    let number = value.as_integer()?;
    let (_, least, most) = RANGES.iter().find(|(one, ..)| *one == key)?;
    (number < *least || number > *most).then(|| format!("must be {least} to {most}, not {number}"))
}

/// What single values cannot say: a key, and what is wrong with it.
pub(super) fn wrong_meaning(config: &Config) -> Option<(&'static str, String)> {
    if config.data_dir.as_os_str().is_empty() {
        return Some(("data_dir", "must name a directory".to_owned()));
    }
    for origin in &config.http.cors_origins {
        let scheme = origin.starts_with("https://") || origin.starts_with("http://");
        if origin != "*" && (!scheme || origin.ends_with('/')) {
            let wrong = format!(
                "takes origins such as \"https://app.example.com\" (no path, no slash at the end) or \"*\", not \"{origin}\""
            );
            return Some(("http.cors_origins", wrong));
        }
    }
    let filter = &config.telemetry.log_filter;
    if let Err(error) = EnvFilter::try_new(filter) {
        let wrong = format!("\"{filter}\" is no filter such as \"info,turnpike_stores=debug\": {error}");
        return Some(("telemetry.log_filter", wrong));
    }
    let endpoint = &config.telemetry.otlp_endpoint;
    if !endpoint.is_empty() && !reqwest::Url::parse(endpoint).is_ok_and(|url| url.has_host()) {
        let wrong = format!("\"{endpoint}\" is no URL such as \"http://127.0.0.1:4318/v1/traces\"");
        return Some(("telemetry.otlp_endpoint", wrong));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::DEFAULT_TOML;
    use super::super::layers::leaves;
    use super::*;

    #[test]
    fn every_number_has_a_range_that_holds_its_default() {
        let defaults = leaves(&toml::from_str(DEFAULT_TOML).unwrap());
        let mut numbers = 0;
        for (key, default) in defaults.iter().filter(|(_, value)| value.is_integer()) {
            numbers += 1;
            assert_eq!(wrong_value(key, default, default), None, "{key}");
            for far in [i64::MIN, i64::MAX] {
                let wrong = wrong_value(key, default, &Value::Integer(far));
                assert!(wrong.is_some(), "{key} may be {far}");
            }
        }
        assert_eq!(numbers, RANGES.len());
    }

    #[test]
    fn types_are_told_in_words() {
        let number = Value::Integer(1);
        let wrong = wrong_value("http.drain_s", &number, &Value::String("ten".to_owned()));
        assert_eq!(wrong.as_deref(), Some("must be a whole number, not \"ten\""));
    }
}
