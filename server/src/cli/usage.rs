use serde_json::Value;

use super::client::{ClientArgs, encode};
use super::{CommandError, output};

/// Cells of the longest bar.
const BAR_CELLS: usize = 40;

/// Show usage of a meter, with a bar for each value.
#[derive(Debug, clap::Args)]
pub(crate) struct Usage {
    /// The meter.
    meter: String,
    /// Of one customer; may repeat.
    #[arg(long)]
    customer: Vec<String>,
    /// Of one subject; may repeat.
    #[arg(long)]
    subject: Vec<String>,
    /// From this instant on, such as 2026-01-01T00:00:00Z; on a whole minute.
    #[arg(long)]
    from: Option<String>,
    /// Until before this instant.
    #[arg(long)]
    to: Option<String>,
    /// One row per minute, hour, day or month; without it one row in all.
    #[arg(long, value_parser = ["minute", "hour", "day", "month"])]
    window: Option<String>,
    /// IANA zone of the windows; UTC unless said.
    #[arg(long)]
    tz: Option<String>,
    /// Split by a dimension, `customer` or `subject`; may repeat.
    #[arg(long)]
    group_by: Vec<String>,
    /// Only where a dimension has a value: DIMENSION=VALUE; may repeat.
    #[arg(long, value_name = "DIMENSION=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

impl Usage {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        let client = self.client.client()?;
        let path = format!("/v1/meters/{}/usage{}", encode(&self.meter), self.query()?);
        let rows = client.list(&path).await?;
        if self.client.json {
            return output::json(&Value::Array(rows));
        }
        if rows.is_empty() {
            return output::line("No usage in that range.");
        }
        output::line(&show(&rows))
    }

    fn query(&self) -> Result<String, CommandError> {
        let mut pairs: Vec<(String, &str)> = Vec::new();
        let single = [
            ("from", &self.from),
            ("to", &self.to),
            ("window", &self.window),
            ("tz", &self.tz),
        ];
        pairs.extend(
            single
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value.as_deref()?))),
        );
        let many = [
            ("customer", &self.customer),
            ("subject", &self.subject),
            ("group_by", &self.group_by),
        ];
        for (name, values) in many {
            pairs.extend(values.iter().map(|value| (name.to_owned(), value.as_str())));
        }
        for filter in &self.filter {
            let (dimension, value) = filter.split_once('=').ok_or_else(|| {
                CommandError::usage(format!("--filter takes DIMENSION=VALUE, not \"{filter}\""))
            })?;
            pairs.push((format!("filter[{dimension}]"), value));
        }
        let query: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        Ok(if query.is_empty() {
            String::new()
        } else {
            format!("?{}", query.join("&"))
        })
    }
}

/// Rows of usage as a table with bars.
pub(crate) fn show(rows: &[Value]) -> String {
    let value = |row: &Value| output::cell(&row["value"]);
    let most = rows
        .iter()
        .map(value)
        .max_by_key(|text| output::millionths(text).unwrap_or(i128::MIN))
        .unwrap_or_default();
    let mut dimensions: Vec<&String> = rows
        .iter()
        .filter_map(|row| row["group"].as_object())
        .flat_map(|group| group.keys())
        .collect();
    dimensions.sort();
    dimensions.dedup();
    let with_customer = rows.iter().any(|row| !row["customer"].is_null());
    let mut titles = vec!["start", "end"];
    if with_customer {
        titles.push("customer");
    }
    titles.extend(dimensions.iter().map(|name| name.as_str()));
    titles.extend(["#value", ""]);
    let cells = rows.iter().map(|row| {
        let mut cells = vec![output::cell(&row["start"]), output::cell(&row["end"])];
        if with_customer {
            cells.push(output::cell(&row["customer"]));
        }
        cells.extend(
            dimensions
                .iter()
                .map(|name| output::cell(&row["group"][name.as_str()])),
        );
        cells.extend([
            output::grouped(&value(row)),
            output::bar(&value(row), &most, BAR_CELLS),
        ]);
        cells
    });
    output::table(&titles, cells)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn usage_has_bars_and_dimensions() {
        let rows = [
            json!({"start": "10:00", "end": "11:00", "group": {"model": "a"}, "value": "2000"}),
            json!({"start": "11:00", "end": "12:00", "group": {"model": "b"}, "value": "500"}),
            json!({"start": "12:00", "end": "13:00", "group": {}, "value": null}),
        ];
        insta::assert_snapshot!(show(&rows), @r"
        START  END    MODEL  VALUE
        10:00  11:00  a      2,000  ████████████████████████████████████████
        11:00  12:00  b        500  ██████████
        12:00  13:00  –          –
        ");
    }
}
