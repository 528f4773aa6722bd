//! How commands show what they have.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::CommandError;

/// Writes JSON to standard output.
pub(crate) fn json(value: &Value) -> Result<(), CommandError> {
    line(&pretty(value))
}

/// JSON as people like it.
pub(crate) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// Writes a text and a line's end to `file`, or to standard output.
pub(crate) fn page(text: &str, file: Option<&Path>) -> Result<(), CommandError> {
    let Some(file) = file else { return line(text) };
    std::fs::write(file, format!("{text}\n"))
        .map_err(|error| CommandError::failed(format!("cannot write {}: {error}", file.display())))
}

/// Writes a text and a line's end to standard output, with control characters [`escaped`]. A reader that went away
/// (`| head`) is no failure.
pub(crate) fn line(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", escaped(text, OF_TEXTS)) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CommandError::failed(format!("cannot write: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a text and a line's end to standard error, with control characters [`escaped`]. Where nobody reads it, there is
/// nobody to tell: how the command ended says its exit code.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", escaped(text, OF_TEXTS));
}

/// Control characters that texts of several lines are made of.
const OF_TEXTS: &[char] = &['\n', '\t'];

/// A text with its control characters, but for those `kept`, and what turns the direction of writing as JSON escapes them:
/// what events hold may be written by anybody, and must neither steer the terminal nor look like another row.
fn escaped<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let steers = |one: char| {
        let turns =
            matches!(one, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        (one.is_control() || turns) && !kept.contains(&one)
    };
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for one in text.chars() {
        match one {
            one if !steers(one) => out.push(one),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            one => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(one));
            }
        }
    }
    out.into()
}

/// An aligned table. Columns whose title begins with `#` hold numbers and stand at the right.
pub(crate) fn table(titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let table = filled(titles, rows);
    trimmed(&table)
}

