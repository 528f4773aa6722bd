use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io;

use turnpike_domain::quantity::Quantity;

use super::content_ids::ContentIds;
use super::time::TimeReader;
use crate::cli::CommandError;
use crate::config::did_you_mean;

/// A complete mapping.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(super) source: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) subject_column: Option<String>,
    pub(super) id_column: Option<String>,
    pub(super) time_column: Option<String>,
    pub(super) time: TimeReader,
    pub(super) data: Vec<(String, String)>,
    pub(super) text_columns: Vec<String>,
    /// What stands between the columns of CSV.
    pub(super) delimiter: u8,
    pub(super) decimal_comma: bool,
}

impl Rules {
    /// An error that names every column that is asked for and missing, or used and there twice.
    pub(crate) fn check_columns(&self, header: &[&str]) -> Result<(), CommandError> {
        let named = [&self.subject_column, &self.id_column, &self.time_column]
            .into_iter()
            .flatten()
            .chain(self.data.iter().map(|(_, column)| column))
            .chain(&self.text_columns)
            .map(String::as_str);
        let named: BTreeSet<&str> = named.collect();
        let missing: Vec<&str> = named
            .iter()
            .copied()
            .filter(|name| !header.contains(name))
            .collect();
        if !missing.is_empty() {
            return Err(CommandError::usage(no_such_columns(&missing, header)));
        }
        let all = self.data.is_empty();
        let twice = header
            .iter()
            .enumerate()
            .find(|(at, name)| header[..*at].contains(name) && (all || named.contains(*name)));
        match twice {
            Some((_, name)) => Err(CommandError::usage(format!(
                "there are several columns \"{name}\"; rename all but one, or choose others with --data"
            ))),
            None => Ok(()),
        }
    }

    /// The id of a row with this content, for rows that have none of their own; empty where they have one.
    pub(crate) fn made_id(
        &self,
        ids: &mut ContentIds,
        content: impl FnOnce() -> Vec<u8>,
    ) -> io::Result<String> {
        if self.id_column.is_some() {
            return Ok(String::new());
        }
        ids.next(&content())
    }

    /// What can be done about ids that are in conflict.
    pub(crate) const fn advice_on_conflicts(&self) -> &'static str {
        if self.id_column.is_some() {
            "\nA row in conflict has the id of another event; if the file is of another origin, give it its own --source."
        } else {
            "\nA row in conflict was imported before with another --type, --data or other mapping, or stands in another file \
             too; import it as it was, or give it its own --source."
        }
    }

    /// The event of a row as JSON text. `made_id` is its id where the row has none.
    pub(crate) fn event(&self, columns: &[(String, String)], made_id: String) -> Result<String, String> {
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
            None => made_id,
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
            let number = if self.text_columns.iter().any(|text| text == column) {
                None
            } else {
                self.number(column, value)?
            };
            event.push_str(&number.unwrap_or_else(|| quote(value).into()));
            event.push(',');
        }
        if event.ends_with(',') {
            event.pop();
        }
        event.push_str("}}");
        Ok(event)
    }

    /// A value as JSON writes numbers, if it is one; why it is refused where nobody can tell which number it is.
    fn number<'a>(&self, column: &str, value: &'a str) -> Result<Option<Cow<'a, str>>, String> {
        let number = if !self.decimal_comma {
            Cow::Borrowed(value)
        } else if is_ambiguous(value) {
            return Err(format!(
                "column \"{column}\": the point of \"{value}\" may group thousands or begin the decimals; write the \
                 number without it, or keep the column as text with --text-column \"{column}\""
            ));
        } else {
            Cow::Owned(value.replacen(',', ".", 1))
        };
        Ok(Some(number).filter(|number| is_number(number)))
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

