use std::sync::Arc;

use turnpike_aggregator::Aggregator;
use turnpike_domain::port::log::{EventLog, LogHealth};
use turnpike_domain::port::views::Views;

/// Sets the gauges that are read only when somebody looks at `/metrics`.
#[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
pub(crate) fn refresh(log: &dyn EventLog, views: &[Arc<dyn Views>], aggregator: &Aggregator) {
    metrics::gauge!("turnpike_unwritten_bytes").set(aggregator.memory().used_bytes as f64);
    metrics::gauge!("turnpike_usage_query_bytes").set(aggregator.query_memory().used_bytes as f64);
    let (durable, end) = (log.durable().offset(), log.end().offset());
    metrics::gauge!("turnpike_log_bytes").set(log.bytes() as f64);
    metrics::gauge!("turnpike_log_not_durable_bytes").set(end.saturating_sub(durable) as f64);
    let accepts = matches!(log.health(), LogHealth::Healthy | LogHealth::Damaged(_));
    metrics::gauge!("turnpike_log_accepts").set(f64::from(u8::from(accepts)));
    for (partition, views) in views.iter().enumerate() {
        let partition = partition.to_string();
        let stats = views.stats();
        let set = |name: &'static str, value: u64| {
            metrics::gauge!(name, "partition" => partition.clone()).set(value as f64);
        };
        set("turnpike_views_ids", stats.ids);
        set("turnpike_views_memory_bytes", stats.memory_bytes);
        set("turnpike_views_disk_bytes", stats.disk_bytes);
        // What a restart would have to read: how far the last checkpoint is behind the log.
        set(
            "turnpike_views_lag_bytes",
            end.saturating_sub(views.position().offset()),
        );
    }
}
