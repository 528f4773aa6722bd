use serde_json::{Value, json};

use super::client::ClientArgs;
use super::{CommandError, output};

/// Ask whether a customer may use a feature now. Takes nothing. Exit code 5 for no.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The customer.
    customer: String,
    /// The feature.
    feature: String,
    /// How much.
    #[arg(default_value = "1")]
    amount: String,
    #[command(flatten)]
    client: ClientArgs,
}

impl Check {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        let client = self.client.client()?;
        let body = json!({"customer": self.customer, "feature": self.feature, "amount": self.amount});
        let answer = client.post("/v1/quota/check", body).await?;
        if self.client.json {
            output::json(&answer)?;
        } else {
            output::line(&show(&answer))?;
        }
        if answer["allowed"] == true {
            return Ok(());
        }
        Err(CommandError::negative(format!(
            "not allowed: {}",
            output::cell(&answer["reason"])
        )))
    }
}

fn show(answer: &Value) -> String {
    let allowed = if answer["allowed"] == true { "yes" } else { "no" };
    let mut rows = vec![vec!["allowed".to_owned(), allowed.to_owned()]];
    for name in [
        "reason",
        "limit",
        "used",
        "reserved",
        "remaining",
        "overage",
        "resets_at",
        "as_of",
        "upgrade",
    ] {
        if !answer[name].is_null() {
            rows.push(vec![name.to_owned(), output::cell(&answer[name])]);
        }
    }
    output::table(&["", ""], rows)
        .lines()
        .skip(1)
        .collect::<Vec<_>>()
        .join("\n")
}
