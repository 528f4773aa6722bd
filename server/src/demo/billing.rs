//! The month's bill, and its proof from the raw events.

use serde_json::{Value, json};

use super::trace::CUSTOMERS;
use super::{MONTH_END, Stage};
use crate::cli::{CommandError, invoice, output};

impl Stage {
    /// The tenant's clock goes on to the month's end, and the month is billed.
    pub(super) async fn bill(&mut self) -> Result<(), CommandError> {
        self.story.step("Bill the month");
        let client = self.client()?;
        client
            .post("/v1/test-clock/advance", json!({"to": "2023-12-01T01:00:00Z"}))
            .await?;
        self.story
            .tell("the tenant's clock goes on to 1 December 2023, 01:00");
        let run = invoice::billing_run(&client, MONTH_END).await?;
        self.found["billing_run"] = run["status"].clone();
        let mut invoices = client.list("/v1/invoices").await?;
        invoices.sort_by_key(|invoice| output::cell(&invoice["customer"]));
        let rows = invoices.iter().map(|one| {
            ["customer", "number", "status", "total", "currency"]
                .iter()
                .map(|name| output::cell(&one[*name]))
                .collect()
        });
        self.story.tell(&output::table(
            &["customer", "number", "status", "#total", "currency"],
            rows,
        ));
        self.expect(invoices.len() == CUSTOMERS.len(), "one invoice for each customer")?;
        if let Some(first) = invoices.first() {
            let whole = client
                .get(&format!("/v1/invoices/{}", output::cell(&first["id"])))
                .await?;
            self.story.tell("");
            self.story.tell(&invoice::show(&whole));
        }
        self.found["invoices"] = Value::Array(invoices);
        Ok(())
    }

    /// Each invoice derived again from the log's events.
    pub(super) async fn verify(&mut self) -> Result<(), CommandError> {
        self.story
            .step("Verify: derive every invoice again from the raw events in the log");
        let client = self.client()?;
        let invoices = self.found["invoices"].as_array().cloned().unwrap_or_default();
        let mut verified = 0;
        for one in &invoices {
            let answer = invoice::verify_one(&client, &output::cell(&one["id"])).await?;
            verified += u64::from(answer["verified"] == true);
            self.story.tell(&format!(
                "{}: verified {}, differences {}",
                output::cell(&one["customer"]),
                answer["verified"],
                answer["differences"]
            ));
        }
        self.found["verified"] = verified.into();
        self.expect(
            verified == CUSTOMERS.len() as u64,
            "every invoice is the same to the last minor unit",
        )
    }
}
