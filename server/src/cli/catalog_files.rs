//! Catalogs as TOML files: read together, and where in them something stands.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use toml::de::{DeTable, DeValue};
use turnpike_domain::quantity::wire::survives_float;

use super::CommandError;
use crate::config::did_you_mean;

/// The parts of a catalog, as they are named in files.
const PARTS: [&str; 4] = ["meters", "features", "plans", "add_ons"];

/// Files that together are a whole catalog.
#[derive(Debug)]
pub(crate) struct CatalogFiles {
    /// As the API takes it.
    pub(crate) catalog: Value,
    /// Name and text of each file, in their order.
    files: Vec<(String, String)>,
}

impl Default for CatalogFiles {
    fn default() -> Self {
        Self {
            catalog: json!({}),
            files: Vec::new(),
        }
    }
}

impl CatalogFiles {
    /// Reads files, and the `.toml` files of directories.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self, CommandError> {
        let mut all = Self::default();
        for path in paths {
            for file in toml_files(path)? {
                let text = std::fs::read_to_string(&file).map_err(|error| {
                    CommandError::usage(format!("cannot read {}: {error}", file.display()))
                })?;
                let name = file.display().to_string();
                let added = all.add(&name, text);
                added.map_err(|error| CommandError::usage(format!("{name}: {error}")))?;
            }
        }
        Ok(all)
    }

    /// Adds a file's declarations.
    pub(crate) fn add(&mut self, name: &str, text: String) -> Result<(), String> {
        let table: toml::Table = toml::from_str(&text).map_err(|error| error.to_string())?;
        check_floats(&text)?;
        for (part, value) in table {
            if !PARTS.contains(&part.as_str()) {
                let hint = did_you_mean(&part, PARTS.into_iter())
                    .map_or(String::new(), |near| format!(" (did you mean [[{near}]]?)"));
                return Err(format!(
                    "unknown part \"{part}\"{hint}; a catalog has [[{}]]",
                    PARTS.join("]], [[")
                ));
            }
            let value = serde_json::to_value(value).map_err(|error| error.to_string())?;
            let Value::Array(items) = value else {
                return Err(format!("{part} must be written as [[{part}]]"));
            };
            match &mut self.catalog[&part] {
                Value::Array(all) => all.extend(items),
                none => *none = Value::Array(items),
            }
        }
        self.files.push((name.to_owned(), text));
        Ok(())
    }

    /// File and line of what a JSON pointer into the catalog leads to, such as `catalog/plans.toml:12`; of what contains
    /// it where it is not there itself. `None` where that is in no file.
    pub(crate) fn place(&self, pointer: &str) -> Option<String> {
        let mut steps = pointer.strip_prefix('/')?.split('/');
        let part = steps.next().filter(|part| PARTS.contains(part))?;
        let mut index: usize = steps.next()?.parse().ok()?;
        for (name, text) in &self.files {
            let table = DeTable::parse(text).ok()?;
            let Some(items) = table
                .get_ref()
                .get(part)
                .and_then(|items| items.get_ref().as_array())
            else {
                continue;
            };
            let Some(item) = items.get(index) else {
                index -= items.len();
                continue;
            };
            let mut found = item;
            for step in steps {
                let step = step.replace("~1", "/").replace("~0", "~");
                let next = match found.get_ref() {
                    DeValue::Array(_) => step.parse::<usize>().ok().and_then(|at| found.get_ref().get(at)),
                    value => value.get(step.as_str()),
                };
                let Some(next) = next else { break };
                found = next;
            }
            let line = 1 + text.get(..found.span().start)?.matches('\n').count();
            return Some(format!("{name}:{line}"));
        }
        None
    }

    /// A refusal of the catalog, with file and line before each field that it names.
    pub(crate) fn explained(&self, mut error: CommandError) -> CommandError {
        for field in error.problem["errors"].as_array().into_iter().flatten() {
            let pointer = field["pointer"].as_str().unwrap_or("");
            if let Some(place) = self.place(pointer) {
                // A line of its own where there are several; one alone stands in the sentence.
                let listed = format!("\n  {pointer}: ");
                error.text = if error.text.contains(&listed) {
                    error
                        .text
                        .replacen(&listed, &format!("\n  {place}: {pointer}: "), 1)
                } else {
                    error.text.replacen(pointer, &format!("{place}: {pointer}"), 1)
                };
            }
        }
        error
    }
}

/// A catalog that the API shows, as a file that can be applied: without versions, which the engine gives.
pub(crate) fn as_toml(catalog: &Value) -> Result<String, CommandError> {
    let mut parts = serde_json::Map::new();
    for part in PARTS {
        let mut items = catalog[part].clone();
        for item in items.as_array_mut().into_iter().flatten() {
            if let Some(item) = item.as_object_mut() {
                item.remove("version");
            }
        }
        parts.insert(part.to_owned(), without_nulls(items));
    }
    toml::to_string_pretty(&parts)
        .map_err(|error| CommandError::failed(format!("the catalog cannot be written as TOML: {error}")))
}

