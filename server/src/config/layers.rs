use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::{Table, Value};

use super::hint::did_you_mean;
use super::{Config, ConfigError, DEFAULT_TOML};

/// Variables of the environment that begin with TURNPIKE_ and are no configuration of the server.
const OTHER_VARIABLES: &[&str] = &[
    "TURNPIKE_CONFIG",
    "TURNPIKE_BOOTSTRAP_API_KEY",
    "TURNPIKE_TEST_FAIL_POINT",
    "TURNPIKE_API_KEY",
    "TURNPIKE_SERVER",
];

/// What the command line sets; none: not set.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The configuration file; TURNPIKE_CONFIG where it is not given.
    pub config: Option<PathBuf>,
    /// Keys and values, such as ("http.drain_s", "5"), in the order given.
    pub values: Vec<(String, String)>,
}

/// The configuration from the defaults, the file, the environment and the flags; each goes before those named earlier.
pub fn load(flags: &Flags, environment: &[(String, String)]) -> Result<Config, ConfigError> {
    let defaults: Table = toml::from_str(DEFAULT_TOML)
        .map_err(|error| ConfigError(format!("the defaults compiled in are not TOML: {error}")))?;
    let schema = leaves(&defaults);
    let mut merged = defaults;
    if let Some((path, source)) = file_path(flags, environment) {
        let text = std::fs::read_to_string(&path).map_err(|error| {
            ConfigError(format!(
                "cannot read the configuration file {} ({source}): {error}",
                path.display()
            ))
        })?;
        let table: Table = toml::from_str(&text)
            .map_err(|error| ConfigError(format!("{} is not valid TOML: {error}", path.display())))?;
        refuse_unknown(&table, &schema, &path.display().to_string())?;
        merge(&mut merged, table);
    }
    for (path, value) in environment_values(environment, &schema)? {
        set(&mut merged, &path, value);
    }
    for (key, text) in &flags.values {
        let Some(default) = schema.get(key) else {
            return Err(unknown("the command line", key, &schema));
        };
        set(&mut merged, key, typed(default, text, &format!("--set {key}"))?);
    }
    let config: Config = serde_path_to_error::deserialize(Value::Table(merged))
        .map_err(|error| ConfigError(format!("configuration key {}: {}", error.path(), error.inner())))?;
    config.check()?;
    Ok(config)
}

fn file_path(flags: &Flags, environment: &[(String, String)]) -> Option<(PathBuf, &'static str)> {
    if let Some(path) = &flags.config {
        return Some((path.clone(), "given by --config"));
    }
    let named = environment
        .iter()
        .find(|(name, value)| name == "TURNPIKE_CONFIG" && !value.is_empty())?;
    Some((PathBuf::from(&named.1), "given by TURNPIKE_CONFIG"))
}

/// Every key of `table` with its value: the path's parts are joined by dots.
fn leaves(table: &Table) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                all.extend(
                    leaves(inner)
                        .into_iter()
                        .map(|(rest, value)| (format!("{key}.{rest}"), value)),
                );
            }
            other => {
                all.insert(key.clone(), other.clone());
            }
        }
    }
    all
}

fn refuse_unknown(table: &Table, schema: &BTreeMap<String, Value>, source: &str) -> Result<(), ConfigError> {
    for key in leaves(table).keys() {
        if !schema.contains_key(key) {
            return Err(unknown(source, key, schema));
        }
    }
    Ok(())
}

fn unknown(source: &str, key: &str, schema: &BTreeMap<String, Value>) -> ConfigError {
    let hint = did_you_mean(key, schema.keys().map(String::as_str)).map_or_else(
        || "config/default.toml lists all keys".to_owned(),
        |near| format!("did you mean \"{near}\"?"),
    );
    ConfigError(format!("{source}: unknown key \"{key}\"; {hint}"))
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(table)) => merge(inner, table),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn set(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((head, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(head) {
                set(inner, rest, value);
            }
        }
    }
}

fn variable(path: &str) -> String {
    format!("TURNPIKE_{}", path.replace('.', "_").to_uppercase())
}

fn environment_values(
    environment: &[(String, String)],
    schema: &BTreeMap<String, Value>,
) -> Result<Vec<(String, Value)>, ConfigError> {
    let by_variable: BTreeMap<String, &String> = schema.keys().map(|path| (variable(path), path)).collect();
    let mut values = Vec::new();
    for (name, text) in environment {
        if !name.starts_with("TURNPIKE_") || OTHER_VARIABLES.contains(&name.as_str()) || is_service_link(name)
        {
            continue;
        }
        let Some(path) = by_variable.get(name) else {
            let hint = did_you_mean(name, by_variable.keys().map(String::as_str))
                .map_or_else(|| "unset it".to_owned(), |near| format!("did you mean {near}?"));
            return Err(ConfigError(format!(
                "the environment: unknown variable {name}; {hint}"
            )));
        };
        let default = &schema[*path];
        values.push(((*path).clone(), typed(default, text, name)?));
    }
    Ok(values)
}

