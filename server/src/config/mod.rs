//! Configuration: typed, layered, checked once at the start.
//!
//! `config/default.toml` holds every key with its default; it is the schema that keys of other layers are checked
//! against, so nothing can be configured that is not documented there.

mod check;
mod hint;
mod layers;
mod lines;
mod networks;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use hint::did_you_mean;
pub(crate) use layers::{Flags, load};
pub(crate) use networks::Networks;

/// The documented defaults.
pub(crate) const DEFAULT_TOML: &str = include_str!("../../../config/default.toml");

/// Why there is no configuration. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub(crate) String);

/// The configuration, in TOML and with every key, that a file with this name and text and these variables of the environment
/// give; or why they give none.
pub fn configuration(name: &str, text: &str, environment: &[(String, String)]) -> Result<String, String> {
    let config = layers::merge(Some((name, text)), environment, &[]).map_err(|error| error.0)?;
    config.to_toml().map_err(|error| error.0)
}

/// Everything that can be configured. The meaning of each key stands in `config/default.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) http: HttpConfig,
    pub(crate) limits: LimitsConfig,
    pub(crate) engine: EngineConfig,
    pub(crate) ingest: IngestConfig,
    pub(crate) billing: BillingConfig,
    pub(crate) audit: AuditConfig,
    pub(crate) telemetry: TelemetryConfig,
}

/// `[http]`: connections and bodies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpConfig {
    pub(crate) header_read_timeout_s: u32,
    pub(crate) body_idle_timeout_s: u32,
    pub(crate) body_rate_min: u32,
    pub(crate) answer_idle_timeout_s: u32,
    pub(crate) header_bytes_max: usize,
    pub(crate) headers_max: usize,
    pub(crate) connections_max: usize,
    pub(crate) connections_per_address_max: usize,
    pub(crate) trusted_proxies: Networks,
    pub(crate) drain_s: u32,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) metrics_listen: OptionalAddress,
}

/// `[limits]`: calls per second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsConfig {
    pub(crate) key_calls_per_second: u32,
    pub(crate) tenant_calls_per_second: u32,
    pub(crate) failed_auth_per_minute: u32,
}

/// `[engine]`: the log, its owners and their views.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EngineConfig {
    pub(crate) partitions: u32,
    pub(crate) segment_bytes: u64,
    pub(crate) checkpoint_events: u64,
    pub(crate) checkpoint_interval_s: u64,
    pub(crate) retention_days: u32,
    pub(crate) retention_check_interval_s: u64,
    pub(crate) queue_events_max: usize,
    pub(crate) queue_bytes_max: usize,
    pub(crate) memory_bytes_max: usize,
    pub(crate) queries_max: usize,
    pub(crate) query_memory_bytes_max: usize,
}

/// `[ingest]`: events on their way in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IngestConfig {
    pub(crate) in_flight_bytes_max: usize,
    pub(crate) dead_letters_per_s: u32,
    pub(crate) dead_letters_burst: u32,
}

/// `[billing]`: invoices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BillingConfig {
    pub(crate) grace_s: u64,
    pub(crate) test_grace_s: u64,
    pub(crate) look_back_days: u32,
    pub(crate) check_interval_s: u64,
}

/// `[audit]`: the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditConfig {
    pub(crate) retention_days: u32,
}

/// `[telemetry]`: logs and traces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TelemetryConfig {
    pub(crate) log_filter: String,
    pub(crate) log_format: LogFormat,
    pub(crate) otlp_endpoint: String,
    pub(crate) otlp_sample_percent: u8,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Pretty on a terminal, else JSON.
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Pretty,
}

/// An address, or an empty text for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OptionalAddress(pub(crate) Option<SocketAddr>);

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
    #[cfg(test)]
    pub(crate) fn built_in() -> Result<Self, ConfigError> {
        load(&Flags::default(), &[])
    }

    /// Every key with its value, in TOML.
    pub(crate) fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self)
            .map_err(|error| ConfigError(format!("the configuration cannot be written: {error}")))
    }

    /// The number of partitions of a new data directory.
    pub(crate) fn partitions(&self) -> u32 {
        const MOST: u32 = 16;
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        match self.engine.partitions {
            0 => u32::try_from(cores()).map_or(MOST, |cores| cores.min(MOST)),
            said => said,
        }
    }
}
