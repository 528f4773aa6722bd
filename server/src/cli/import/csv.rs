//! Comma-separated values as RFC 4180 has them, read by lines: a row whose quotes are wrong takes no other with it.
//!
//! A quote that is opened by mistake swallows what follows, up to the next quote or the end of the file. So a row that
//! cannot be right (a closing quote with text behind it, a quote that stays open) costs its first line alone, and reading
//! goes on with the next one.

use std::collections::VecDeque;
use std::io::{self, BufRead};

use super::rows::{LINE_BYTES_MAX, Line, next_line};

/// A row of a file: the line that it begins with, from 1, its text, and its fields or what is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) line: u64,
    pub(super) text: Vec<u8>,
    pub(super) fields: Result<Vec<Vec<u8>>, String>,
}

/// The rows of a file. Empty lines are none.
pub(super) struct Records {
    input: Box<dyn BufRead + Send>,
    delimiter: u8,
    /// The number of the line that is taken next.
    line: u64,
    /// Lines that were taken for a row that was none, to be taken again.
    again: VecDeque<Line>,
}

impl Records {
    pub(super) fn new(input: Box<dyn BufRead + Send>, delimiter: u8) -> Self {
        Self {
            input,
            delimiter,
            line: 1,
            again: VecDeque::new(),
        }
    }

    /// The next row; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            let line = self.line;
            let Some(first) = self.take()? else {
                return Ok(None);
            };
            if first.text.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                continue;
            }
            return self.record(line, first).map(Some);
        }
    }

    fn take(&mut self) -> io::Result<Option<Line>> {
        let next = match self.again.pop_front() {
            Some(line) => Some(line),
            None => next_line(&mut self.input, b"\r\n")?,
        };
        self.line += u64::from(next.is_some());
        Ok(next)
    }

    /// The row that begins with the line `first`.
    fn record(&mut self, line: u64, first: Line) -> io::Result<Record> {
        let mut fields = Fields::new(self.delimiter);
        let mut state = read(&mut fields, &first);
        let (mut more, mut bytes) = (VecDeque::new(), first.text.len());
        while state == State::Open && bytes < LINE_BYTES_MAX {
            let Some(next) = self.take()? else { break };
            state = read(&mut fields, &next);
            bytes += next.text.len();
            more.push_back(next);
        }
        let wrong = match state {
            State::Whole => {
                let text = more.into_iter().fold(first.text, |mut text, line| {
                    text.extend(line.text);
                    text
                });
                let fields = Ok(fields.all);
                return Ok(Record { line, text, fields });
            }
            State::TooLong => "the line is longer than 1 MiB",
            State::Wrong => {
                "there is text behind a closing quote; inside of a quoted field, a quote is written twice"
            }
            State::Open => "a quote is opened and not closed",
        };
        self.line -= more.len() as u64;
        more.append(&mut self.again);
        self.again = more;
        let (text, fields) = (first.text, Err(wrong.to_owned()));
        Ok(Record { line, text, fields })
    }
}

/// How far a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// A quoted field goes on in the next line.
    Open,
    Wrong,
    TooLong,
}

fn read(fields: &mut Fields, line: &Line) -> State {
    if line.whole {
        fields.read(&line.text)
    } else {
        State::TooLong
    }
}

/// Where in a field the reading is.
#[derive(Debug, Clone, Copy)]
enum At {
    Start,
    Plain,
    Quoted,
    /// Behind a quote that ends the field, or stands for one.
    Quote,
}

/// The fields of a row.
struct Fields {
    delimiter: u8,
    at: At,
    all: Vec<Vec<u8>>,
    field: Vec<u8>,
}

impl Fields {
    const fn new(delimiter: u8) -> Self {
        Self {
            delimiter,
            at: At::Start,
            all: Vec::new(),
            field: Vec::new(),
        }
    }

    /// Reads on with a line, with what ends it.
    fn read(&mut self, line: &[u8]) -> State {
        for &byte in line {
            let ends = matches!(byte, b'\r' | b'\n');
            self.at = match self.at {
                At::Quoted if byte == b'"' => At::Quote,
                At::Quote if byte == b'"' => self.push(byte, At::Quoted),
                At::Quoted => self.push(byte, At::Quoted),
                _ if ends => break,
                _ if byte == self.delimiter => {
                    self.all.push(std::mem::take(&mut self.field));
                    At::Start
                }
                At::Quote => return State::Wrong,
                At::Start if byte == b'"' => At::Quoted,
                At::Start | At::Plain => self.push(byte, At::Plain),
            };
        }
        if matches!(self.at, At::Quoted) {
            return State::Open;
        }
        self.all.push(std::mem::take(&mut self.field));
        State::Whole
    }

