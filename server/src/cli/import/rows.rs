use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufRead};

use serde_json::value::RawValue;

use super::access_log;
use super::content_ids::ContentIds;
use super::csv::{Record, Records};
use super::mapping::Format;
use super::rules::{Rules, quote};
use crate::cli::CommandError;

/// Between the fields of a row where its id is made: it is in none of the usual texts.
const FIELD_END: &[u8] = b"\x1f";
/// What of a refused row is written to the file of refused rows, at the most.
const SHOWN_BYTES: usize = 4_096;

/// Where a row stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its number, from 1; for CSV the header and empty lines are not counted.
    pub(super) row: u64,
    /// The line that it begins with, from 1.
    pub(super) line: u64,
}

/// A row on its way: its event, or why it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Where it stands.
    pub(crate) place: Place,
    /// Its event as JSON in one line, or what is wrong and what the row was.
    pub(crate) event: Result<String, (String, String)>,
}

/// Reads rows of `format` and gives each to `take`, until that says no.
pub(crate) fn read_rows(
    input: Box<dyn BufRead + Send>,
    format: Format,
    rules: &Rules,
    take: &mut dyn FnMut(Row) -> bool,
) -> Result<(), CommandError> {
    match format {
        Format::Csv => read_csv(input, rules, take),
        Format::Ndjson => read_lines(input, &mut |line, ids| json_event(line, rules, ids), take),
        Format::AccessLog => {
            rules.check_columns(&access_log::COLUMNS)?;
            let mut event = |line: &str, ids: &mut ContentIds| match access_log::columns(line) {
                Ok(columns) => {
                    let id = rules.made_id(ids, || line.as_bytes().to_vec())?;
                    Ok(rules.event(&columns, id))
                }
                Err(why) => Ok(Err(why)),
            };
            read_lines(input, &mut event, take)
        }
    }
}

