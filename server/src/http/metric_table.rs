//! Every metric with its kind, unit and meaning: what `/metrics` tells as HELP and `docs/metrics.md` lists.

use metrics::Unit;
use turnpike_domain::invariant::{Invariant, VIOLATIONS};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric: kind, name, unit, labels with all their values (or what bounds them), and meaning.
struct Metric {
    kind: Kind,
    name: &'static str,
    unit: Unit,
    labels: &'static str,
    help: &'static str,
}

impl Metric {
    /// Its meaning, and the labels it is split by.
    fn words(&self) -> String {
        match self.labels {
            "" => self.help.to_owned(),
            labels => format!("{} Split by {labels}.", self.help),
        }
    }
}

const fn counter(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    metric(Kind::Counter, name, Unit::Count, labels, help)
}

const fn gauge(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    metric(Kind::Gauge, name, Unit::Count, labels, help)
}

const fn bytes(kind: Kind, name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    metric(kind, name, Unit::Bytes, labels, help)
}

const fn seconds(name: &'static str, labels: &'static str, help: &'static str) -> Metric {
    metric(Kind::Histogram, name, Unit::Seconds, labels, help)
}

const fn metric(
    kind: Kind,
    name: &'static str,
    unit: Unit,
    labels: &'static str,
    help: &'static str,
) -> Metric {
    Metric {
        kind,
        name,
        unit,
        labels,
        help,
    }
}

/// Connections, requests, keys.
const HTTP: &[Metric] = &[
    counter(
        "turnpike_http_requests_total",
        "method, route (of the API's document, `unmatched` or `unreadable`), status",
        "Requests answered.",
    ),
    seconds(
        "turnpike_http_request_duration_seconds",
        "method, route",
        "From a request's head to the head of its answer.",
    ),
    gauge("turnpike_http_connections", "", "Open connections."),
    counter(
        "turnpike_http_answers_given_up_total",
        "",
        "Connections closed because the client took its answer too slowly; http.answer_idle_timeout_s and http.body_rate_min bound it.",
    ),
    counter(
        "turnpike_http_connections_refused_total",
        "",
        "Connections refused beyond http.connections_per_address_max.",
    ),
    counter(
        "turnpike_http_panics_total",
        "",
        "Handlers that panicked; each is a defect.",
    ),
    counter("turnpike_auth_failures_total", "", "Calls without a valid key."),
    counter(
        "turnpike_calls_limited_total",
        "limit (key, tenant)",
        "Calls refused because more came per second than a key or tenant may make.",
    ),
];

/// Events on their way in.
const INGEST: &[Metric] = &[
    counter(
        "turnpike_ingest_events_total",
        "outcome (accepted, duplicate, conflict, rejected)",
        "Events by what became of them: duplicate is what deduplication found.",
    ),
    bytes(
        Kind::Counter,
        "turnpike_ingest_bytes_total",
        "",
        "Bytes of bodies with events, unpacked.",
    ),
    bytes(
        Kind::Gauge,
        "turnpike_ingest_in_flight_bytes",
        "",
        "Memory that bodies and events under way hold; ingest.in_flight_bytes_max bounds it.",
    ),
    counter(
        "turnpike_ingest_dead_letters_total",
        "result (kept, over_rate, failed)",
        "Refused events by what became of their dead letters; those of one body behind its first 1,000 are `over_rate` too.",
    ),
    counter(
        "turnpike_intake_refused_total",
        "reason (queue, memory)",
        "Calls refused because a partition's queue, or the memory for what is not in a checkpoint yet, was full.",
    ),
];

