use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use turnpike_client::transport::encode;
use turnpike_domain::quantity::Quantity;

use super::super::client::Client;
use super::super::{CommandError, output};
use super::amount;

/// Invoices that are shown; all are in the totals.
const SHOWN_MAX: usize = 20;
/// Pauses between looks at a run.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Bills, and shows the invoices with their totals. An error when a subscription could not be billed.
pub(super) async fn bill(client: &Client, period_end: &str, json: bool) -> Result<(), CommandError> {
    let run = follow(client, period_end).await?;
    if json {
        output::json(&run)?;
    } else {
        output::line(&show(&run, &invoices_of(client, &run).await?))?;
    }
    conclude(&run)
}

/// Starts a run and follows it to its end. An error when a subscription could not be billed.
pub(crate) async fn billing_run(client: &Client, period_end: &str) -> Result<Value, CommandError> {
    let run = follow(client, period_end).await?;
    conclude(&run)?;
    Ok(run)
}

async fn follow(client: &Client, period_end: &str) -> Result<Value, CommandError> {
    let mut run = client
        .post_once("/v1/billing/runs", json!({"period_end": period_end}))
        .await?;
    let id = output::cell(&run["id"]);
    let bar = output::progress(None, "invoices");
    while !matches!(run["status"].as_str(), Some("done" | "failed")) {
        tokio::time::sleep(LOOK_EVERY).await;
        run = client.get(&format!("/v1/billing/runs/{}", encode(&id))).await?;
        bar.set_position(count(&run, "invoices"));
    }
    bar.finish_and_clear();
    Ok(run)
}

fn conclude(run: &Value) -> Result<(), CommandError> {
    if run["status"] == "done" {
        return Ok(());
    }
    let first = &run["failures"][0];
    Err(CommandError::failed(format!(
        "{} of {} subscriptions could not be billed, the first: {} ({}); when the cause is gone, run the same command \
         again: nothing is billed twice",
        run["failed"],
        run["subscriptions"],
        output::cell(&first["detail"]),
        output::cell(&first["code"]),
    )))
}

fn count(run: &Value, name: &str) -> u64 {
    run[name].as_u64().unwrap_or(0)
}

/// The invoices that a run made final: of the newest ones as many as it says.
async fn invoices_of(client: &Client, run: &Value) -> Result<Vec<Value>, CommandError> {
    let wanted = count(run, "invoices");
    let begun = run["created"].as_str().unwrap_or("");
    let mut pages = client.pages("/v1/invoices");
    let mut found = Vec::new();
    while (found.len() as u64) < wanted
        && let Some(page) = pages.next().await?
    {
        // Instants are written with as many digits as they need: they are compared as instants, not as texts.
        let begun: Option<jiff::Timestamp> = begun.parse().ok();
        found.extend(page.into_iter().filter(|invoice| {
            let finalized: Option<jiff::Timestamp> =
                invoice["finalized"].as_str().and_then(|text| text.parse().ok());
            finalized.is_some() && finalized >= begun
        }));
    }
    found.reverse();
    Ok(found)
}

/// A run that is over, with its invoices.
fn show(run: &Value, invoices: &[Value]) -> String {
    let by = output::cell(&run["period_end"]);
    let mut text = match count(run, "invoices") {
        0 => format!("No invoice: nothing that ended by {by} was left to bill."),
        made => format!("{}, of what ended by {by}:\n\n", several(made, "invoice")),
    };
    if !invoices.is_empty() {
        text.push_str(&show_invoices(invoices));
    }
    let rest = [
        (
            count(run, "drafts"),
            "draft",
            "left, for the grace time is not over",
        ),
        (
            count(run, "empty_periods"),
            "period",
            "closed without anything to charge",
        ),
    ];
    for (number, what, why) in rest.into_iter().filter(|(number, ..)| *number > 0) {
        let _ = write!(text, "\n{} {why}.", several(number, what));
    }
    text.push_str(&show_rows(
        "Usage that came too late for any invoice",
        count(run, "late"),
        &run["late_usage"],
        &["subscription", "price", "#quantity", "#amount", "currency"],
    ));
    text.push_str(&show_rows(
        "Not billed",
        count(run, "failed"),
        &run["failures"],
        &["subscription", "code", "detail"],
    ));
    text
}

fn several(number: u64, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {what}{s}", output::thousands(number))
}

/// Invoices with the total of each currency below.
fn show_invoices(invoices: &[Value]) -> String {
    let cells = |one: &Value| {
        let mut cells: Vec<String> = ["number", "customer"]
            .iter()
            .map(|name| output::cell(&one[*name]))
            .collect();
        cells.extend([
            output::period(&one["period"]),
            amount(&one["total"]),
            output::cell(&one["currency"]),
        ]);
        cells
    };
    let mut rows: Vec<Vec<String>> = invoices.iter().take(SHOWN_MAX).map(cells).collect();
    if invoices.len() > SHOWN_MAX {
        let more = invoices.len() - SHOWN_MAX;
        rows.push(vec!["…".to_owned(), format!("and {more} more")]);
    }
    for (currency, total) in totals(invoices) {
        let sum = total.map_or("–".to_owned(), |sum| output::grouped(&sum));
        rows.push(["total", "", "", &sum, currency].map(str::to_owned).to_vec());
    }
    output::table(&["number", "customer", "period", "#total", "currency"], rows)
}