/// The same with sentences in its last column, which go on in the next line where the terminal ends. What is no terminal
/// gets each sentence in one line, to be searched.
pub(crate) fn prose(
    titles: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
    columns: Option<usize>,
) -> String {
    let mut table = filled(titles, rows);
    let Some(columns) = columns.and_then(|columns| u16::try_from(columns).ok()) else {
        return trimmed(&table);
    };
    table
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(columns);
    for at in 0..titles.len().saturating_sub(1) {
        if let Some(column) = table.column_mut(at) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    trimmed(&table)
}

/// Columns of the terminal that standard output is, if it is one.
pub(crate) fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

fn filled(titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(
        titles
            .iter()
            .map(|title| escaped(title.trim_start_matches('#'), &[]).to_uppercase()),
    );
    for row in rows {
        table.add_row(row);
    }
    for (at, title) in titles.iter().enumerate() {
        if let Some(column) = table.column_mut(at) {
            column.set_padding((u16::from(at != 0), 1));
            if title.starts_with('#') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table
}

fn trimmed(table: &Table) -> String {
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Names and values below each other.
pub(crate) fn pairs(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let rows = rows
        .into_iter()
        .map(|(name, value)| vec![name.replace('_', " "), value]);
    let table = table(&["", ""], rows);
    table
        .split_once('\n')
        .map_or(String::new(), |(_, rows)| rows.to_owned())
}

/// A value as a cell, in one line.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => escaped(text, &[]).into_owned(),
        Value::Array(all) => all.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => escaped(&other.to_string(), &[]).into_owned(),
    }
}

/// An instant as a cell: to the second, which is enough to look at.
pub(crate) fn instant(value: &Value) -> String {
    let text = cell(value);
    match text.split_once('.') {
        Some((second, fraction)) if fraction.ends_with('Z') => format!("{second}Z"),
        _ => text,
    }
}

/// From when until before when something counts: as dates where both are the beginning of a day in UTC.
pub(crate) fn period(of: &Value) -> String {
    const MIDNIGHT: &str = "T00:00:00Z";
    let [start, end] = ["start", "end"].map(|name| cell(&of[name]));
    match (start.strip_suffix(MIDNIGHT), end.strip_suffix(MIDNIGHT)) {
        (Some(start), Some(end)) => format!("{start} – {end}"),
        _ => format!("{start} – {end}"),
    }
}

/// A whole number with its thousands apart: 1234567 as `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    grouped(&number.to_string())
}

/// A decimal with the thousands of its whole part apart.
pub(crate) fn grouped(decimal: &str) -> String {
    let (sign, unsigned) = decimal
        .strip_prefix('-')
        .map_or(("", decimal), |rest| ("-", rest));
    let (whole, fraction) = unsigned
        .split_once('.')
        .map_or((unsigned, None), |(whole, rest)| (whole, Some(rest)));
    let mut out = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// A decimal in millionths, cut: enough to draw and to compare.
pub(crate) fn millionths(decimal: &str) -> Option<i128> {
    let (negative, unsigned) = decimal
        .strip_prefix('-')
        .map_or((false, decimal), |rest| (true, rest));
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let padded: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let all: i128 = format!("{whole}{padded}").parse().ok()?;
    Some(if negative { -all } else { all })
}

/// A progress bar over `total` of `unit` (none: unknown), on a terminal only.
pub(crate) fn progress(total: Option<u64>, unit: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match (total, unit) {
        (Some(total), "bytes") => (
            ProgressBar::new(total),
            "{bar:30} {bytes}/{total_bytes}  {binary_bytes_per_sec}  {eta} left  {msg}",
        ),
        (Some(total), _) => (
            ProgressBar::new(total),
            "{bar:30} {human_pos}/{human_len}  {per_sec}  {eta} left  {msg}",
        ),
        (None, _) => (
            ProgressBar::new_spinner(),
            "{spinner} {human_pos}  {per_sec}  {msg}",
        ),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = vec![
            vec!["a".to_owned(), "1".to_owned()],
            vec!["longer".to_owned(), "1,000".to_owned()],
        ];
        assert_eq!(
            table(&["name", "#value"], rows),
            "NAME    VALUE\na           1\nlonger  1,000"
        );
    }

    #[test]
    fn control_characters_are_escaped() {
        use serde_json::json;

        for (given, of_cells, of_texts) in [
            ("plain – ü", "plain – ü", "plain – ü"),
            ("a\nb\tc", "a\\nb\\tc", "a\nb\tc"),
            (
                "\u{1b}[2J\r\u{7f}",
                "\\u001b[2J\\r\\u007f",
                "\\u001b[2J\\r\\u007f",
            ),
            ("\u{9b}1m\u{202e}x", "\\u009b1m\\u202ex", "\\u009b1m\\u202ex"),
        ] {
            assert_eq!(cell(&json!(given)), of_cells);
            assert_eq!(escaped(given, OF_TEXTS), of_texts);
        }
        let steering = json!({"a\u{9b}": ["\u{7f}"]});
        assert_eq!(
            serde_json::from_str::<Value>(&escaped(&pretty(&steering), OF_TEXTS)).unwrap(),
            steering,
            "what is JSON stays the same JSON"
        );
        assert_eq!(cell(&json!(["a\n", {"\u{9b}": 1}])), "a\\n, {\"\\u009b\":1}");
    }

    #[test]
    fn sentences_go_on_in_the_next_line_of_a_terminal() {
        let rows = || {
            [
                vec!["log".to_owned(), "one two three four five".to_owned()],
                vec!["data directory".to_owned(), "six".to_owned()],
            ]
        };
        let wrapped = prose(&["check", "detail"], rows(), Some(32));
        assert_eq!(
            wrapped,
            "CHECK           DETAIL\nlog             one two three\n                four five\ndata directory  six"
        );
        assert!(
            prose(&["check", "detail"], rows(), None).contains("log             one two three four five\n")
        );
    }

    #[test]
    fn pairs_stand_below_each_other() {
        let rows = [("amount_due", "5".to_owned()), ("id", "x".to_owned())];
        assert_eq!(pairs(rows), "amount due  5\nid          x");
        assert_eq!(pairs([]), "");
    }

    #[test]
    fn numbers_are_grouped() {
        for (given, expected) in [
            ("0", "0"),
            ("999", "999"),
            ("1000", "1,000"),
            ("-1234567.891", "-1,234,567.891"),
            ("12", "12"),
        ] {
            assert_eq!(grouped(given), expected);
        }
        assert_eq!(thousands(1_234_567), "1,234,567");
    }

    #[test]
    fn times_are_as_short_as_they_can_be() {
        use serde_json::json;

        for (given, expected) in [
            ("2026-01-01T00:00:00.063527Z", "2026-01-01T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(instant(&json!(given)), expected);
        }
        assert_eq!(instant(&Value::Null), "–");
        let days = json!({"start": "2026-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z"});
        assert_eq!(period(&days), "2026-01-01 – 2026-02-01");
        let hours = json!({"start": "2026-01-01T00:00:00Z", "end": "2026-01-31T22:00:00Z"});
        assert_eq!(period(&hours), "2026-01-01T00:00:00Z – 2026-01-31T22:00:00Z");
    }

    #[test]
    fn decimals_are_read() {
        for (text, expected) in [("1", 1_000_000), ("-0.5", -500_000), ("0.1234567", 123_456)] {
            assert_eq!(millionths(text), Some(expected));
        }
        assert_eq!(millionths("a"), None);
    }
}