fn read_csv(
    input: Box<dyn BufRead + Send>,
    rules: &Rules,
    take: &mut dyn FnMut(Row) -> bool,
) -> Result<(), CommandError> {
    let failed = |error: io::Error| CommandError::failed(format!("the file cannot be read on: {error}"));
    let mut records = Records::new(input, rules.delimiter);
    let Some(first) = records.next().map_err(failed)? else {
        return Err(CommandError::usage(
            "the file is empty: a line with the columns' names is expected first",
        ));
    };
    let header = header_of(first)?;
    rules.check_columns(&header.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut ids = ContentIds::default();
    let mut number = 0;
    while let Some(Record { line, text, fields }) = records.next().map_err(failed)? {
        number += 1;
        let event = match fields {
            Err(why) => Err(why),
            Ok(fields) => {
                let id = rules
                    .made_id(&mut ids, || fields.join(FIELD_END))
                    .map_err(no_memory)?;
                csv_event(&header, &fields, rules, id)
            }
        };
        let row = Row {
            place: Place { row: number, line },
            event: event.map_err(|why| (why, shown(&text))),
        };
        if !take(row) {
            break;
        }
    }
    Ok(())
}

/// The columns' names.
fn header_of(first: Record) -> Result<Vec<String>, CommandError> {
    let fields = first
        .fields
        .map_err(|why| CommandError::usage(format!("line {}, with the columns' names: {why}", first.line)))?;
    let name = |field: &Vec<u8>| String::from_utf8_lossy(field).trim().to_owned();
    Ok(fields.iter().map(name).collect())
}

fn csv_event(header: &[String], fields: &[Vec<u8>], rules: &Rules, id: String) -> Result<String, String> {
    if fields.len() != header.len() {
        return Err(format!(
            "the row has {} fields, the header {}",
            fields.len(),
            header.len()
        ));
    }
    let mut columns = Vec::with_capacity(header.len());
    for (name, field) in header.iter().zip(fields) {
        let text = std::str::from_utf8(field).map_err(|_| format!("column \"{name}\" is not UTF-8"))?;
        columns.push((name.clone(), text.to_owned()));
    }
    rules.event(&columns, id)
}

/// How a line becomes an event: it, or why the line is refused. An error ends the import.
type LineEvent<'a> = dyn FnMut(&str, &mut ContentIds) -> io::Result<Result<String, String>> + 'a;

/// The longest line that is read, with CR and LF; the server takes no longer event.
pub(super) const LINE_BYTES_MAX: usize = turnpike_domain::limits::EVENT_BYTES_MAX + 2;

/// A line with what ends it; not whole where it is longer than [`LINE_BYTES_MAX`].
pub(super) struct Line {
    pub(super) text: Vec<u8>,
    pub(super) whole: bool,
}

/// The next line, which one of `ends` ends (CR and LF together are one end); `None` at the end of `input`.
pub(super) fn next_line(input: &mut dyn BufRead, ends: &[u8]) -> io::Result<Option<Line>> {
    let mut line = Line {
        text: Vec::new(),
        whole: true,
    };
    loop {
        let buffer = input.fill_buf()?;
        let Some(last) = buffer.len().checked_sub(1) else {
            return Ok((!line.text.is_empty()).then_some(line));
        };
        let end = buffer.iter().position(|byte| ends.contains(byte));
        let part = &buffer[..=end.unwrap_or(last)];
        let room = LINE_BYTES_MAX - line.text.len();
        line.whole &= part.len() <= room;
        line.text.extend_from_slice(&part[..part.len().min(room)]);
        let (taken, returns) = (part.len(), part.ends_with(b"\r"));
        input.consume(taken);
        if end.is_none() {
            continue;
        }
        if returns && input.fill_buf()?.starts_with(b"\n") {
            input.consume(1);
            line.text.push(b'\n');
        }
        return Ok(Some(line));
    }
}

fn read_lines(
    mut input: Box<dyn BufRead + Send>,
    to_event: &mut LineEvent<'_>,
    take: &mut dyn FnMut(Row) -> bool,
) -> Result<(), CommandError> {
    let mut ids = ContentIds::default();
    let mut number = 0;
    loop {
        number += 1;
        let read = next_line(&mut input, b"\n");
        let read =
            read.map_err(|error| CommandError::failed(format!("line {number} cannot be read: {error}")))?;
        let Some(line) = read else {
            return Ok(());
        };
        let event = match std::str::from_utf8(&line.text) {
            _ if !line.whole => Err("the line is longer than 1 MiB".to_owned()),
            Err(_) => Err("the line is not UTF-8".to_owned()),
            Ok(text) if text.trim().is_empty() => continue,
            Ok(text) => to_event(text.trim(), &mut ids).map_err(no_memory)?,
        };
        let row = Row {
            place: Place {
                row: number,
                line: number,
            },
            event: event.map_err(|why| (why, shown(&line.text))),
        };
        if !take(row) {
            return Ok(());
        }
    }
}

/// The beginning of what was refused, for the one who corrects it.
fn shown(text: &[u8]) -> String {
    let begin = &text[..text.len().min(SHOWN_BYTES)];
    String::from_utf8_lossy(begin).trim_end().to_owned()
}

fn no_memory(error: io::Error) -> CommandError {
    CommandError::failed(format!(
        "the temporary file of the ids made so far ({}): {error}; set TMPDIR to a place with room",
        std::env::temp_dir().display()
    ))
}

/// A line that is an event already; what it lacks and was given is put in front.
fn json_event(line: &str, rules: &Rules, ids: &mut ContentIds) -> io::Result<Result<String, String>> {
    let members: HashMap<String, &RawValue> = match serde_json::from_str(line) {
        Ok(members) => members,
        Err(error) => return Ok(Err(format!("the line is not a JSON object: {error}"))),
    };
    let mut front = String::new();
    let given = [
        ("source", &rules.source),
        ("type", &rules.kind),
        ("subject", &rules.subject),
    ];
    if !members.contains_key("id") {
        let _ = write!(front, "\"id\":{},", quote(&ids.next(line.as_bytes())?));
    }
    for (name, value) in given {
        if let Some(value) = value.as_ref().filter(|_| !members.contains_key(name)) {
            let _ = write!(front, "\"{name}\":{},", quote(value));
        }
    }
    let rest = line.trim_start().trim_start_matches('{').trim_start();
    if rest.starts_with('}') {
        front.pop();
    }
    Ok(Ok(format!("{{{front}{rest}")))
}

#[cfg(test)]
mod tests {
    use super::super::mapping::Mapping;
    use super::*;

    fn rows(text: &str, format: Format, mapping: &str) -> Vec<Row> {
        let mapping: Mapping = toml::from_str(mapping).unwrap();
        let rules = mapping.rules(format).unwrap();
        let mut rows = Vec::new();
        let input = Box::new(io::Cursor::new(text.to_owned().into_bytes()));
        read_rows(input, format, &rules, &mut |row| {
            rows.push(row);
            true
        })
        .unwrap();
        rows
    }

    fn ids(rows: &[Row]) -> Vec<String> {
        let id = |row: &Row| {
            serde_json::from_str::<serde_json::Value>(row.event.as_ref().unwrap()).unwrap()["id"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        rows.iter().map(id).collect()
    }

    const CSV: &str = "who,n\na,1\na,1\nb,1\na,1\n";
    const WHO: &str = "now = true\ntype = \"t\"\nsubject_column = \"who\"";

    #[test]
    fn equal_rows_are_different_events_and_the_same_in_the_next_run() {
        let first = ids(&rows(CSV, Format::Csv, WHO));
        let distinct: std::collections::BTreeSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), 4);
        assert_eq!(ids(&rows(CSV, Format::Csv, WHO)), first);
        let longer = format!("{CSV}c,9\n");
        assert_eq!(
            ids(&rows(&longer, Format::Csv, WHO))[..4],
            first,
            "what is added changes nothing before"
        );
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let one = ids(&rows("who,n\nab,c\n", Format::Csv, WHO));
        let other = ids(&rows("who,n\na,bc\n", Format::Csv, WHO));
        assert_ne!(one, other);
    }

    #[test]
    fn a_bad_row_does_not_stop_the_others() {
        let rows = rows("who,n\na,1,2\n,5\nb,2\n", Format::Csv, WHO);
        let bad: Vec<_> = rows
            .iter()
            .filter(|row| row.event.is_err())
            .map(|row| row.place.row)
            .collect();
        assert_eq!((rows.len(), bad), (3, vec![1, 2]));
    }

    #[test]
    fn a_quote_by_mistake_refuses_its_own_line() {
        let rows = rows("who,n\na,1\n\nb,\"2\nc,3\n", Format::Csv, WHO);
        let places: Vec<_> = rows.iter().map(|row| (row.place.row, row.place.line)).collect();
        assert_eq!(places, [(1, 2), (2, 4), (3, 5)]);
        let (why, shown) = rows[1].event.clone().unwrap_err();
        assert_eq!(
            (why.as_str(), shown.as_str()),
            ("a quote is opened and not closed", "b,\"2")
        );
        assert!(rows[2].event.is_ok());
    }

    #[test]
    fn columns_may_be_divided_otherwise() {
        let mapping = format!("{WHO}\ndelimiter = \";\"\ndecimal_comma = true");
        let rows = rows("who;n\na;1,5\nb;2;3\n", Format::Csv, &mapping);
        let event = rows[0].event.as_deref().unwrap();
        assert!(event.ends_with(r#""subject":"a","data":{"n":1.5}}"#), "{event}");
        let (_, shown) = rows[1].event.clone().unwrap_err();
        assert_eq!(shown, "b;2;3", "what is refused is shown as it stood");
    }

    #[test]
    fn json_lines_pass_and_get_what_they_lack() {
        let text =
            "{\"id\":\"1\",\"type\":\"own\",\"data\":{\"n\":1.10}}\n\n  {\"data\":{}}\n{}\nno json\n[1]\n";
        let rows = rows(text, Format::Ndjson, "type = \"t\"\nsource = \"s\"");
        assert_eq!(
            rows[0].event.as_deref(),
            Ok("{\"source\":\"s\",\"id\":\"1\",\"type\":\"own\",\"data\":{\"n\":1.10}}")
        );
        for row in &rows[1..3] {
            let event: serde_json::Value = serde_json::from_str(row.event.as_ref().unwrap()).unwrap();
            assert_eq!((&event["type"], &event["source"]), (&"t".into(), &"s".into()));
            assert!(event["id"].as_str().unwrap().ends_with("-1"));
        }
        assert_eq!(rows[1].place.line, 3);
        assert!(rows[3].event.is_err() && rows[4].event.is_err());
    }

    #[test]
    fn access_logs_need_no_mapping() {
        let line = "1.2.3.4 - - [17/May/2015:10:05:03 +0000] \"GET /a HTTP/1.1\" 200 5 \"-\" \"x\"\n";
        let rows = rows(&format!("{line}{line}junk\n"), Format::AccessLog, "");
        let event: serde_json::Value = serde_json::from_str(rows[0].event.as_ref().unwrap()).unwrap();
        assert_eq!(event["subject"], "1.2.3.4");
        assert_eq!(event["type"], "http.request");
        assert_eq!(event["time"], "2015-05-17T10:05:03Z");
        assert_eq!(
            event["data"],
            serde_json::json!({"method": "GET", "path": "/a", "status": 200, "bytes": 5})
        );
        assert_ne!(ids(&rows[..2])[0], ids(&rows[..2])[1]);
        assert!(rows[2].event.is_err());
    }

    #[test]
    fn a_line_without_end_is_not_kept_in_memory() {
        let long = format!("{{\"a\":\"{}\"}}\n{{\"id\":\"2\"}}\n", "x".repeat(3_000_000));
        let rows = rows(&long, Format::Ndjson, "");
        assert_eq!(rows.len(), 2);
        let (why, shown) = rows[0].event.clone().unwrap_err();
        assert!(why.contains("longer than 1 MiB") && shown.len() <= 4_096);
        assert_eq!(rows[1].event.as_deref(), Ok("{\"id\":\"2\"}"));
    }
}