/// The log of events and the views.
const STORES: &[Metric] = &[
    bytes(
        Kind::Gauge,
        "turnpike_log_bytes",
        "",
        "Bytes of all segments of the log.",
    ),
    bytes(
        Kind::Gauge,
        "turnpike_log_not_durable_bytes",
        "",
        "Bytes of the log that are not durable yet.",
    ),
    bytes(
        Kind::Gauge,
        "turnpike_log_pending_bytes",
        "",
        "Bytes that wait for the next group.",
    ),
    gauge(
        "turnpike_log_accepts",
        "",
        "1 while the log takes events, 0 when the disk is full or a write failed.",
    ),
    bytes(
        Kind::Counter,
        "turnpike_log_written_bytes_total",
        "",
        "Bytes written to the log.",
    ),
    bytes(
        Kind::Counter,
        "turnpike_log_torn_bytes_total",
        "",
        "Bytes cut off the log's end at starts: begun and never acknowledged.",
    ),
    seconds(
        "turnpike_log_fsync_seconds",
        "",
        "One write of a group and its fdatasync.",
    ),
    bytes(
        Kind::Histogram,
        "turnpike_log_group_bytes",
        "",
        "Bytes of a group that became durable together.",
    ),
    metric(
        Kind::Histogram,
        "turnpike_log_group_blocks",
        Unit::Count,
        "",
        "Blocks of a group that became durable together.",
    ),
    gauge(
        "turnpike_views_ids",
        "partition",
        "Ids of events that a partition knows.",
    ),
    bytes(
        Kind::Gauge,
        "turnpike_views_memory_bytes",
        "partition",
        "Memory of a partition's views.",
    ),
    bytes(
        Kind::Gauge,
        "turnpike_views_disk_bytes",
        "partition",
        "Bytes of a partition's views on disk.",
    ),
    bytes(
        Kind::Gauge,
        "turnpike_views_lag_bytes",
        "partition",
        "How far a partition's last checkpoint is behind the log: what a restart reads again.",
    ),
    counter("turnpike_views_merges_total", "", "Merges of runs of views."),
    counter(
        "turnpike_views_merge_failures_total",
        "",
        "Merges that failed and are tried again.",
    ),
    bytes(
        Kind::Gauge,
        "turnpike_unwritten_bytes",
        "",
        "Memory for what is not in a checkpoint yet, over all partitions; engine.memory_bytes_max bounds it.",
    ),
    counter(
        "turnpike_usage_queries_refused_total",
        "reason (queue, memory)",
        "Readings of usage and events refused because too many were under way, or because the memory for what they copy was full; an export that has begun and waits for that counts each second.",
    ),
    bytes(
        Kind::Gauge,
        "turnpike_usage_query_bytes",
        "",
        "Memory that readings of usage hold of what they copied; engine.query_memory_bytes_max bounds it.",
    ),
    counter(
        "turnpike_checkpoints_total",
        "result (ok, failed)",
        "Checkpoints of a partition's views.",
    ),
    seconds(
        "turnpike_checkpoint_duration_seconds",
        "",
        "Writing one checkpoint.",
    ),
];

/// Meters, quotas, billing.
const SERVICES: &[Metric] = &[
    counter(
        "turnpike_meter_values_rounded_total",
        "",
        "Values with more than 12 decimal places, rounded half up.",
    ),
    counter(
        "turnpike_meter_values_unreadable_total",
        "",
        "Values that a meter could not read; each is a dead letter.",
    ),
    counter(
        "turnpike_backfill_slices_total",
        "",
        "Slices of the log read for meters made later.",
    ),
    counter(
        "turnpike_defects_total",
        "what (cell_kind)",
        "Values that did not fit their meter's windows; each is a defect.",
    ),
    counter(
        "turnpike_quota_decisions_total",
        "call (check, consume, reserve, commit), reason",
        "Quota decisions by their reason.",
    ),
    counter(
        "turnpike_quota_repeats_total",
        "",
        "Grants that were answered again.",
    ),
    gauge(
        "turnpike_quota_reservations_open",
        "",
        "Reservations that are open.",
    ),
    counter(
        "turnpike_quota_reservations_closed_total",
        "how (released, expired)",
        "Reservations that ended without a commit.",
    ),
    gauge(
        "turnpike_quota_entries",
        "",
        "Customers' features held in memory.",
    ),
    gauge(
        "turnpike_quota_tracks",
        "",
        "Counts of customers' features held in memory.",
    ),
    gauge(
        "turnpike_quota_places",
        "",
        "Customers whose place in the hierarchy is held in memory for those counts.",
    ),
    counter(
        "turnpike_quota_slots_made_total",
        "",
        "Windows of limits that were derived from usage.",
    ),
    counter(
        "turnpike_billing_runs_total",
        "status (done, failed)",
        "Billing runs that ended.",
    ),
    counter(
        "turnpike_invoices_finalized_total",
        "",
        "Invoices that became final.",
    ),
    counter(
        "turnpike_billing_check_failures_total",
        "",
        "Tenants or subscriptions whose ended periods could not be billed at a look; they are tried again.",
    ),
];

