mod run;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

pub(crate) use run::billing_run;
use turnpike_client::transport::encode;

use super::client::{Client, ClientArgs};
use super::{CommandError, output};

/// Bill, look at invoices, and verify them from the raw events.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike invoice list --customer acme
  turnpike invoice upcoming acme
  turnpike invoice run --period-end 2026-02-01T00:00:00Z
  turnpike invoice show INV-000001
  turnpike invoice verify INV-000001
  turnpike invoice html INV-000001 -o invoice.html")]
pub(crate) struct Invoice {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List invoices.
    List {
        /// Of one customer.
        #[arg(long)]
        customer: Option<String>,
    },
    /// Show an invoice with its lines.
    Show {
        /// Its id or number.
        id: String,
    },
    /// What a customer would be billed so far in its current period.
    Upcoming {
        /// The customer.
        customer: String,
    },
    /// Bill every period that ended by an instant and is not billed yet.
    Run {
        /// The instant, such as 2026-02-01T00:00:00Z.
        #[arg(long)]
        period_end: String,
    },
    /// Make a draft final.
    Finalize {
        /// Its id or number.
        id: String,
    },
    /// Note that an invoice is paid.
    Pay {
        /// Its id or number.
        id: String,
    },
    /// Note that an invoice is owed no more.
    Void {
        /// Its id or number.
        id: String,
    },
    /// Note that an invoice is not expected to be paid.
    Uncollectible {
        /// Its id or number.
        id: String,
    },
    /// Derive an invoice again from the raw events and compare. Exit code 5 for a difference.
    Verify {
        /// Its id or number.
        id: String,
    },
    /// Write an invoice as an HTML page that prints well.
    Html {
        /// Its id or number.
        id: String,
        /// The file; standard output unless said.
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
}

impl Invoice {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        let client = self.client.client()?;
        let json = self.client.json;
        match &self.what {
            What::List { customer } => list(&client, customer.as_deref(), json).await,
            What::Show { id } => shown(client.get(&path_of(id)).await?, json),
            What::Upcoming { customer } => {
                let path = format!("/v1/customers/{}/invoices/upcoming", encode(customer));
                shown(client.get(&path).await?, json)
            }
            What::Run { period_end } => run::bill(&client, period_end, json).await,
            What::Finalize { id } => step(&client, id, "finalize", json).await,
            What::Pay { id } => step(&client, id, "pay", json).await,
            What::Void { id } => step(&client, id, "void", json).await,
            What::Uncollectible { id } => step(&client, id, "uncollectible", json).await,
            What::Verify { id } => verified(&client, id, json).await,
            What::Html { id, output } => html(&client, id, output.as_deref(), json).await,
        }
    }
}

/// The path of an invoice; the server takes its id or, as on paper, its number.
fn path_of(id: &str) -> String {
    format!("/v1/invoices/{}", encode(id))
}

async fn step(client: &Client, id: &str, name: &str, json: bool) -> Result<(), CommandError> {
    let path = format!("{}/{name}", path_of(id));
    shown(client.post_once(&path, json!({})).await?, json)
}

async fn list(client: &Client, customer: Option<&str>, json: bool) -> Result<(), CommandError> {
    let query = customer.map_or_else(String::new, |key| format!("?customer={}", encode(key)));
    let rows = client.list(&format!("/v1/invoices{query}")).await?;
    if json {
        return output::json(&Value::Array(rows));
    }
    if rows.is_empty() {
        return output::line(
            "There is no invoice yet. What would be billed so far: turnpike invoice upcoming CUSTOMER",
        );
    }
    let cells = rows.iter().map(|row| {
        // Commands take either; a draft has no number yet.
        let name = if row["number"].is_null() { "id" } else { "number" };
        let mut cells = [name, "customer", "status"]
            .map(|name| output::cell(&row[name]))
            .to_vec();
        cells.push(output::period(&row["period"]));
        cells.push(amount(&row["total"]));
        cells.push(output::cell(&row["currency"]));
        cells
    });
    output::line(&output::table(
        &["invoice", "customer", "status", "period", "#total", "currency"],
        cells,
    ))
}

fn shown(invoice: Value, json: bool) -> Result<(), CommandError> {
    if json {
        output::json(&invoice)
    } else {
        output::line(&show(&invoice))
    }
}

/// An amount, whether plain or with its currency.
fn amount(value: &Value) -> String {
    let plain = if value.is_object() {
        &value["amount"]
    } else {
        value
    };
    output::grouped(&output::cell(plain))
}

