use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use turnpike_domain::time::Clock as _;
use turnpike_stores::machine::MachineClock;

use super::{CommandError, ConfigArgs, output};
use crate::wiring::DataDirError;
use crate::wiring::backup::{self, BackupError, List, Taken};

/// Copy a data directory as it is at one instant, while the server goes on serving.
///
/// Run it on the server's machine, as the server's user. The copy is whole or not there under its name. It holds the keys' hashes
/// and all usage, as the data directory does; the configuration lies elsewhere and is not in it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike backup /backups/2026-01-31 --data-dir ./data
  turnpike backup /backups/today --json | jq .log.end")]
pub(crate) struct Backup {
    /// The directory to be made.
    target: PathBuf,
    /// Copy also what could share its place on the disk with the data directory's files.
    #[arg(long)]
    copy: bool,
    #[command(flatten)]
    config: ConfigArgs,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

/// Make a data directory of a backup.
///
/// Every byte is checked. The directory must be empty or not there; on a failure nothing is left in it. Exit code 5 for a backup that
/// is damaged.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike restore /backups/2026-01-31 --data-dir ./data")]
pub(crate) struct Restore {
    /// The backup.
    backup: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

impl Backup {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        let config = self.config.load(Vec::new())?;
        let began_us = MachineClock.monotonic_us();
        let bar = output::progress(Some(0), "bytes");
        let mut progress = |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        };
        let taken = backup::take(&config.data_dir, &self.target, !self.copy, &mut progress).await;
        bar.finish_and_clear();
        let Taken { list, linked } = taken.map_err(command_error)?;
        let mut told = described(&list, began_us);
        told["backup"] = json!(self.target);
        told["linked_bytes"] = json!(linked);
        if self.json {
            return output::json(&told);
        }
        let shared = match linked {
            0 => String::new(),
            linked => format!(
                ", of which {} take no space of their own",
                indicatif::HumanBytes(linked)
            ),
        };
        output::line(&format!(
            "{} holds what there was at {}: {}{shared}. It took {}.",
            self.target.display(),
            list.taken_at,
            amount(&list),
            duration(&told)
        ))
    }
}

impl Restore {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        let config = self.config.load(Vec::new())?;
        let began_us = MachineClock.monotonic_us();
        let bar = output::progress(Some(0), "bytes");
        let mut progress = |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        };
        let restored = backup::restore(&self.backup, &config.data_dir, &mut progress).await;
        bar.finish_and_clear();
        let list = restored.map_err(command_error)?;
        let mut told = described(&list, began_us);
        told["data_dir"] = json!(config.data_dir);
        if self.json {
            return output::json(&told);
        }
        output::line(&format!(
            "{} is what there was at {}: {}. It took {}.\nServe it: turnpike serve --data-dir {0}",
            config.data_dir.display(),
            list.taken_at,
            amount(&list),
            duration(&told)
        ))
    }
}

fn described(list: &List, began_us: u64) -> Value {
    json!({
        "taken_at": list.taken_at,
        "log": list.log,
        "files": list.files.len(),
        "bytes": list.bytes(),
        "took_ms": (MachineClock.monotonic_us() - began_us) / 1_000,
    })
}

fn amount(list: &List) -> String {
    let files = output::thousands(list.files.len() as u64);
    format!("{} in {files} files", indicatif::HumanBytes(list.bytes()))
}

fn duration(told: &Value) -> String {
    let took = Duration::from_millis(told["took_ms"].as_u64().unwrap_or_default());
    format!("{took:.1?}")
}

fn command_error(error: BackupError) -> CommandError {
    let text = error.to_string();
    match error {
        BackupError::Damaged { .. } => CommandError::negative(text),
        BackupError::Exists(_)
        | BackupError::Within(_)
        | BackupError::Used(_)
        | BackupError::NoBackup(_)
        | BackupError::DataDir(DataDirError::NotEmpty(_) | DataDirError::Absent(_)) => {
            CommandError::usage(text)
        }
        _ => CommandError::failed(text),
    }
}