/// The process.
const PROCESS: &[Metric] = &[
    counter(
        VIOLATIONS,
        "invariant (I3, I4, I5, I6, I9, I10)",
        "Violations of invariants found while the engine runs; any is a defect or damage.",
    ),
    counter(
        "turnpike_background_failures_total",
        "work",
        "Background work that failed and is tried again.",
    ),
    counter("turnpike_otlp_spans_sent_total", "", "Spans sent by OTLP."),
    counter(
        "turnpike_otlp_spans_dropped_total",
        "",
        "Spans that could not be sent.",
    ),
];

fn all() -> impl Iterator<Item = &'static Metric> {
    [HTTP, INGEST, STORES, SERVICES, PROCESS].into_iter().flatten()
}

/// Gives every metric its unit and words, and sets the counters of violations to 0, so that an alert can rely on them.
pub(super) fn describe() {
    for metric in all() {
        let help = metric.words();
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, help),
        }
    }
    for invariant in Invariant::ALL {
        metrics::counter!(VIOLATIONS, "invariant" => invariant.name()).absolute(0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::path::{Path, PathBuf};

    use super::*;

    fn page() -> String {
        let mut page = String::from(
            "# Metrics\n\n`/metrics` tells them in Prometheus' text format; `http.metrics_listen` gives it a listener of its own.\n\n\
             | metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n",
        );
        for metric in all() {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let unit = match metric.unit {
                Unit::Bytes => "bytes",
                Unit::Seconds => "seconds",
                _ => "",
            };
            let _ = writeln!(
                page,
                "| `{}` | {kind} | {unit} | {} | {} |",
                metric.name, metric.labels, metric.help
            );
        }
        page.push_str(
            "\n## Invariants\n\nARCHITECTURE.md says what they are. Those with a check at run time, and what checks them:\n\n\
             | invariant | checked by |\n|---|---|\n",
        );
        for invariant in Invariant::ALL {
            let _ = writeln!(page, "| {} | {} |", invariant.name(), invariant.checked_by());
        }
        page
    }

    #[test]
    fn the_page_lists_every_metric() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        if std::env::var_os("TURNPIKE_TEST_WRITE_DOCS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(
            written == page(),
            "docs/metrics.md differs from the table; write it with TURNPIKE_TEST_WRITE_DOCS=1"
        );
    }

    fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("metric_table.rs")
            {
                found.push(path);
            }
        }
    }

    /// Names in quotes that are metrics', in all product code.
    fn used() -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = Vec::new();
        for part in [
            "domain",
            "stores",
            "http",
            "ingest",
            "aggregator",
            "enforcer",
            "billing-sync",
            "server",
        ] {
            sources(&root.join(part).join("src"), &mut files);
        }
        let suffixes = [
            "_total",
            "_seconds",
            "_bytes",
            "_blocks",
            "_open",
            "_entries",
            "_tracks",
            "_places",
            "_ids",
            "_accepts",
            "_connections",
        ];
        let mut names = BTreeSet::new();
        for file in files {
            let text = std::fs::read_to_string(file).unwrap();
            for quoted in text.split('"').filter(|quoted| quoted.starts_with("turnpike_")) {
                let plain = quoted.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                if plain && suffixes.iter().any(|suffix| quoted.ends_with(suffix)) {
                    names.insert(quoted.to_owned());
                }
            }
        }
        names
    }

    #[test]
    fn every_metric_that_is_used_is_described_and_no_other() {
        let described: BTreeSet<String> = all().map(|metric| metric.name.to_owned()).collect();
        assert_eq!(described.len(), all().count(), "a name stands twice");
        assert_eq!(used(), described);
    }

    #[test]
    fn names_end_with_their_unit() {
        for metric in all() {
            assert_eq!(
                metric.name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{}",
                metric.name
            );
            let unit = match metric.unit {
                Unit::Bytes => "_bytes",
                Unit::Seconds => "_seconds",
                _ => "",
            };
            let name = metric.name.trim_end_matches("_total");
            assert!(name.ends_with(unit), "{}", metric.name);
        }
    }
}
