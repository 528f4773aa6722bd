use jiff::tz::TimeZone;
use jiff::{RoundMode, Timestamp, ToSpan as _, Unit, Zoned, ZonedRound};
use serde_json::Value;
use turnpike_client::transport::encode;
use turnpike_domain::time::Clock as _;
use turnpike_stores::machine::MachineClock;

use super::client::{Client, ClientArgs};
use super::{CommandError, output, plot};

/// Show usage of a meter, with a bar for each value.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike usage tokens
  turnpike usage tokens --window hour
  turnpike usage tokens --window day --customer acme --tz Europe/Istanbul --from 2026-01-01T00:00:00+03:00
  turnpike usage tokens --group-by customer --group-by model --filter region=eu
  turnpike usage tokens --window day --json | jq -r '.[] | [.start, .value] | @tsv'")]
pub(crate) struct Usage {
    /// The meter.
    meter: String,
    /// Of one customer; may repeat.
    #[arg(long)]
    customer: Vec<String>,
    /// Of one subject; may repeat.
    #[arg(long)]
    subject: Vec<String>,
    /// From this instant on, such as 2026-01-01T00:00:00Z; on a whole minute. Unless said: everything, or with --window
    /// the last hour of minutes, day of hours, 30 days, or 12 months.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until before this instant; now unless said.
    #[arg(long, value_name = "TIME")]
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
    pub(crate) async fn run(mut self) -> Result<(), CommandError> {
        let client = self.client.client()?;
        if let (Some(window), None) = (&self.window, &self.from) {
            self.from = Some(self.usual_start(&client, window).await?);
        }
        let path = format!("/v1/meters/{}/usage{}", encode(&self.meter), self.query()?);
        let rows = client.list(&path).await?;
        if self.client.json {
            return output::json(&Value::Array(rows));
        }
        if rows.is_empty() {
            return output::line(&self.nothing());
        }
        output::line(&show(&rows))
    }

    /// What to say when there is no row.
    fn nothing(&self) -> String {
        let since = self
            .from
            .as_ref()
            .map_or(String::new(), |from| format!(" since {from}"));
        format!("No usage{since}. Another range: --from, --to.")
    }