/// TOML has no null: a field that is null is left out, which means the same to the API.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            fields.map(|(name, value)| (name, without_nulls(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn toml_files(path: &Path) -> Result<Vec<PathBuf>, CommandError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed =
        |error: std::io::Error| CommandError::usage(format!("cannot read {}: {error}", path.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(CommandError::usage(format!(
            "there is no .toml file in {}",
            path.display()
        )));
    }
    files.sort();
    Ok(files)
}

/// Refuses numbers of which a float would keep another value: in a TOML file they are floats.
fn check_floats(text: &str) -> Result<(), String> {
    let table = DeTable::parse(text).map_err(|error| error.to_string())?;
    let mut left: Vec<_> = table.get_ref().values().collect();
    while let Some(value) = left.pop() {
        match value.get_ref() {
            DeValue::Float(number) if !survives_float(number.as_str()) => {
                let above = text.get(..value.span().start).unwrap_or_default();
                return Err(format!(
                    "line {}: {} has more digits than a number in TOML keeps: write it as a string",
                    1 + above.matches('\n').count(),
                    number.as_str()
                ));
            }
            DeValue::Array(items) => left.extend(items.iter()),
            DeValue::Table(table) => left.extend(table.values()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Result<CatalogFiles, String> {
        let mut files = CatalogFiles::default();
        for (at, text) in texts.iter().enumerate() {
            files.add(&format!("{at}.toml"), (*text).to_owned())?;
        }
        Ok(files)
    }

    #[test]
    fn files_add_up() {
        let files = of(&[
            "[[meters]]\nkey = \"a\"\n[[plans]]\nkey = \"p\"\nprices = [{key = \"x\", amount = \"1.50\"}]",
            "[[meters]]\nkey = \"b\"",
        ]);
        assert_eq!(
            files.unwrap().catalog,
            json!({"meters": [{"key": "a"}, {"key": "b"}], "plans": [{"key": "p", "prices": [{"key": "x", "amount": "1.50"}]}]})
        );
    }

    #[test]
    fn what_is_no_catalog_is_refused() {
        for (text, expected) in [
            ("[[meter]]\nkey = \"a\"", "unknown part \"meter\""),
            ("[meters]\na = 1", "[[meters]]"),
            ("[[plans]]\nkey = \"p\"\nx", "line 3"),
            (
                "[[plans]]\nkey = \"p\"\nprices = [{amount = 123456789.123456789123}]",
                "line 3: 123456789.123456789123 has more digits",
            ),
            ("[[plans]]\nkey = 0.1000000000000000000001", "line 2"),
        ] {
            let error = of(&[text]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_field_is_found_in_its_file() {
        let files = of(&[
            "[[plans]]\nkey = \"a\"\n\n[[plans]]\nkey = \"b\"\ncurrency = \"USD\"\n",
            "# two\n[[features]]\nkey = \"f\"\n[[plans]]\nkey = \"c\"\n[[plans.prices]]\nkey = \"x\"\n\
             [[plans.prices]]\nkey = \"y\"\namount = \"1,5\"\ntiers = [\n  {up_to = \"1\"},\n  {up_to = \"0\"}]\n",
        ])
        .unwrap();
        for (pointer, place) in [
            ("/plans/1/currency", Some("0.toml:6")),
            ("/plans/1", Some("0.toml:4")),
            ("/features/0/key", Some("1.toml:3")),
            ("/plans/2/prices/1/amount", Some("1.toml:10")),
            ("/plans/2/prices/1/tiers/1/up_to", Some("1.toml:13")),
            ("/plans/2/prices/1/missing", Some("1.toml:8")),
            ("/plans/3/key", None),
            ("/add_ons/0", None),
            ("/expected_version", None),
            ("", None),
        ] {
            assert_eq!(files.place(pointer).as_deref(), place, "{pointer}");
        }
        let problem = json!({"errors": [{"pointer": "/plans/2/prices/1/amount", "detail": "is no decimal"}]});
        let refused = CommandError::refused("invalid\n  /plans/2/prices/1/amount: is no decimal", problem);
        let told = files.explained(refused).to_string();
        let alone = CommandError::refused(
            "/plans/2/prices/1/amount is no decimal",
            json!({"errors":
            [{"pointer": "/plans/2/prices/1/amount", "detail": "is no decimal"}]}),
        );
        let alone = files.explained(alone).to_string();
        assert!(
            alone.contains("1.toml:10: /plans/2/prices/1/amount is no decimal"),
            "{alone}"
        );
        assert!(
            told.contains("\n  1.toml:10: /plans/2/prices/1/amount: is no decimal"),
            "{told}"
        );
    }

    #[test]
    fn the_sample_catalog_is_one_and_is_written_as_it_was_read() {
        let sample = of(&[include_str!("../../../config/sample-catalog.toml")]).unwrap();
        let has = |part: &&str| {
            sample.catalog[*part]
                .as_array()
                .is_some_and(|items| !items.is_empty())
        };
        assert!(PARTS.iter().all(has));
        let mut shown = sample.catalog.clone();
        shown["version"] = json!(7);
        shown["plans"][0]["version"] = json!(3);
        shown["plans"][0]["minimum_commitment"] = Value::Null;
        let written = as_toml(&shown).unwrap();
        assert_eq!(of(&[&written]).unwrap().catalog, sample.catalog, "{written}");
    }
}
