use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::Deserialize;

use super::time::TimeReader;
use crate::cli::CommandError;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// Comma-separated values with a header line.
    Csv,
    /// One CloudEvent as JSON per line.
    Ndjson,
    /// A web server's access log, combined or common format.
    AccessLog,
}

/// How rows become events: by flags, or by a file with the same names; flags go first.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Mapping {
    /// What the file is; told by its name unless said.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The events' `source`; the format's name unless said.
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// The events' `type`.
    #[serde(rename = "type")]
    #[arg(long = "type", value_name = "TEXT")]
    kind: Option<String>,
    /// The `subject` of all events.
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// The column with the `subject`.
    #[arg(long, value_name = "COLUMN")]
    subject_column: Option<String>,
    /// The column with the `id`; without one, ids are made from each row's content and how often it came before.
    #[arg(long, value_name = "COLUMN")]
    id_column: Option<String>,
    /// The column with the time; without one, events get the time of their arrival.
    #[arg(long, value_name = "COLUMN")]
    time_column: Option<String>,
    /// How times are written, as strptime has it, such as "%d.%m.%Y %H:%M:%S".
    #[arg(long, value_name = "FORMAT")]
    time_format: Option<String>,
    /// IANA zone of times that name none; UTC unless said.
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// What goes into `data`: NAME=COLUMN, may repeat; all other columns unless said.
    #[arg(long = "data", value_name = "NAME=COLUMN", value_parser = name_and_column)]
    #[serde(deserialize_with = "names_and_columns")]
    data: Vec<(String, String)>,
    /// A column kept as text though it looks like a number; may repeat.
    #[arg(long = "text-column", value_name = "COLUMN")]
    text_columns: Vec<String>,
    /// What stands between the columns of CSV: one character, or "tab"; a comma unless said.
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    #[serde(deserialize_with = "delimiter_in_file")]
    delimiter: Option<u8>,
    /// Numbers have a decimal comma, such as 12,50; `1.250` is then a text, for its point may group thousands.
    #[arg(long)]
    decimal_comma: bool,
}

/// One ASCII character that can stand between columns.
fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" => Ok(b'\t'),
        [one] if one.is_ascii() && !one.is_ascii_alphanumeric() && !b"\"\r\n".contains(one) => Ok(*one),
        _ => Err("give one character that is no letter, digit or quote, or \"tab\"".to_owned()),
    }
}

fn delimiter_in_file<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    delimiter(&text).map(Some).map_err(serde::de::Error::custom)
}

fn name_and_column(pair: &str) -> Result<(String, String), String> {
    let (name, column) = pair.split_once('=').ok_or("give NAME=COLUMN")?;
    Ok((name.to_owned(), column.to_owned()))
}

fn names_and_columns<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, String)>, D::Error> {
    Ok(BTreeMap::<String, String>::deserialize(deserializer)?
        .into_iter()
        .collect())
}