/// Kubernetes sets such variables in every pod beside a service that is called "turnpike".
fn is_service_link(name: &str) -> bool {
    name == "TURNPIKE_PORT"
        || ["TURNPIKE_SERVICE_", "TURNPIKE_PORT_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// A text as a value of the type that the default has.
fn typed(default: &Value, text: &str, source: &str) -> Result<Value, ConfigError> {
    let wrong = |what: &str| ConfigError(format!("{source} must be {what}, not \"{text}\""));
    Ok(match default {
        Value::Integer(_) => Value::Integer(text.trim().parse().map_err(|_| wrong("a whole number"))?),
        Value::Boolean(_) => Value::Boolean(text.trim().parse().map_err(|_| wrong("true or false"))?),
        Value::Array(_) => Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| Value::String(part.to_owned()))
                .collect(),
        ),
        _ => Value::String(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn with_file(text: &str, pairs: &[(&str, &str)], values: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let flags = Flags {
            config: Some(file.path().to_owned()),
            values: environment(values),
        };
        load(&flags, &environment(pairs))
    }

    #[test]
    fn the_defaults_are_a_configuration() {
        let config = Config::built_in().unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.data_dir, PathBuf::from("./data"));
        assert_eq!(config.http.metrics_listen.0, None);
    }

    #[test]
    fn every_default_is_read_and_every_setting_has_a_default() {
        let documented: Table = toml::from_str(DEFAULT_TOML).unwrap();
        let read = toml::to_string(&Config::built_in().unwrap()).unwrap();
        let read: Table = toml::from_str(&read).unwrap();
        assert_eq!(leaves(&read), leaves(&documented));
        assert!(leaves(&read).len() > 30);
    }

    #[test]
    fn every_default_is_documented_and_has_its_own_variable() {
        let table: Table = toml::from_str(DEFAULT_TOML).unwrap();
        let schema = leaves(&table);
        let variables: std::collections::BTreeSet<_> = schema.keys().map(|path| variable(path)).collect();
        assert_eq!(variables.len(), schema.len(), "two keys share a variable");
        let lines: Vec<_> = DEFAULT_TOML.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            if line.contains(" = ") && !line.starts_with('#') {
                assert!(lines[at - 1].starts_with("# "), "no comment above: {line}");
            }
        }
    }

    #[test]
    fn each_layer_goes_before_the_one_below() {
        let file = "listen = \"127.0.0.1:1\"\n[http]\ndrain_s = 1\nconnections_max = 7\n";
        let config = with_file(
            file,
            &[
                ("TURNPIKE_LISTEN", "127.0.0.1:2"),
                ("TURNPIKE_HTTP_DRAIN_S", "2"),
                ("HOME", "/"),
            ],
            &[("listen", "127.0.0.1:3")],
        )
        .unwrap();
        assert_eq!(config.listen.port(), 3);
        assert_eq!(config.http.drain_s, 2);
        assert_eq!(config.http.connections_max, 7);
        assert_eq!(
            config.http.headers_max,
            Config::built_in().unwrap().http.headers_max
        );
    }

    #[test]
    fn unknown_keys_are_refused_with_a_hint() {
        for (file, pairs, values, expected) in [
            (
                "lisen = \"127.0.0.1:1\"",
                &[][..],
                &[][..],
                "did you mean \"listen\"?",
            ),
            ("[http]\ndrain = 1", &[], &[], "did you mean \"http.drain_s\"?"),
            ("[htp]\ndrain_s = 1", &[], &[], "did you mean \"http.drain_s\"?"),
            (
                "[colour]\nred = 1",
                &[],
                &[],
                "config/default.toml lists all keys",
            ),
            (
                "",
                &[("TURNPIKE_DATADIR", "x")],
                &[],
                "did you mean TURNPIKE_DATA_DIR?",
            ),
            ("", &[("TURNPIKE_COLOURS_OF_ALL", "x")], &[], "unset it"),
            ("", &[], &[("listn", "x")], "did you mean \"listen\"?"),
        ] {
            let error = with_file(file, pairs, values).unwrap_err();
            assert!(error.0.contains(expected), "{file} {pairs:?}: {error}");
        }
    }

    #[test]
    fn wrong_values_name_their_key() {
        for (file, pairs, expected) in [
            ("listen = \"here\"", &[][..], "listen"),
            ("[http]\ndrain_s = -1", &[], "http.drain_s"),
            ("[http]\ndrain_s = \"ten\"", &[], "http.drain_s"),
            (
                "",
                &[("TURNPIKE_HTTP_DRAIN_S", "ten")],
                "TURNPIKE_HTTP_DRAIN_S must be a whole number",
            ),
            ("[telemetry]\nlog_format = \"xml\"", &[], "telemetry.log_format"),
            ("[http]\nheaders_max = 1", &[], "http.headers_max"),
            (
                "[http]\ncors_origins = [\"example.com\"]",
                &[],
                "http.cors_origins",
            ),
            ("http = 5", &[], "unknown key \"http\""),
            ("listen", &[], "is not valid TOML"),
        ] {
            let error = with_file(file, pairs, &[]).unwrap_err();
            assert!(error.0.contains(expected), "{file} {pairs:?}: {error}");
        }
    }

    #[test]
    fn lists_come_with_commas_and_foreign_variables_are_let_be() {
        let pairs = [
            (
                "TURNPIKE_HTTP_CORS_ORIGINS",
                "https://a.example, https://b.example",
            ),
            ("TURNPIKE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("TURNPIKE_SERVICE_HOST", "10.0.0.1"),
            ("TURNPIKE_API_KEY", "secret"),
        ];
        let config = load(&Flags::default(), &environment(&pairs)).unwrap();
        assert_eq!(
            config.http.cors_origins,
            ["https://a.example", "https://b.example"]
        );
    }

    #[test]
    fn a_missing_file_is_said() {
        let error = load(
            &Flags::default(),
            &environment(&[("TURNPIKE_CONFIG", "/no/such.toml")]),
        )
        .unwrap_err();
        assert!(
            error.0.contains("/no/such.toml") && error.0.contains("TURNPIKE_CONFIG"),
            "{error}"
        );
    }
}
