//! Logs and traces.

mod fields;
mod otlp;

use std::io::IsTerminal as _;
use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};
use turnpike_domain::time::{Clock, Randomness};

use crate::config::{ConfigError, LogFormat, TelemetryConfig};

/// Starts logging to standard error, and sending spans where that is configured. An error when the filter cannot
/// be read.
pub(crate) fn start(
    config: &TelemetryConfig,
    clock: Arc<dyn Clock>,
    randomness: Arc<dyn Randomness>,
) -> Result<(), ConfigError> {
    let filter = || {
        EnvFilter::try_new(&config.log_filter)
            .map_err(|error| ConfigError(format!("telemetry.log_filter \"{}\": {error}", config.log_filter)))
    };
    let pretty = match config.log_format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Pretty => true,
    };
    // A line that cannot be written is let go: to say so on standard error as well would panic once nobody reads it.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let lines = if pretty {
        lines.compact().with_ansi(std::io::stderr().is_terminal()).boxed()
    } else {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .fmt_fields(fields::JsonMembers)
            .boxed()
    };
    let spans = match config.otlp_endpoint.as_str() {
        "" => None,
        endpoint => {
            let (layer, _) = otlp::start(endpoint.to_owned(), config.otlp_sample_percent, clock, randomness);
            Some(layer.with_filter(filter()?))
        }
    };
    // A second engine in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry()
        .with(spans)
        .with(lines.with_filter(filter()?))
        .try_init();
    Ok(())
}
