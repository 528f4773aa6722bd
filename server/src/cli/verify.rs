use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use turnpike_domain::limits::INVOICES_VERIFIED_MAX;

use super::client::ClientArgs;
use super::{CommandError, ConfigArgs, invoice, output};
use crate::wiring::Offline;

/// Derive invoices again from the raw events, and compare.
///
/// To the last minor unit; through the server, or with --data-dir on a stopped data directory, for all tenants. Exit code 5
/// for a difference.
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
        let named = !self.invoices.is_empty();
        let bar = output::progress(named.then_some(self.invoices.len() as u64), "invoices");
        let mut found = Vec::new();
        let mut chunks = self.invoices.chunks(INVOICES_VERIFIED_MAX);
        let mut next = match chunks.next() {
            Some(names) => json!({ "invoices": names }),
            None => json!({}),
        };
        while !next.is_null() {
            let mut answer = client.post("/v1/invoices/verify", next).await?;
            if let Some(some) = answer["data"].as_array_mut() {
                bar.inc(some.len() as u64);
                found.append(some);
            }
            next = match (chunks.next(), answer["next_cursor"].take()) {
                (Some(names), _) => json!({ "invoices": names }),
                (None, Value::Null) => Value::Null,
                (None, cursor) => json!({ "cursor": cursor }),
            };
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
            one["invoice"] = invoice.into();
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
    let by_tenant = found.iter().any(|one| !one["tenant"].is_null());
    let rows = found.iter().map(|one| {
        let outcome = match one["verified"].as_bool() {
            Some(true) => "the same".to_owned(),
            Some(false) => "differs".to_owned(),
            None => format!("unknown: {}", output::cell(&one["reason"])),
        };
        let tenant = by_tenant.then(|| output::cell(&one["tenant"]));
        let rest = [output::cell(&one["invoice"]), outcome];
        tenant.into_iter().chain(rest).collect()
    });
    let titles = ["tenant", "invoice", "derived again"];
    let mut text = output::table(&titles[usize::from(!by_tenant)..], rows);
    for one in found.iter().filter(|one| one["verified"] == false) {
        let _ = write!(
            text,
            "\n\nDifferences of {}:\n\n{}",
            output::cell(&one["invoice"]),
            invoice::show_differences(one)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_follow_the_table() {
        let found = [
            json!({"invoice": "INV-000001", "verified": true, "differences": []}),
            json!({"invoice": "INV-000002", "verified": false,
                "differences": [{"pointer": "/total", "expected": "2.00", "found": "1.00"}]}),
            json!({"invoice": "INV-000003", "verified": null, "reason": "raw_events_deleted", "differences": []}),
        ];
        insta::assert_snapshot!(show(&found), @r"
        INVOICE     DERIVED AGAIN
        INV-000001  the same
        INV-000002  differs
        INV-000003  unknown: raw_events_deleted

        Differences of INV-000002:

        WHERE   FOUND  EXPECTED
        /total  1.00   2.00
        ");
    }
}
