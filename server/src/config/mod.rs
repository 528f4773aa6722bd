//! Configuration: typed, layered, checked once at the start.
//!
//! `config/default.toml` holds every key with its default; it is the schema that keys of other layers are checked
//! against, so nothing can be configured that is not documented there.

mod hint;
mod layers;
mod networks;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use hint::did_you_mean;
pub use layers::{Flags, load};
pub use networks::Networks;

/// The documented defaults.
pub const DEFAULT_TOML: &str = include_str!("../../../config/default.toml");

/// Why there is no configuration. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Everything that can be configured. The meaning of each key stands in `config/default.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key")]
pub struct Config {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    pub http: HttpConfig,
    pub limits: LimitsConfig,
    pub engine: EngineConfig,
    pub ingest: IngestConfig,
    pub billing: BillingConfig,
    pub audit: AuditConfig,
    pub telemetry: TelemetryConfig,
}

/// `[http]`: connections and bodies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key")]
pub struct HttpConfig {
    pub header_read_timeout_s: u32,
    pub body_idle_timeout_s: u32,
    pub body_rate_min: u32,
    pub header_bytes_max: usize,
    pub headers_max: usize,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub trusted_proxies: Networks,
    pub drain_s: u32,
    pub cors_origins: Vec<String>,
    pub metrics_listen: OptionalAddress,
}

/// `[limits]`: calls per second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key")]
pub struct LimitsConfig {
    pub key_calls_per_second: u32,
    pub tenant_calls_per_second: u32,
    pub failed_auth_per_minute: u32,
}

/// `[engine]`: the log, its owners and their views.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key")]
pub struct EngineConfig {
    pub partitions: u32,
    pub segment_bytes: u64,
    pub checkpoint_events: u64,
    pub checkpoint_interval_s: u64,
    pub retention_days: u32,
    pub retention_check_interval_s: u64,
    pub queue_events_max: usize,
    pub queue_bytes_max: usize,
    pub memory_bytes_max: usize,
}

/// `[ingest]`: events on their way in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key")]
pub struct IngestConfig {
    pub in_flight_bytes_max: usize,
    pub dead_letters_per_s: u32,
    pub dead_letters_burst: u32,
}

/// `[billing]`: invoices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key")]
pub struct BillingConfig {
    pub grace_s: u64,
    pub test_grace_s: u64,
    pub look_back_days: u32,
    pub check_interval_s: u64,
}

/// `[audit]`: the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key")]
pub struct AuditConfig {
    pub retention_days: u32,
}

/// `[telemetry]`: logs and traces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key")]
pub struct TelemetryConfig {
    pub log_filter: String,
    pub log_format: LogFormat,
    pub otlp_endpoint: String,
    pub otlp_sample_percent: u8,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, else JSON.
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Pretty,
}

/// An address, or an empty text for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OptionalAddress(pub Option<SocketAddr>);

impl Serialize for OptionalAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.map(|address| address.to_string()).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for OptionalAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        let address = text
            .parse()
            .map_err(|_| serde::de::Error::custom(format!("\"{text}\" is not an address and port")))?;
        Ok(Self(Some(address)))
    }
}

impl Config {
    /// `config/default.toml` itself: what applies where nothing is configured.
    pub fn built_in() -> Result<Self, ConfigError> {
        load(&Flags::default(), &[])
    }

    /// The number of partitions of a new data directory.
    pub fn partitions(&self) -> u32 {
        const MOST: usize = 16;
        match self.engine.partitions {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST)) as u32,
            said => said,
        }
    }

    /// What single types cannot say.
    fn check(&self) -> Result<(), ConfigError> {
        let fail = |text: &str| Err(ConfigError(text.to_owned()));
        if self.http.header_read_timeout_s == 0 || self.http.body_idle_timeout_s == 0 {
            return fail("http.header_read_timeout_s and http.body_idle_timeout_s must be at least 1");
        }
        if !(8_192..=1_048_576).contains(&self.http.header_bytes_max) {
            return fail("http.header_bytes_max must be 8192 to 1048576");
        }
        if !(10..=1_000).contains(&self.http.headers_max) {
            return fail("http.headers_max must be 10 to 1000");
        }
        if self.http.connections_max == 0 || self.http.connections_per_address_max == 0 {
            return fail("http.connections_max and http.connections_per_address_max must be at least 1");
        }
        if self.engine.partitions > 256 {
            return fail("engine.partitions must be 0 to 256");
        }
        if !(65_536..=4_294_967_296).contains(&self.engine.segment_bytes) {
            return fail("engine.segment_bytes must be 65536 (64 KiB) to 4294967296 (4 GiB)");
        }
        let positive = [
            self.engine.checkpoint_events,
            self.engine.checkpoint_interval_s,
            self.engine.retention_check_interval_s,
            self.engine.queue_events_max as u64,
            self.engine.queue_bytes_max as u64,
            self.ingest.in_flight_bytes_max as u64,
        ];
        if positive.contains(&0) {
            return fail(
                "engine.checkpoint_*, engine.retention_check_interval_s, engine.queue_* and ingest.in_flight_bytes_max must be at least 1",
            );
        }
        if self.engine.memory_bytes_max < 16_777_216 {
            return fail("engine.memory_bytes_max must be at least 16777216 (16 MiB)");
        }
        if self.telemetry.otlp_sample_percent > 100 {
            return fail("telemetry.otlp_sample_percent must be 0 to 100");
        }
        for origin in &self.http.cors_origins {
            let scheme = origin.starts_with("https://") || origin.starts_with("http://");
            if origin != "*" && (!scheme || origin.ends_with('/')) {
                return fail(
                    "http.cors_origins takes origins such as \"https://app.example.com\" (no path, no slash at the end), or \"*\"",
                );
            }
        }
        Ok(())
    }
}
