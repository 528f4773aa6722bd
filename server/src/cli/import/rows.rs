use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, Read as _};
use std::rc::Rc;

use serde_json::value::RawValue;

use super::access_log;
use super::content_ids::ContentIds;
use super::mapping::Format;
use super::rules::{Rules, quote};
use crate::cli::CommandError;

/// A row on its way: its event, or why it has none. Numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its number in the file, from 1; for CSV the header is not counted.
    pub(crate) number: u64,
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
    let taken = Rc::new(Cell::new(0));
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .delimiter(rules.delimiter)
        .from_reader(RowBound {
            inner: input,
            taken: Rc::clone(&taken),
        });
    let header: Vec<String> = reader
        .headers()
        .map_err(|error| CommandError::failed(format!("the header line cannot be read: {error}")))?
        .iter()
        .map(|name| name.trim().to_owned())
        .collect();
    if header.is_empty() {
        return Err(CommandError::usage(
            "the file is empty: a line with the columns' names is expected first",
        ));
    }
    rules.check_columns(&header.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut ids = ContentIds::default();
    let mut record = csv::ByteRecord::new();
    let mut number = 0;
    loop {
        number += 1;
        taken.set(0);
        match reader.read_byte_record(&mut record) {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(error) => {
                return Err(CommandError::failed(format!(
                    "row {number} cannot be read: {error}"
                )));
            }
        }
        let id = rules.made_id(&mut ids, || joined(&record)).map_err(no_memory)?;
        let event =
            csv_event(&header, &record, rules, id).map_err(|why| (why, as_line(&record, rules.delimiter)));
        if !take(Row { number, event }) {
            return Ok(());
        }
    }
}

/// An input that fails when too much is taken from it for one row. A quote that is never closed would else put the rest of
/// the file into memory.
struct RowBound<R> {
    inner: R,
    /// Bytes taken for the row that is being read; what was read ahead of it is not counted.
    taken: Rc<Cell<u64>>,
}

impl<R: io::Read> io::Read for RowBound<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.taken.set(self.taken.get() + count as u64);
        if self.taken.get() > LINE_BYTES_MAX {
            return Err(io::Error::other(
                "it is longer than 1 MiB: is a quote not closed?",
            ));
        }
        Ok(count)
    }
}

fn csv_event(
    header: &[String],
    record: &csv::ByteRecord,
    rules: &Rules,
    id: String,
) -> Result<String, String> {
    if record.len() != header.len() {
        return Err(format!(
            "the row has {} fields, the header {}",
            record.len(),
            header.len()
        ));
    }
    let mut columns = Vec::with_capacity(header.len());
    for (name, field) in header.iter().zip(record) {
        let text = std::str::from_utf8(field).map_err(|_| format!("column \"{name}\" is not UTF-8"))?;
        columns.push((name.clone(), text.to_owned()));
    }
    rules.event(&columns, id)
}

/// A record as it stands in a file, for the one who corrects it.
fn as_line(record: &csv::ByteRecord, delimiter: u8) -> String {
    let mut out = csv::WriterBuilder::new()
        .delimiter(delimiter)
        .from_writer(Vec::new());
    let written = out
        .write_byte_record(record)
        .ok()
        .and_then(|()| out.into_inner().ok());
    String::from_utf8_lossy(&written.unwrap_or_default())
        .trim_end_matches('\n')
        .to_owned()
}

/// A record's fields with a separator that is in none of the usual texts.
fn joined(record: &csv::ByteRecord) -> Vec<u8> {
    record.iter().collect::<Vec<_>>().join(&b"\x1f"[..])
}

/// How a line becomes an event: it, or why the line is refused. An error ends the import.
type LineEvent<'a> = dyn FnMut(&str, &mut ContentIds) -> io::Result<Result<String, String>> + 'a;

/// The longest line that is read; the server takes no longer event.
const LINE_BYTES_MAX: u64 = turnpike_domain::limits::EVENT_BYTES_MAX as u64 + 1;

fn read_lines(
    mut input: Box<dyn BufRead + Send>,
    to_event: &mut LineEvent<'_>,
    take: &mut dyn FnMut(Row) -> bool,
) -> Result<(), CommandError> {
    let mut ids = ContentIds::default();
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        number += 1;
        line.clear();
        let failed =
            |error: io::Error| CommandError::failed(format!("line {number} cannot be read: {error}"));
        let read = (&mut input)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .map_err(failed)?;
        if read == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n") || (read as u64) < LINE_BYTES_MAX;
        if !whole {
            input.skip_until(b'\n').map_err(failed)?;
        }
        let event = match std::str::from_utf8(&line) {
            _ if !whole => Err("the line is longer than 1 MiB".to_owned()),
            Err(_) => Err("the line is not UTF-8".to_owned()),
            Ok(text) if text.trim().is_empty() => continue,
            Ok(text) => to_event(text.trim(), &mut ids).map_err(no_memory)?,
        };
        let shown = |why| {
            (
                why,
                String::from_utf8_lossy(&line[..line.len().min(4_096)])
                    .trim_end()
                    .to_owned(),
            )
        };
        if !take(Row {
            number,
            event: event.map_err(shown),
        }) {
            return Ok(());
        }
    }
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
    const WHO: &str = "type = \"t\"\nsubject_column = \"who\"";

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
            .map(|row| row.number)
            .collect();
        assert_eq!((rows.len(), bad), (3, vec![1, 2]));
    }

    #[test]
    fn a_quote_that_is_not_closed_does_not_fill_the_memory() {
        let rules = toml::from_str::<Mapping>(WHO)
            .unwrap()
            .rules(Format::Csv)
            .unwrap();
        let rest = "b,2\n".repeat(1_000_000);
        let text = format!("who,n\na,1\n\"b,2\n{rest}");
        let (mut rows, input) = (0, Box::new(io::Cursor::new(text.into_bytes())));
        let ended = read_rows(input, Format::Csv, &rules, &mut |_| {
            rows += 1;
            true
        });
        let error = ended.unwrap_err().to_string();
        let expected = "row 2 cannot be read: it is longer than 1 MiB: is a quote not closed?";
        assert_eq!((rows, error.as_str()), (1, expected));
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
        assert_eq!(rows[1].number, 3);
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
