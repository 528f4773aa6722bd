use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;

use super::rules::Rules;
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
    pub(super) format: Option<Format>,
    /// The events' `source`; the format's name unless said.
    #[arg(long, value_name = "TEXT")]
    pub(super) source: Option<String>,
    /// The events' `type`.
    #[serde(rename = "type")]
    #[arg(long = "type", value_name = "TEXT")]
    pub(super) kind: Option<String>,
    /// The `subject` of all events.
    #[arg(long, value_name = "TEXT")]
    pub(super) subject: Option<String>,
    /// The column with the `subject`.
    #[arg(long, value_name = "COLUMN")]
    pub(super) subject_column: Option<String>,
    /// The column with the `id`; without one, ids are made from each row's content and how often it came before.
    #[arg(long, value_name = "COLUMN")]
    pub(super) id_column: Option<String>,
    /// The column with the time at which each row happened.
    #[arg(long, value_name = "COLUMN")]
    pub(super) time_column: Option<String>,
    /// The rows of a CSV have no time: each counts for the time at which it first arrives.
    #[arg(long)]
    pub(super) now: bool,
    /// How times are written, as strptime has it, such as "%d.%m.%Y %H:%M:%S".
    #[arg(long, value_name = "FORMAT")]
    pub(super) time_format: Option<String>,
    /// IANA zone of times that name none; UTC unless said.
    #[arg(long, value_name = "ZONE")]
    pub(super) time_zone: Option<String>,
    /// What goes into `data`: NAME=COLUMN, may repeat; all other columns unless said.
    #[arg(long = "data", value_name = "NAME=COLUMN", value_parser = name_and_column)]
    #[serde(deserialize_with = "names_and_columns")]
    pub(super) data: Vec<(String, String)>,
    /// A column kept as text though it looks like a number; may repeat.
    #[arg(long = "text-column", value_name = "COLUMN")]
    pub(super) text_columns: Vec<String>,
    /// What stands between the columns of CSV: one character, or "tab"; a comma unless said.
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    #[serde(deserialize_with = "delimiter_in_file")]
    pub(super) delimiter: Option<u8>,
    /// Numbers have a decimal comma, such as 12,50; a row with a number such as `1.250` is then refused, for its point may
    /// group thousands or begin the decimals (but not in a --text-column).
    #[arg(long)]
    pub(super) decimal_comma: bool,
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
        let says_when = self.now || self.time_column.is_some();
        let when = if says_when { &self } else { &below };
        let says_whose = self.subject.is_some() || self.subject_column.is_some();
        let whose = if says_whose { &self } else { &below };
        Ok(Self {
            now: when.now,
            time_column: when.time_column.clone(),
            subject: whose.subject.clone(),
            subject_column: whose.subject_column.clone(),
            format: self.format.or(below.format),
            source: self.source.or(below.source),
            kind: self.kind.or(below.kind),
            id_column: self.id_column.or(below.id_column),
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

    /// An error for what would have no effect on a file of `format`.
    fn check_use(&self, format: Format) -> Result<(), CommandError> {
        if self.subject.is_some() && self.subject_column.is_some() {
            return Err(CommandError::usage(
                "give --subject (one for all rows) or --subject-column (of each row its own), not both",
            ));
        }
        let mut names = BTreeSet::new();
        if let Some((twice, _)) = self.data.iter().find(|(name, _)| !names.insert(name)) {
            return Err(CommandError::usage(format!(
                "--data gives \"{twice}\" several columns, and an event has one value of a name; give each its own name"
            )));
        }
        if format != Format::Csv && (self.delimiter.is_some() || self.decimal_comma) {
            return Err(CommandError::usage(
                "--delimiter and --decimal-comma are for CSV; other formats say themselves how they are written",
            ));
        }
        self.check_time(format)?;
        let of_columns = [
            ("--subject-column", self.subject_column.is_some()),
            ("--id-column", self.id_column.is_some()),
            ("--time-column", self.time_column.is_some()),
            ("--time-format", self.time_format.is_some()),
            ("--time-zone", self.time_zone.is_some()),
            ("--data", !self.data.is_empty()),
            ("--text-column", !self.text_columns.is_empty()),
        ];
        match of_columns.iter().find(|(_, given)| *given) {
            Some((flag, _)) if format == Format::Ndjson => Err(CommandError::usage(format!(
                "{flag} is for files with columns; a line of NDJSON is an event already (only --source, --type and \
                 --subject are put where they are missing)"
            ))),
            _ => Ok(()),
        }
    }

    /// An error unless it is plain which times rows of `format` count for. A time that somebody forgot to name would move
    /// old usage into the bill of today.
    fn check_time(&self, format: Format) -> Result<(), CommandError> {
        let wrong = match (format, self.now) {
            (Format::Csv, false) if self.time_column.is_none() => {
                "give --time-column (when each row happened), or --now if the rows have no time and are to count for the \
                 time at which they arrive"
            }
            (Format::Csv, true)
                if self.time_column.is_some() || self.time_format.is_some() || self.time_zone.is_some() =>
            {
                "--now goes without --time-column, --time-format and --time-zone: it is for rows that have no time"
            }
            (Format::Ndjson | Format::AccessLog, true) => {
                "--now is for CSV; other formats have times of their own"
            }
            _ => return Ok(()),
        };
        Err(CommandError::usage(wrong))
    }

    /// The rules for rows of `format`, complete.
    pub(crate) fn rules(self, format: Format) -> Result<Rules, CommandError> {
        self.check_use(format)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::import::rules::quote;

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
    fn what_would_have_no_effect_is_refused() {
        let columns = Mapping {
            subject_column: Some("who".to_owned()),
            ..Mapping::default()
        };
        let refused = columns.clone().rules(Format::Ndjson).unwrap_err();
        assert!(refused.to_string().starts_with("--subject-column"), "{refused}");
        let both = Mapping {
            subject: Some("fix".to_owned()),
            ..columns
        };
        let refused = both.rules(Format::Csv).unwrap_err();
        assert!(refused.to_string().contains("not both"), "{refused}");
        let twice = Mapping {
            subject: Some("fix".to_owned()),
            data: [("v", "n"), ("v", "m")]
                .map(|(name, column)| (name.to_owned(), column.to_owned()))
                .into(),
            ..Mapping::default()
        };
        let refused = twice.rules(Format::Csv).unwrap_err();
        assert!(refused.to_string().contains("\"v\""), "{refused}");
    }

    #[test]
    fn a_subject_given_by_a_flag_goes_before_either_of_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "subject_column = \"who\"\n").unwrap();
        let flags = Mapping {
            subject: Some("fix".to_owned()),
            ..Mapping::default()
        };
        let both = flags.beneath(Some(&file.path().to_owned())).unwrap();
        assert_eq!(
            (both.subject.as_deref(), both.subject_column),
            (Some("fix"), None)
        );
    }

    #[test]
    fn a_csv_says_which_times_its_rows_count_for() {
        let rules = |format: Format, toml: &str| {
            let both = format!("type = \"call\"\nsubject = \"a\"\n{toml}");
            let mapping: Mapping = toml::from_str(&both).unwrap();
            mapping.rules(format).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(rules(Format::Csv, "now = true"), Ok(()));
        assert_eq!(rules(Format::Csv, "time_column = \"at\""), Ok(()));
        for (format, toml, words) in [
            (Format::Csv, "", "give --time-column"),
            (
                Format::Csv,
                "now = true\ntime_column = \"at\"",
                "--now goes without",
            ),
            (
                Format::Csv,
                "now = true\ntime_zone = \"UTC\"",
                "--now goes without",
            ),
            (Format::Ndjson, "now = true", "--now is for CSV"),
            (Format::AccessLog, "now = true", "--now is for CSV"),
        ] {
            let refused = rules(format, toml).unwrap_err();
            assert!(refused.starts_with(words), "{toml}: {refused}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "time_column = \"at\"").unwrap();
        let flags = Mapping {
            now: true,
            ..Mapping::default()
        };
        let both = flags.beneath(Some(&file.path().to_owned())).unwrap();
        assert_eq!((both.now, both.time_column), (true, None), "flags go first");
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
}
