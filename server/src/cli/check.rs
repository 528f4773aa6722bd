use serde_json::{Value, json};

use super::client::ClientArgs;
use super::{CommandError, output};

/// Ask whether a customer may use a feature now.
///
/// Takes nothing. Exit code 5 for no.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike check acme tokens
  turnpike check acme tokens 4000
  turnpike check acme sso && echo allowed
  turnpike check acme tokens --json | jq .remaining")]
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
    const QUANTITIES: [&str; 5] = ["limit", "used", "reserved", "remaining", "overage"];
    let allowed = if answer["allowed"] == true { "yes" } else { "no" };
    let mut rows = vec![("allowed", allowed.to_owned())];
    let names = [&["reason"][..], &QUANTITIES, &["resets_at", "as_of"]].concat();
    for name in names {
        let value = output::cell(&answer[name]);
        if answer[name].is_null() {
            continue;
        }
        rows.push((
            name,
            if QUANTITIES.contains(&name) {
                output::grouped(&value)
            } else {
                value
            },
        ));
    }
    let mut text = output::pairs(rows);
    let limits = answer["limits"].as_array().map_or(&[][..], Vec::as_slice);
    if limits.len() > 1 {
        text.push_str("\n\n");
        text.push_str(&show_limits(limits));
    }
    let options = answer["upgrade_options"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    if !options.is_empty() {
        text.push_str("\n\nIt would be allowed with:");
        for option in options {
            text.push_str("\n  ");
            text.push_str(&upgrade(option, &answer["customer"]));
        }
    }
    text
}

/// Every limit that decides, where there are several.
fn show_limits(limits: &[Value]) -> String {
    let rows = limits.iter().map(|limit| {
        let texts = ["customer", "period", "mode"].map(|name| output::cell(&limit[name]));
        let numbers = ["limit", "used", "reserved", "remaining"]
            .map(|name| output::grouped(&output::cell(&limit[name])));
        let resets = output::cell(&limit["resets_at"]);
        texts.into_iter().chain(numbers).chain([resets]).collect()
    });
    output::table(
        &[
            "customer",
            "period",
            "mode",
            "#limit",
            "#used",
            "#reserved",
            "#remaining",
            "resets at",
        ],
        rows,
    )
}

/// `plan team`, and for whom where it is somebody above the one that asked.
fn upgrade(option: &Value, asked: &Value) -> String {
    let kind = output::cell(&option["kind"]).replace('_', "-");
    let mut text = format!("{kind} {}", output::cell(&option["key"]));
    if option["customer"] != *asked && !option["customer"].is_null() {
        text.push_str(" of customer ");
        text.push_str(&output::cell(&option["customer"]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_what_would_allow_it() {
        let limit = |customer: &str, period: &str, limit: &str| {
            json!({"customer": customer, "period": period, "mode": "hard", "limit": limit, "used": "250", "reserved": "0",
                "remaining": "9750", "resets_at": "2026-12-01T00:00:00Z"})
        };
        let answer = json!({"allowed": false, "customer": "acme", "feature": "tokens", "limit": "10000", "used": "250",
            "reserved": "0", "remaining": "9750", "overage": "0", "resets_at": "2026-12-01T00:00:00Z",
            "reason": "limit_reached", "as_of": "2026-11-21T12:32:12Z",
            "limits": [limit("acme", "month", "10000"), limit("group", "day", "1000000")],
            "upgrade_options": [{"kind": "plan", "key": "team", "version": 1, "customer": "acme"},
                {"kind": "add_on", "key": "more", "version": 1, "customer": "group"}]});
        insta::assert_snapshot!(show(&answer), @r"
        allowed    no
        reason     limit_reached
        limit      10,000
        used       250
        reserved   0
        remaining  9,750
        overage    0
        resets at  2026-12-01T00:00:00Z
        as of      2026-11-21T12:32:12Z

        CUSTOMER  PERIOD  MODE      LIMIT  USED  RESERVED  REMAINING  RESETS AT
        acme      month   hard     10,000   250         0      9,750  2026-12-01T00:00:00Z
        group     day     hard  1,000,000   250         0      9,750  2026-12-01T00:00:00Z

        It would be allowed with:
          plan team
          add-on more of customer group
        ");
    }

    #[test]
    fn a_feature_without_figures_is_short() {
        let answer = json!({"allowed": true, "customer": "acme", "feature": "sso", "limit": null, "reason": "entitled"});
        assert_eq!(show(&answer), "allowed  yes\nreason   entitled");
    }
}