/// Names all that is missing at once, each with what was perhaps meant.
fn no_such_columns(missing: &[&str], header: &[&str]) -> String {
    let named: Vec<String> = missing
        .iter()
        .map(|name| match did_you_mean(name, header.iter().copied()) {
            Some(near) => format!("\"{name}\" (did you mean \"{near}\"?)"),
            None => format!("\"{name}\""),
        })
        .collect();
    let column = if missing.len() == 1 {
        "is no column"
    } else {
        "are no columns"
    };
    format!(
        "there {column} {}; there are: {}",
        named.join(", "),
        header.join(", ")
    )
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

/// Whether a text with a point is a number where numbers have a decimal comma: one that groups its thousands with points,
/// or one that a meter would read though it is sent as a text.
fn is_ambiguous(text: &str) -> bool {
    text.contains('.') && (Quantity::parse(text).is_ok() || has_grouped_thousands(text))
}

/// Whether a text is a number such as `1.250.000,5`.
fn has_grouped_thousands(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once(',').unwrap_or((unsigned, ""));
    let mut groups = whole.split('.');
    let first = groups.next().unwrap_or("");
    let first_fits = (1..=3).contains(&first.len()) && digits(first);
    first_fits && digits(fraction) && groups.all(|group| group.len() == 3 && digits(group))
}

#[cfg(test)]
mod tests {
    use super::super::mapping::{Format, Mapping};
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
            now: mapping.time_column.is_none(),
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
            rules.event(&row, String::new()).unwrap(),
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
            .event(&row(&[("who", "a"), ("n", "5"), ("m", "6")]), "made".to_owned())
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
            let error = rules.event(&row(pairs), String::new()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(Mapping::default().rules(Format::Csv).is_err());
    }

    #[test]
    fn all_columns_that_are_missing_are_named_at_once() {
        let rules = csv(Mapping {
            time_column: Some("when".to_owned()),
            data: vec![("n".to_owned(), "tokns".to_owned())],
            ..Mapping::default()
        });
        let error = rules.check_columns(&["who", "tokens", "x"]).unwrap_err();
        let expected =
            "there are no columns \"tokns\" (did you mean \"tokens\"?), \"when\"; there are: who, tokens, x";
        assert_eq!(error.to_string(), expected);
        assert!(rules.check_columns(&["who", "tokns", "when"]).is_ok());
    }

    #[test]
    fn a_column_that_is_there_twice_is_refused_where_it_would_be_used() {
        let header = ["who", "n", "n"];
        let error = csv(Mapping::default()).check_columns(&header).unwrap_err();
        assert!(error.to_string().contains("several columns \"n\""), "{error}");
        let chosen = csv(Mapping {
            data: vec![("who".to_owned(), "who".to_owned())],
            ..Mapping::default()
        });
        assert!(chosen.check_columns(&header).is_ok());
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
            ("twice", "1,2,3"),
            ("zip", "1,5"),
            ("version", "1.2.3"),
            ("day", "05.10.2026"),
            ("host", "www.example.com"),
            ("none", "."),
        ]);
        let event = rules.event(&row, "1".to_owned()).unwrap();
        let data = r#""data":{"cost":-12.50,"whole":7,"twice":"1,2,3","zip":"1,5","version":"1.2.3","day":"05.10.2026","host":"www.example.com","none":"."}}"#;
        assert!(event.ends_with(data), "{event}");
    }

    #[test]
    fn with_a_decimal_comma_a_number_with_a_point_is_refused() {
        let rules = csv(Mapping {
            decimal_comma: true,
            text_columns: vec!["zip".to_owned()],
            ..Mapping::default()
        });
        for value in ["1.250", "-1.5", "0.10", "1.250,5", "1.250.000", "1.250.000,75"] {
            let error = rules
                .event(&row(&[("who", "a"), ("n", value)]), "1".to_owned())
                .unwrap_err();
            assert!(
                error.contains("\"n\"") && error.contains(value) && error.contains("--text-column"),
                "{error}"
            );
            let kept = rules
                .event(&row(&[("who", "a"), ("zip", value)]), "1".to_owned())
                .unwrap();
            assert!(kept.ends_with(&format!("{{\"zip\":\"{value}\"}}}}")), "{kept}");
        }
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