    fn push(&mut self, byte: u8, at: At) -> At {
        self.field.push(byte);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines and fields of all rows; a wrong one is shown as its text.
    fn rows(text: &str) -> Vec<(u64, Vec<String>)> {
        let input = Box::new(io::Cursor::new(text.to_owned().into_bytes()));
        let mut records = Records::new(input, b',');
        let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut rows = Vec::new();
        while let Some(record) = records.next().unwrap() {
            let shown = match record.fields {
                Ok(fields) => fields.iter().map(|field| words(field)).collect(),
                Err(why) => vec![format!("{}: {why}", words(&record.text).trim_end())],
            };
            rows.push((record.line, shown));
        }
        rows
    }

    #[test]
    fn rows_are_those_of_the_usual_reader() {
        for text in [
            "a,b\n1,2\n",
            "a,b\r\n\r\n1,2",
            "a,b\r1,2\r",
            "\"a,\"\"x\"\"\",\"b\nc\r\nd\"\n,\n",
            "5\" disk,a\"b\n\"\",\"\"\n",
            " \"a\",b\n",
            "\"a\"",
            "",
            "\n\n",
            "a,\"b\"\r\n\"c\n\n\",d\n",
        ] {
            let mut usual = csv::ReaderBuilder::new();
            let usual: Vec<Vec<String>> = usual
                .has_headers(false)
                .flexible(true)
                .from_reader(text.as_bytes())
                .records()
                .map(|record| record.unwrap().iter().map(str::to_owned).collect())
                .collect();
            let ours: Vec<_> = rows(text).into_iter().map(|(_, fields)| fields).collect();
            assert_eq!(ours, usual, "{text:?}");
        }
    }

    #[test]
    fn a_stray_quote_costs_its_own_line() {
        const OPEN: &str = "a quote is opened and not closed";
        const BEHIND: &str =
            "there is text behind a closing quote; inside of a quoted field, a quote is written twice";
        let row = |line: u64, fields: &[&str]| (line, fields.iter().map(ToString::to_string).collect());
        let wrong = |line: u64, text: &str, why: &str| (line, vec![format!("{text}: {why}")]);
        // At the end, in the last field: what follows would else be its text.
        assert_eq!(
            rows("a,1\nb,\"2\nc,3\nd,4\n"),
            [
                row(1, &["a", "1"]),
                wrong(2, "b,\"2", OPEN),
                row(3, &["c", "3"]),
                row(4, &["d", "4"])
            ]
        );
        // In the middle, with quoted fields behind it, one of several lines.
        assert_eq!(
            rows("\"b,2\nc,3\n\"d\",4\n\"e\nf\",5\n\"g"),
            [
                wrong(1, "\"b,2", BEHIND),
                row(2, &["c", "3"]),
                row(3, &["d", "4"]),
                row(4, &["e\nf", "5"]),
                wrong(6, "\"g", OPEN)
            ]
        );
        assert_eq!(
            rows("\"a\"b,1\n2,3\n"),
            [wrong(1, "\"a\"b,1", BEHIND), row(2, &["2", "3"])]
        );
    }

    #[test]
    fn a_quote_that_is_not_closed_does_not_fill_the_memory() {
        let rest = "b,2\n".repeat(400_000);
        let found = rows(&format!("a,1\n\"b,2\n{rest}\"c\n"));
        assert_eq!(found.len(), 400_003);
        assert!(found[1].1[0].ends_with("not closed"), "{:?}", found[1]);
        assert_eq!(found[400_001], (400_002, vec!["b".to_owned(), "2".to_owned()]));
        let long = format!("a,1\n{}\nb,2\n", "x".repeat(3_000_000));
        let found = rows(&long);
        assert_eq!(found.len(), 3);
        assert!(found[1].1[0].ends_with("longer than 1 MiB"));
        assert_eq!(found[2].0, 3);
    }
}
