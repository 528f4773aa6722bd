use reqwest::Url;
use toml::Value;
use tracing_subscriber::EnvFilter;

use super::Config;
use super::hint::did_you_mean;

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

/// What a log filter may say of how much is logged.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

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
    let mut origins = config.http.cors_origins.iter();
    [
        (
            "http.cors_origins",
            origins.find_map(|origin| wrong_origin(origin)),
        ),
        ("http.metrics_listen", wrong_metrics_listener(config)),
        ("telemetry.log_filter", wrong_filter(&config.telemetry.log_filter)),
        (
            "telemetry.otlp_endpoint",
            wrong_endpoint(&config.telemetry.otlp_endpoint),
        ),
    ]
    .into_iter()
    .find_map(|(key, wrong)| Some((key, wrong?)))
}

/// Two listeners cannot have one address; port 0 is another one for each.
fn wrong_metrics_listener(config: &Config) -> Option<String> {
    let (api, metrics) = (config.listen, config.http.metrics_listen.0?);
    let all = api.ip().is_unspecified() || metrics.ip().is_unspecified();
    let overlap = api.ip() == metrics.ip() || (all && api.is_ipv4() == metrics.is_ipv4());
    (overlap && api.port() == metrics.port() && api.port() != 0).then(|| {
        format!("{metrics} is where `listen` ({api}) stands: give another port, or leave it empty for /metrics there")
    })
}

/// An origin is compared with what browsers send letter by letter, so it must be written as they do. Source: RFC 6454.
fn wrong_origin(origin: &str) -> Option<String> {
    let written = Url::parse(origin).map(|url| url.origin().ascii_serialization());
    match written {
        _ if origin == "*" => None,
        Ok(written) if written == origin && web(origin) => None,
        // Of another scheme an origin is "null", or one that no page has.
        Ok(written) if web(&written) => Some(format!(
            "has \"{origin}\", which no browser sends; did you mean \"{written}\"?"
        )),
        _ => Some(format!(
            "takes origins such as \"https://app.example.com\" or \"*\", not \"{origin}\""
        )),
    }
}

/// A word that is no level is taken for the name of a module whose every line is logged: what was meant was often a level.
fn wrong_filter(filter: &str) -> Option<String> {
    if let Err(error) = EnvFilter::try_new(filter) {
        return Some(format!(
            "\"{filter}\" is no filter such as \"info,turnpike_stores=debug\": {error}"
        ));
    }
    if filter.trim().is_empty() {
        return Some("is empty; \"off\" logs nothing".to_owned());
    }
    let is_name = |part: &&str| {
        part.chars()
            .all(|c| c.is_ascii_alphanumeric() || "_:-".contains(c))
    };
    let mut names = filter.split(',').map(str::trim).filter(is_name);
    let word = names.find(|name| !LEVELS.contains(&name.to_ascii_lowercase().as_str()))?;
    let hint = did_you_mean(word, LEVELS.into_iter()).map_or_else(
        || format!("for a module give a level too, such as \"{word}=debug\""),
        |level| format!("did you mean \"{level}\"?"),
    );
    Some(format!(
        "has \"{word}\", which is no level ({}); {hint}",
        LEVELS.join(", ")
    ))
}

fn wrong_endpoint(endpoint: &str) -> Option<String> {
    if endpoint.is_empty() {
        return None;
    }
    match Url::parse(endpoint)
        .ok()
        .filter(|url| web(url.as_str()) && url.has_host())
    {
        None => Some(format!(
            "\"{endpoint}\" is no URL such as \"http://127.0.0.1:4318/v1/traces\""
        )),
        Some(url) if url.path() == "/" => Some(format!(
            "\"{endpoint}\" has no path; collectors take spans at \"{}v1/traces\"",
            url.as_str()
        )),
        Some(_) => None,
    }
}

fn web(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
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
    fn origins_are_as_browsers_send_them() {
        for good in [
            "*",
            "https://app.example.com",
            "http://localhost:3000",
            "http://[::1]:8080",
        ] {
            assert_eq!(wrong_origin(good), None, "{good}");
        }
        for (wrong, hint) in [
            (
                "https://app.example.com/",
                "did you mean \"https://app.example.com\"?",
            ),
            (
                "https://app.example.com/path",
                "did you mean \"https://app.example.com\"?",
            ),
            (
                "https://App.example.com",
                "did you mean \"https://app.example.com\"?",
            ),
            (
                "https://app.example.com:443",
                "did you mean \"https://app.example.com\"?",
            ),
            ("https://u:p@app.example.com", "did you mean"),
            ("https://app.example.com?a", "did you mean"),
            ("app.example.com", "takes origins such as"),
            ("localhost:3000", "takes origins such as"),
            ("ftp://app.example.com", "takes origins such as"),
            ("https://", "takes origins such as"),
            ("null", "takes origins such as"),
            ("", "takes origins such as"),
        ] {
            let said = wrong_origin(wrong).unwrap_or_default();
            assert!(said.contains(hint), "{wrong}: {said}");
        }
    }

    #[test]
    fn words_that_are_no_level_are_no_filter() {
        for good in [
            "info",
            "INFO",
            "off",
            "info,turnpike_stores=debug",
            "warn,turnpike_server::http=trace",
            "info,[request{method=GET}]=trace",
        ] {
            assert_eq!(wrong_filter(good), None, "{good}");
        }
        for (wrong, hint) in [
            ("inof", "did you mean \"info\"?"),
            ("info,debgu", "did you mean \"debug\"?"),
            ("info,hyper", "\"hyper=debug\""),
            ("info,turnpike_stores=debgu", "is no filter"),
            ("", "is empty"),
        ] {
            let said = wrong_filter(wrong).unwrap_or_default();
            assert!(said.contains(hint), "{wrong}: {said}");
        }
    }

    #[test]
    fn spans_are_sent_to_a_path() {
        for good in [
            "",
            "http://127.0.0.1:4318/v1/traces",
            "https://u:p@otel.example/x",
        ] {
            assert_eq!(wrong_endpoint(good), None, "{good}");
        }
        for (wrong, hint) in [
            ("http://127.0.0.1:4318", "at \"http://127.0.0.1:4318/v1/traces\""),
            ("collector:4318", "is no URL"),
            ("ftp://collector/v1/traces", "is no URL"),
        ] {
            let said = wrong_endpoint(wrong).unwrap_or_default();
            assert!(said.contains(hint), "{wrong}: {said}");
        }
    }

    #[test]
    fn types_are_told_in_words() {
        let number = Value::Integer(1);
        let wrong = wrong_value("http.drain_s", &number, &Value::String("ten".to_owned()));
        assert_eq!(wrong.as_deref(), Some("must be a whole number, not \"ten\""));
    }
}