impl Mapping {
    /// A mapping from a TOML file, beneath the flags in `self`.
    pub(crate) fn beneath(self, file: Option<&PathBuf>) -> Result<Self, CommandError> {
        let Some(path) = file else {
            return Ok(self);
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            CommandError::usage(format!("cannot read the mapping {}: {error}", path.display()))
        })?;
        let below: Self = toml::from_str(&text)
            .map_err(|error| CommandError::usage(format!("the mapping {}: {error}", path.display())))?;
        Ok(Self {
            format: self.format.or(below.format),
            source: self.source.or(below.source),
            kind: self.kind.or(below.kind),
            subject: self.subject.or(below.subject),
            subject_column: self.subject_column.or(below.subject_column),
            id_column: self.id_column.or(below.id_column),
            time_column: self.time_column.or(below.time_column),
            time_format: self.time_format.or(below.time_format),
            time_zone: self.time_zone.or(below.time_zone),
            data: if self.data.is_empty() {
                below.data
            } else {
                self.data
            },
            text_columns: if self.text_columns.is_empty() {
                below.text_columns
            } else {
                self.text_columns
            },
            delimiter: self.delimiter.or(below.delimiter),
            decimal_comma: self.decimal_comma || below.decimal_comma,
        })
    }

    /// The format, said or told by the file's name.
    pub(crate) fn format(&self, name: &str) -> Result<Format, CommandError> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let name = name
            .trim_end_matches(".gz")
            .trim_end_matches(".zst")
            .to_ascii_lowercase();
        match name.rsplit('.').next() {
            Some("csv") => Ok(Format::Csv),
            Some("ndjson" | "jsonl") => Ok(Format::Ndjson),
            Some("log") => Ok(Format::AccessLog),
            _ => Err(CommandError::usage(
                "cannot tell what the file is from its name; give --format csv, ndjson or access-log",
            )),
        }
    }

    /// The rules for rows of `format`, complete.
    pub(crate) fn rules(self, format: Format) -> Result<Rules, CommandError> {
        let log = format == Format::AccessLog;
        let or_log = |given: Option<String>, usual: &str| given.or_else(|| log.then(|| usual.to_owned()));
        let subject_column = if self.subject.is_some() {
            self.subject_column
        } else {
            or_log(self.subject_column, "host")
        };
        let kind = or_log(self.kind, "http.request");
        if format != Format::Ndjson {
            if kind.is_none() {
                return Err(CommandError::usage("give the events' type with --type"));
            }
            if self.subject.is_none() && subject_column.is_none() {
                return Err(CommandError::usage(
                    "give --subject-column (whose usage a row is), or one --subject for all",
                ));
            }
        }
        let mut data = self.data;
        if log && data.is_empty() {
            data = ["method", "path", "status", "bytes"]
                .map(|name| (name.to_owned(), name.to_owned()))
                .to_vec();
        }
        if format != Format::Csv && (self.delimiter.is_some() || self.decimal_comma) {
            return Err(CommandError::usage(
                "--delimiter and --decimal-comma are for CSV; other formats say themselves how they are written",
            ));
        }
        let zone = self.time_zone.unwrap_or_else(|| "UTC".to_owned());
        let time_format = or_log(self.time_format, "%d/%b/%Y:%H:%M:%S %z");
        let source = self.source.or_else(|| match format {
            Format::Csv => Some("csv-import".to_owned()),
            Format::AccessLog => Some("access-log".to_owned()),
            Format::Ndjson => None,
        });
        Ok(Rules {
            source,
            kind,
            subject: self.subject,
            subject_column,
            id_column: self.id_column,
            time_column: or_log(self.time_column, "time"),
            time: TimeReader::new(time_format, &zone).map_err(CommandError::usage)?,
            data,
            text_columns: self.text_columns,
            delimiter: self.delimiter.unwrap_or(b','),
            decimal_comma: self.decimal_comma,
        })
    }
}

/// A complete mapping.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) source: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) subject: Option<String>,
    subject_column: Option<String>,
    id_column: Option<String>,
    time_column: Option<String>,
    time: TimeReader,
    data: Vec<(String, String)>,
    text_columns: Vec<String>,
    /// What stands between the columns of CSV.
    pub(crate) delimiter: u8,
    decimal_comma: bool,
}

impl Rules {
    /// An error when a column that is named does not exist.
    pub(crate) fn check_columns(&self, header: &[String]) -> Result<(), CommandError> {
        let named = [&self.subject_column, &self.id_column, &self.time_column]
            .into_iter()
            .flatten();
        let named = named
            .chain(self.data.iter().map(|(_, column)| column))
            .chain(&self.text_columns);
        for column in named {
            if !header.contains(column) {
                let there = header.join(", ");
                return Err(CommandError::usage(format!(
                    "there is no column \"{column}\"; there are: {there}"
                )));
            }
        }
        Ok(())
    }

