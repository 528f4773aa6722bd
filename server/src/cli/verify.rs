use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use turnpike_domain::limits::INVOICES_VERIFIED_MAX;

use super::client::{Client, ClientArgs};
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
        if self.invoices.is_empty() {
            verify_all(&client).await
        } else {
            verify_named(&client, &self.invoices).await
        }
    }
}

/// Verifies every final invoice, page by page.
async fn verify_all(client: &Client) -> Result<Vec<Value>, CommandError> {
    let bar = output::progress(None, "invoices");
    let (mut found, mut body) = (Vec::new(), json!({}));
    loop {
        let (page, cursor) = verified(client, body).await?;
        bar.inc(page.len() as u64);
        found.extend(page);
        if cursor.is_null() {
            break;
        }
        body = json!({ "cursor": cursor });
    }
    bar.finish_and_clear();
    Ok(found)
}

async fn verify_named(client: &Client, names: &[String]) -> Result<Vec<Value>, CommandError> {
    let bar = output::progress(Some(names.len() as u64), "invoices");
    let mut found = Vec::with_capacity(names.len());
    // The parts that are left, the next one last.
    let mut parts: Vec<&[String]> = names.chunks(INVOICES_VERIFIED_MAX).rev().collect();
    while let Some(part) = parts.pop() {
        match verified(client, json!({ "invoices": part })).await {
            Ok((all, _)) => found.extend(all),
            Err(error) => match (error.of_what_was_named(), part) {
                (None, _) => return Err(error),
                (Some(problem), [name]) => found.push(unverified(name, problem)),
                // One of them is refused, which must not stop the others.
                (Some(_), several) => {
                    let (first, second) = several.split_at(several.len() / 2);
                    parts.extend([second, first]);
                    continue;
                }
            },
        }
        bar.inc(part.len() as u64);
    }
    bar.finish_and_clear();
    Ok(found)
}

/// The server's verifications of invoices, and where to go on; the log is read once for all of them.
async fn verified(client: &Client, body: Value) -> Result<(Vec<Value>, Value), CommandError> {
    let mut answer = client.post("/v1/invoices/verify", body).await?;
    match answer["data"].take() {
        Value::Array(all) => Ok((all, answer["next_cursor"].take())),
        _ => Err(CommandError::failed("the server answered without verifications")),
    }
}

/// What stands for the verification of an invoice that the server refused to verify.
fn unverified(name: &str, problem: &Value) -> Value {
    json!({"invoice": name, "verified": null, "reason": problem["code"], "detail": problem["detail"], "differences": []})
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
            one["tenant"] = tenant.into();
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
            None if one["detail"].is_string() => format!("not possible: {}", output::cell(&one["detail"])),
            None => format!("not possible: {}", output::cell(&one["reason"])),
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
            unverified(
                "INV-000009",
                &json!({"code": "not_found", "detail": "there is no invoice \"INV-000009\""}),
            ),
        ];
        insta::assert_snapshot!(show(&found), @r#"
        INVOICE     DERIVED AGAIN
        INV-000001  the same
        INV-000002  differs
        INV-000003  not possible: raw_events_deleted
        INV-000009  not possible: there is no invoice "INV-000009"

        Differences of INV-000002:

        WHERE   FOUND  EXPECTED
        /total  1.00   2.00
        "#);
    }
}