/// The sum of all totals by currency, with as many decimals as they have; none beyond what can be added.
fn totals(invoices: &[Value]) -> BTreeMap<&str, Option<String>> {
    let mut sums: BTreeMap<&str, (Option<Quantity>, usize)> = BTreeMap::new();
    for one in invoices {
        let text = one["total"].as_str().unwrap_or("");
        let (sum, places) = sums
            .entry(one["currency"].as_str().unwrap_or("?"))
            .or_insert((Some(Quantity::from_units(0)), 0));
        *sum = sum
            .zip(Quantity::parse(text).ok())
            .and_then(|(sum, total)| sum.checked_add(total));
        *places = text.split_once('.').map_or(0, |(_, digits)| digits.len());
    }
    sums.into_iter()
        .map(|(currency, (sum, places))| (currency, sum.map(|sum| padded(&sum.to_string(), places))))
        .collect()
}

/// A decimal with at least `places` decimals.
fn padded(decimal: &str, places: usize) -> String {
    let (whole, digits) = decimal.split_once('.').unwrap_or((decimal, ""));
    if places == 0 {
        return decimal.to_owned();
    }
    format!("{whole}.{digits:0<places$}")
}

/// Rows of a run below a title; nothing where there is none.
fn show_rows(title: &str, number: u64, rows: &Value, names: &[&str]) -> String {
    let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
    if rows.is_empty() {
        return String::new();
    }
    let cells = rows.iter().map(|row| {
        names
            .iter()
            .map(|name| output::cell(&row[name.trim_start_matches('#')]))
            .collect()
    });
    let mut text = format!("\n\n{title} ({number}):\n\n{}", output::table(names, cells));
    let more = number.saturating_sub(rows.len() as u64);
    if more > 0 {
        let _ = write!(text, "\nand {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invoice(number: u32, total: &str, currency: &str) -> Value {
        json!({"number": format!("INV-{number:06}"), "customer": "acme", "total": total, "currency": currency,
            "period": {"start": "2026-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z"}})
    }

    #[test]
    fn a_run_shows_its_invoices_and_their_totals() {
        let run = json!({"status": "done", "period_end": "2026-02-01T00:00:00Z", "subscriptions": 4, "invoices": 3,
            "drafts": 1, "empty_periods": 2, "failed": 0, "failures": [], "late": 0, "late_usage": []});
        let invoices = [
            invoice(1, "1234.50", "USD"),
            invoice(2, "0.50", "USD"),
            invoice(3, "700", "JPY"),
        ];
        insta::assert_snapshot!(show(&run, &invoices), @r"
        3 invoices, of what ended by 2026-02-01T00:00:00Z:

        NUMBER      CUSTOMER  PERIOD                      TOTAL  CURRENCY
        INV-000001  acme      2026-01-01 – 2026-02-01  1,234.50  USD
        INV-000002  acme      2026-01-01 – 2026-02-01      0.50  USD
        INV-000003  acme      2026-01-01 – 2026-02-01       700  JPY
        total                                               700  JPY
        total                                          1,235.00  USD
        1 draft left, for the grace time is not over.
        2 periods closed without anything to charge.
        ");
        assert!(conclude(&run).is_ok());
    }

    #[test]
    fn what_could_not_be_billed_is_told() {
        let run = json!({"status": "failed", "period_end": "2026-02-01T00:00:00Z", "subscriptions": 2, "invoices": 0,
            "failed": 1, "failures": [{"subscription": "s1", "code": "invalid", "detail": "the amount is out of range"}],
            "late": 101, "late_usage": [{"subscription": "s2", "price": "tokens", "quantity": "12", "amount": "0.12",
                "currency": "USD"}]});
        insta::assert_snapshot!(show(&run, &[]), @r"
        No invoice: nothing that ended by 2026-02-01T00:00:00Z was left to bill.

        Usage that came too late for any invoice (101):

        SUBSCRIPTION  PRICE   QUANTITY  AMOUNT  CURRENCY
        s2            tokens        12    0.12  USD
        and 100 more

        Not billed (1):

        SUBSCRIPTION  CODE     DETAIL
        s1            invalid  the amount is out of range
        ");
        let error = conclude(&run).unwrap_err();
        assert!(error.to_string().starts_with("1 of 2 subscriptions"), "{error}");
    }

    #[test]
    fn long_lists_are_cut_but_summed_whole() {
        let invoices: Vec<Value> = (1..=30).map(|number| invoice(number, "0.10", "USD")).collect();
        let shown = show_invoices(&invoices);
        assert!(shown.contains("and 10 more"), "{shown}");
        assert!(shown.ends_with("3.00  USD"), "{shown}");
    }
}