    /// The event of a row as JSON text. `made_id` is its id where the row has none.
    pub(crate) fn event(
        &self,
        columns: &[(String, String)],
        made_id: impl FnOnce() -> String,
    ) -> Result<String, String> {
        let by_name: HashMap<&str, &str> = columns
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let get = |column: &String| {
            by_name
                .get(column.as_str())
                .copied()
                .filter(|value| !value.is_empty())
        };
        let subject = match (&self.subject, &self.subject_column) {
            (_, Some(column)) => {
                get(column).ok_or_else(|| format!("column \"{column}\" (the subject) is empty"))?
            }
            (Some(subject), None) => subject,
            (None, None) => return Err("there is no subject".to_owned()),
        };
        let id = match self.id_column.as_ref() {
            Some(column) => get(column)
                .ok_or_else(|| format!("column \"{column}\" (the id) is empty"))?
                .to_owned(),
            None => made_id(),
        };
        let mut event = String::from("{");
        member(&mut event, "id", &id);
        member(&mut event, "source", self.source.as_deref().unwrap_or("import"));
        member(&mut event, "type", self.kind.as_deref().unwrap_or(""));
        member(&mut event, "subject", subject);
        if let Some(column) = &self.time_column {
            let text = get(column).ok_or_else(|| format!("column \"{column}\" (the time) is empty"))?;
            member(&mut event, "time", &self.time.read(text)?.to_string());
        }
        event.push_str("\"data\":{");
        for (name, column, value) in self.data_of(columns, &by_name) {
            if value.is_empty() {
                continue;
            }
            event.push_str(&quote(name));
            event.push(':');
            let number = self
                .number(value)
                .filter(|_| !self.text_columns.iter().any(|text| text == column));
            event.push_str(&number.unwrap_or_else(|| quote(value).into()));
            event.push(',');
        }
        if event.ends_with(',') {
            event.pop();
        }
        event.push_str("}}");
        Ok(event)
    }

    /// A value as JSON writes numbers, if it is one.
    fn number<'a>(&self, value: &'a str) -> Option<Cow<'a, str>> {
        let number = if !self.decimal_comma {
            Cow::Borrowed(value)
        } else if value.contains('.') {
            return None;
        } else {
            Cow::Owned(value.replacen(',', ".", 1))
        };
        is_number(&number).then_some(number)
    }

    /// Name, column and value of everything in `data`.
    fn data_of<'a>(
        &'a self,
        columns: &'a [(String, String)],
        by_name: &HashMap<&str, &'a str>,
    ) -> Vec<(&'a str, &'a str, &'a str)> {
        if !self.data.is_empty() {
            let value = |column: &str| by_name.get(column).copied().unwrap_or("");
            return self
                .data
                .iter()
                .map(|(name, column)| (name.as_str(), column.as_str(), value(column)))
                .collect();
        }
        let taken = [&self.subject_column, &self.id_column, &self.time_column];
        let free = |name: &String| !taken.iter().any(|column| column.as_ref() == Some(name));
        columns
            .iter()
            .filter(|(name, _)| free(name))
            .map(|(name, value)| (name.as_str(), name.as_str(), value.as_str()))
            .collect()
    }
}

fn member(out: &mut String, name: &str, value: &str) {
    out.push('"');
    out.push_str(name);
    out.push_str("\":");
    out.push_str(&quote(value));
    out.push(',');
}

