use std::path::PathBuf;

use serde_json::{Value, json};
use turnpike_domain::limits::INVOICES_VERIFIED_MAX;

use super::client::ClientArgs;
use super::{CommandError, ConfigArgs, output};
use crate::wiring::Offline;

/// Derive invoices again from the raw events and compare them to the last minor unit: through the server, or with
/// --data-dir on a stopped data directory, for all tenants. Exit code 5 for a difference.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike verify
  turnpike verify INV-000001
  turnpike verify --data-dir ./data")]
pub(crate) struct Verify {
    /// Invoices by id or number; all that are final unless said.
    invoices: Vec<String>,
    /// A data directory that no server uses.
    #[arg(long, value_name = "DIR", conflicts_with = "invoices")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
}

impl Verify {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        let found = match &self.data_dir {
            Some(path) => offline(path.clone()).await?,
            None => self.online().await?,
        };
        if self.client.json {
            output::json(&Value::Array(found.clone()))?;
        } else if found.is_empty() {
            output::line("There is no final invoice yet.")?;
        } else {
            output::line(&show(&found))?;
        }
        let wrong = found.iter().filter(|one| one["verified"] != true).count();
        if wrong == 0 {
            return Ok(());
        }
        Err(CommandError::negative(format!(
            "{wrong} of {} invoices could not be verified",
            found.len()
        )))
    }

    async fn online(&self) -> Result<Vec<Value>, CommandError> {
        let client = self.client.client()?;
        let mut ids = self.invoices.clone();
        if ids.is_empty() {
            let all = client.list("/v1/invoices").await?;
            ids.extend(
                all.iter()
                    .filter(|one| !one["number"].is_null())
                    .filter_map(|one| one["id"].as_str().map(str::to_owned)),
            );
        }
        let bar = output::progress(Some(ids.len() as u64), "invoices");
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(INVOICES_VERIFIED_MAX) {
            let mut answer = client
                .post("/v1/invoices/verify", json!({ "invoices": ids }))
                .await?;
            if let Some(all) = answer["data"].as_array_mut() {
                found.append(all);
            }
            bar.inc(ids.len() as u64);
        }
        bar.finish_and_clear();
        Ok(found)
    }
}

async fn offline(path: PathBuf) -> Result<Vec<Value>, CommandError> {
    let failed = |error: crate::wiring::StartError| CommandError::failed(error.to_string());
    let config = ConfigArgs {
        data_dir: Some(path),
        ..ConfigArgs::default()
    }
    .load(Vec::new())?;
    let offline = Offline::open(&config).await.map_err(failed)?;
    let bar = output::progress(None, "invoices");
    let mut found = Vec::new();
    let verified = offline
        .verify_invoices(|tenant, invoice, verification| {
            let mut one = serde_json::to_value(verification).unwrap_or_default();
            one["tenant"] = json!(tenant);
            one["invoice"] = invoice.id.as_str().into();
            found.push(one);
            bar.inc(1);
        })
        .await;
    bar.finish_and_clear();
    offline.close().await.map_err(failed)?;
    verified.map_err(failed)?;
    Ok(found)
}

fn show(found: &[Value]) -> String {
    let rows = found.iter().map(|one| {
        let outcome = match one["verified"].as_bool() {
            Some(true) => "the same".to_owned(),
            Some(false) => format!("differs: {}", one["differences"]),
            None => format!("unknown: {}", output::cell(&one["reason"])),
        };
        vec![output::cell(&one["invoice"]), outcome]
    });
    output::table(&["invoice", "derived again"], rows)
}