    /// Where a plot of `window`s begins when nobody said.
    async fn usual_start(&self, client: &Client, window: &str) -> Result<String, CommandError> {
        let wrong = |what: &str, error: &dyn std::fmt::Display| {
            CommandError::usage(format!("{what} cannot be read: {error}"))
        };
        let end = match &self.to {
            Some(to) => to.parse().map_err(|error| wrong("--to", &error))?,
            None => now(client).await?,
        };
        let zone =
            TimeZone::get(self.tz.as_deref().unwrap_or("UTC")).map_err(|error| wrong("--tz", &error))?;
        let start = start_before(&end.to_zoned(zone), window)
            .map_err(|error| CommandError::failed(format!("no start can be computed: {error}")))?;
        Ok(start.timestamp().to_string())
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

/// The tenant's time: a test tenant has its own clock.
async fn now(client: &Client) -> Result<Timestamp, CommandError> {
    let shown = client
        .send(reqwest::Method::GET, "/v1/test-clock", super::Body::None)
        .await;
    if let Ok(answer) = shown
        && answer.status().is_success()
        && let Ok(clock) = answer.json::<Value>().await
        && let Some(now) = clock["now"].as_str().and_then(|now| now.parse().ok())
    {
        return Ok(now);
    }
    Timestamp::from_microsecond(MachineClock.machine_now().micros())
        .map_err(|error| CommandError::failed(format!("the clock shows no time: {error}")))
}

/// The beginning of the first of as many windows before `end` as fit a screen.
fn start_before(end: &Zoned, window: &str) -> Result<Zoned, jiff::Error> {
    let whole = |unit: Unit| ZonedRound::new().smallest(unit).mode(RoundMode::Trunc);
    match window {
        "minute" => end.checked_sub(59.minutes())?.round(whole(Unit::Minute)),
        "hour" => end.checked_sub(23.hours())?.round(whole(Unit::Hour)),
        "day" => end.checked_sub(29.days())?.start_of_day(),
        _ => end.first_of_month()?.checked_sub(11.months())?.start_of_day(),
    }
}

/// Rows of usage as a table, with bars as wide as the terminal lets them be.
pub(crate) fn show(rows: &[Value]) -> String {
    show_in(rows, plot::columns())
}

fn show_in(rows: &[Value], columns: usize) -> String {
    let values: Vec<String> = rows.iter().map(|row| output::cell(&row["value"])).collect();
    let mut dimensions: Vec<&String> = rows
        .iter()
        .filter_map(|row| row["group"].as_object())
        .flat_map(|group| group.keys())
        .collect();
    dimensions.sort();
    dimensions.dedup();
    let mut titles = vec!["start", "end"];
    // Beside the dimensions, rows can be split by these.
    titles.extend(
        ["customer", "subject"]
            .iter()
            .filter(|name| rows.iter().any(|row| !row[**name].is_null())),
    );
    let own = titles.clone();
    titles.extend(dimensions.iter().map(|name| name.as_str()));
    titles.push("#value");
    let cells = rows.iter().zip(&values).map(|(row, value)| {
        let mut cells: Vec<String> = own.iter().map(|name| output::cell(&row[*name])).collect();
        cells.extend(
            dimensions
                .iter()
                .map(|name| output::cell(&row["group"][name.as_str()])),
        );
        cells.push(output::grouped(value));
        cells
    });
    with_bars(&output::table(&titles, cells), &values, columns)
}

/// A table whose rows hold `values`, with a bar behind each.
fn with_bars(table: &str, values: &[String], columns: usize) -> String {
    let width = table.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let bars = plot::bars(values, columns.saturating_sub(width + 2));
    let mut lines = table.lines();
    let mut text: Vec<String> = lines.next().map(str::to_owned).into_iter().collect();
    for (line, bar) in lines.zip(bars) {
        text.push(format!("{line:width$}  {bar}").trim_end().to_owned());
    }
    text.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows() -> [Value; 3] {
        [
            json!({"start": "10:00", "end": "11:00", "group": {"model": "a"}, "value": "2000"}),
            json!({"start": "11:00", "end": "12:00", "group": {"model": "b"}, "value": "500"}),
            json!({"start": "12:00", "end": "13:00", "group": {}, "value": null}),
        ]
    }

    #[test]
    fn usage_has_bars_and_dimensions() {
        insta::assert_snapshot!(show_in(&rows(), 68), @r"
        START  END    MODEL  VALUE
        10:00  11:00  a      2,000  ████████████████████████████████████████
        11:00  12:00  b        500  ██████████
        12:00  13:00  –          –
        ");
    }

    #[test]
    fn whatever_rows_are_split_by_has_a_column() {
        let rows = [
            json!({"start": "10:00", "end": "11:00", "customer": "acme", "subject": "a-1", "group": {"status": "200"},
                "value": "2"}),
            json!({"start": "10:00", "end": "11:00", "customer": null, "subject": "b-1", "group": {"status": ""},
                "value": "1"}),
        ];
        insta::assert_snapshot!(show_in(&rows, 40), @r"
        START  END    CUSTOMER  SUBJECT  STATUS  VALUE
        10:00  11:00  acme      a-1      200         2
        10:00  11:00  –         b-1                  1
        ");
    }

    #[test]
    fn whatever_is_in_a_subject_a_row_is_one_line() {
        let rows = ["a\nb", "c\u{1b}[2J", "d"].map(|subject| {
            json!({"start": "10:00", "end": "11:00", "subject": subject, "group": {"model": "x\r\n"}, "value": "2"})
        });
        insta::assert_snapshot!(show_in(&rows, 40), @r"
        START  END    SUBJECT     MODEL  VALUE
        10:00  11:00  a\nb        x\r\n      2
        10:00  11:00  c\u001b[2J  x\r\n      2
        10:00  11:00  d           x\r\n      2
        ");
    }

    #[test]
    fn a_narrow_terminal_has_shorter_bars_or_none() {
        assert!(
            show_in(&rows(), 40)
                .lines()
                .all(|line| line.chars().count() <= 40)
        );
        assert!(show_in(&rows(), 40).contains('█'));
        assert!(!show_in(&rows(), 20).contains('█'));
    }

    #[test]
    fn one_row_needs_no_bar() {
        assert!(!show_in(&rows()[..1], 100).contains('█'));
    }

    #[test]
    fn starts_are_on_a_window_of_the_zone() {
        let end = |zone: &str| {
            let end: Timestamp = "2026-03-29T12:34:56.789Z".parse().unwrap();
            end.to_zoned(TimeZone::get(zone).unwrap())
        };
        for (zone, window, expected) in [
            ("UTC", "minute", "2026-03-29T11:35:00Z"),
            ("UTC", "hour", "2026-03-28T13:00:00Z"),
            ("UTC", "day", "2026-02-28T00:00:00Z"),
            ("UTC", "month", "2025-04-01T00:00:00Z"),
            // Clocks go forward on that day: midnight is at another distance from UTC.
            ("Europe/Berlin", "day", "2026-02-27T23:00:00Z"),
            ("Asia/Kolkata", "hour", "2026-03-28T13:30:00Z"),
        ] {
            let start = start_before(&end(zone), window).unwrap().timestamp();
            assert_eq!(start.to_string(), expected, "{zone} {window}");
        }
    }
}