/// An invoice as text.
pub(crate) fn show(invoice: &Value) -> String {
    let get = |name: &str| output::cell(&invoice[name]);
    let lines = invoice["lines"].as_array().cloned().unwrap_or_default();
    let rows = lines.iter().map(|line| {
        vec![
            output::cell(&line["description"]),
            output::grouped(&output::cell(&line["quantity"])),
            amount(&line["amount"]),
        ]
    });
    let table = if lines.is_empty() {
        "Nothing to bill.".to_owned()
    } else {
        output::table(&["line", "#quantity", "#amount"], rows)
    };
    let title = match invoice["number"].as_str() {
        Some(number) => format!("Invoice {number} for {}: {}", get("customer"), get("status")),
        None => format!("Draft for {}", get("customer")),
    };
    let mut text = format!(
        "{title}, {}, {}\n\n{table}\n",
        output::period(&invoice["period"]),
        get("currency")
    );
    let sums = ["subtotal", "discount", "credits", "tax", "total", "amount_due"];
    let sums = sums.iter().filter(|name| !invoice[**name].is_null());
    let sums = output::table(
        &["", "#"],
        sums.map(|name| vec![name.replace('_', " "), amount(&invoice[*name])]),
    );
    text.push_str(
        sums.lines()
            .skip(1)
            .fold(String::new(), |all, line| all + "\n" + line)
            .as_str(),
    );
    text
}

async fn verified(client: &Client, id: &str, json: bool) -> Result<(), CommandError> {
    let answer = verify_one(client, id).await?;
    if json {
        output::json(&answer)?;
    }
    match answer["verified"].as_bool() {
        Some(true) if json => Ok(()),
        Some(true) => output::line(
            "Verified: derived again from the raw events, it is the same to the last minor unit.",
        ),
        Some(false) => Err(CommandError::negative(format!(
            "the invoice differs from what the raw events say:\n{}",
            show_differences(&answer)
        ))),
        None => Err(CommandError::negative(format!(
            "cannot be verified: {}",
            output::cell(&answer["reason"])
        ))),
    }
}

/// The server's verification of an invoice.
pub(crate) async fn verify_one(client: &Client, id: &str) -> Result<Value, CommandError> {
    client.post(&format!("{}/verify", path_of(id)), json!({})).await
}

/// The differences of a verification, one a row.
pub(crate) fn show_differences(verification: &Value) -> String {
    let all = verification["differences"].as_array();
    let rows = all.into_iter().flatten().map(|one| {
        ["pointer", "found", "expected"]
            .map(|name| output::cell(&one[name]))
            .to_vec()
    });
    output::table(&["where", "found", "expected"], rows)
}

async fn html(client: &Client, id: &str, file: Option<&Path>, json: bool) -> Result<(), CommandError> {
    let page = client.text(&format!("{}.html", path_of(id))).await?;
    let page = if json {
        output::pretty(&json!({"invoice": id, "html": page}))
    } else {
        page
    };
    output::page(page.trim_end(), file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invoice_reads_like_one() {
        let invoice = json!({"id": "i", "number": "INV-000001", "customer": "acme", "status": "open", "currency": "USD",
            "period": {"start": "2026-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z"},
            "lines": [{"description": "Base fee", "quantity": null, "amount": "29.00"},
                      {"description": "Tokens", "quantity": "1234567.5", "amount": "1204.50"}],
            "subtotal": "1233.50", "tax": null, "total": "1233.50", "amount_due": "1233.50"});
        insta::assert_snapshot!(show(&invoice), @r"
        Invoice INV-000001 for acme: open, 2026-01-01 – 2026-02-01, USD

        LINE         QUANTITY    AMOUNT
        Base fee            –     29.00
        Tokens    1,234,567.5  1,204.50

        subtotal    1,233.50
        total       1,233.50
        amount due  1,233.50
        ");
    }
    #[test]
    fn what_is_to_come_is_a_draft() {
        let draft = json!({"number": null, "customer": "acme", "status": "draft", "currency": "USD",
            "period": {"start": "2026-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z"}, "lines": [], "total": "0.00"});
        insta::assert_snapshot!(show(&draft), @r"
        Draft for acme, 2026-01-01 – 2026-02-01, USD

        Nothing to bill.

        total  0.00
        ");
    }

    #[test]
    fn differences_stand_below_each_other() {
        let verification = json!({"verified": false, "differences": [
            {"pointer": "/lines/0/quantity", "expected": "12", "found": "11"},
            {"pointer": "/total", "expected": "1.20", "found": "1.10"}]});
        insta::assert_snapshot!(show_differences(&verification), @r"
        WHERE              FOUND  EXPECTED
        /lines/0/quantity  11     12
        /total             1.10   1.20
        ");
    }
}
