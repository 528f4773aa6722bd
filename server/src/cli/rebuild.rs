use super::{CommandError, ConfigArgs, output};
use crate::wiring::{Offline, Rebuilt};

/// Derive the views of a stopped data directory anew from its log, and compare.
///
/// Exit code 5 for a difference to what was there; the new views stay, for the log is the truth.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike rebuild --data-dir ./data")]
pub(crate) struct Rebuild {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

impl Rebuild {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        let config = self.config.load(Vec::new())?;
        let bar = output::progress(None, "views");
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        bar.set_message("reading the log");
        let rebuilt = Offline::rebuild(&config)
            .await
            .map_err(|error| CommandError::failed(error.to_string()))?;
        bar.finish_and_clear();
        if self.json {
            output::json(&serde_json::to_value(&rebuilt).unwrap_or_default())?;
        } else {
            output::line(&derived(&rebuilt))?;
        }
        if let Some(damage) = &rebuilt.damage {
            return Err(CommandError::negative(format!(
                "the views that were there could not be read: {damage}\nThe new ones are in their place; the damaged ones are kept \
                 beside as views.old"
            )));
        }
        let different = rebuilt.different.unwrap_or_default();
        if different == 0 {
            return if self.json {
                Ok(())
            } else {
                output::line("They are the same.")
            };
        }
        let more = different - rebuilt.named.len() as u64;
        let more = if more > 0 {
            format!("\n  and {more} more")
        } else {
            String::new()
        };
        Err(CommandError::negative(format!(
            "{} rows and ids were not what the log says; the old views are kept beside as views.old\n  {}{more}",
            different,
            rebuilt.named.join("\n  ")
        )))
    }
}

/// How much was derived, and how much there was where that is known.
fn derived(rebuilt: &Rebuilt) -> String {
    let derived = format!(
        "Derived {} rows of views and {} ids of events from the log",
        output::thousands(rebuilt.rows_after),
        output::thousands(rebuilt.ids_after)
    );
    match (rebuilt.rows_before, rebuilt.ids_before) {
        (Some(rows), Some(ids)) => format!(
            "{derived}; there were {} and {}.",
            output::thousands(rows),
            output::thousands(ids)
        ),
        _ => format!("{derived}."),
    }
}