/// A text as a JSON string.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether a text is a number as JSON writes it, so that it can be sent digit by digit.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned
        .split_once('.')
        .map_or((unsigned, None), |(whole, rest)| (whole, Some(rest)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn csv(mapping: Mapping) -> Rules {
        Mapping {
            kind: Some("t".to_owned()),
            subject_column: Some("who".to_owned()),
            ..mapping
        }
        .rules(Format::Csv)
        .unwrap()
    }

    #[test]
    fn a_row_becomes_an_event() {
        let rules = csv(Mapping {
            time_column: Some("when".to_owned()),
            id_column: Some("key".to_owned()),
            text_columns: vec!["zip".to_owned()],
            ..Mapping::default()
        });
        let row = row(&[
            ("who", "acme \"inc\""),
            ("when", "2024-01-01 00:00:00"),
            ("key", "7"),
            ("n", "0.10"),
            ("zip", "12345"),
            ("code", "007"),
            ("none", ""),
        ]);
        assert_eq!(
            rules.event(&row, || unreachable!()).unwrap(),
            r#"{"id":"7","source":"csv-import","type":"t","subject":"acme \"inc\"","time":"2024-01-01T00:00:00Z","data":{"n":0.10,"zip":"12345","code":"007"}}"#
        );
    }

    #[test]
    fn columns_can_be_chosen_and_renamed() {
        let rules = csv(Mapping {
            data: vec![("tokens".to_owned(), "n".to_owned())],
            ..Mapping::default()
        });
        let event = rules
            .event(&row(&[("who", "a"), ("n", "5"), ("m", "6")]), || {
                "made".to_owned()
            })
            .unwrap();
        assert!(
            event.starts_with(r#"{"id":"made""#) && event.ends_with(r#""data":{"tokens":5}}"#),
            "{event}"
        );
    }

    #[test]
    fn what_lacks_is_said() {
        let rules = csv(Mapping {
            time_column: Some("when".to_owned()),
            ..Mapping::default()
        });
        for (pairs, expected) in [
            (&[("who", ""), ("when", "2024-01-01")][..], "the subject"),
            (&[("who", "a"), ("when", "")], "the time"),
            (&[("who", "a"), ("when", "soon")], "not a time"),
        ] {
            let error = rules.event(&row(pairs), String::new).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let error = rules.check_columns(&["who".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("no column \"when\""), "{error}");
        assert!(Mapping::default().rules(Format::Csv).is_err());
    }

    #[test]
    fn a_mapping_file_lies_beneath_the_flags() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "type = \"from.file\"\nsource = \"s\"\n[data]\na = \"b\"\n",
        )
        .unwrap();
        let flags = Mapping {
            kind: Some("from.flag".to_owned()),
            ..Mapping::default()
        };
        let both = flags.beneath(Some(&file.path().to_owned())).unwrap();
        assert_eq!(
            (both.kind.as_deref(), both.source.as_deref()),
            (Some("from.flag"), Some("s"))
        );
        assert_eq!(both.data, [("a".to_owned(), "b".to_owned())]);
        std::fs::write(file.path(), "typo = 1").unwrap();
        assert!(Mapping::default().beneath(Some(&file.path().to_owned())).is_err());
    }

    #[test]
    fn numbers_may_have_a_decimal_comma() {
        let rules = csv(Mapping {
            decimal_comma: true,
            text_columns: vec!["zip".to_owned()],
            ..Mapping::default()
        });
        let row = row(&[
            ("who", "a"),
            ("cost", "-12,50"),
            ("whole", "7"),
            ("grouped", "1.250"),
            ("both", "1.250,5"),
            ("twice", "1,2,3"),
            ("zip", "1,5"),
        ]);
        let event = rules.event(&row, || "1".to_owned()).unwrap();
        let data = r#""data":{"cost":-12.50,"whole":7,"grouped":"1.250","both":"1.250,5","twice":"1,2,3","zip":"1,5"}}"#;
        assert!(event.ends_with(data), "{event}");
    }

    #[test]
    fn delimiters_are_one_character() {
        for (text, expected) in [(";", b';'), ("|", b'|'), ("tab", b'\t'), ("\t", b'\t')] {
            assert_eq!(delimiter(text), Ok(expected), "{text}");
            let file: Mapping = toml::from_str(&format!("delimiter = {}", quote(text))).unwrap();
            assert_eq!(file.delimiter, Some(expected), "{text}");
        }
        for text in ["", ";;", "a", "1", "\"", "\n", "é"] {
            assert!(delimiter(text).is_err(), "{text}");
        }
        let semicolon = Mapping {
            delimiter: Some(b';'),
            ..Mapping::default()
        };
        let refused = semicolon.rules(Format::Ndjson).unwrap_err();
        assert!(refused.to_string().contains("for CSV"), "{refused}");
    }

    #[test]
    fn formats_are_told_by_name() {
        let mapping = Mapping::default();
        for (name, expected) in [
            ("a.csv", Format::Csv),
            ("a.CSV.gz", Format::Csv),
            ("b.jsonl.zst", Format::Ndjson),
            ("access.log", Format::AccessLog),
        ] {
            assert_eq!(mapping.format(name).unwrap(), expected, "{name}");
        }
        assert!(mapping.format("data").is_err());
    }

    #[test]
    fn numbers_are_told_from_texts() {
        for yes in ["0", "-1", "12.50", "123456789012345678901234567890.1"] {
            assert!(is_number(yes), "{yes}");
        }
        for no in ["", "-", "007", "1.", ".5", "1e5", "NaN", "1,000", "0x1"] {
            assert!(!is_number(no), "{no}");
        }
    }
}
