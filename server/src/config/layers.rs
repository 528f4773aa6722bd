use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::{Table, Value};

use super::hint::did_you_mean;
use super::lines::lines;
use super::{Config, ConfigError, DEFAULT_TOML, check};

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
pub(crate) struct Flags {
    /// The configuration file; TURNPIKE_CONFIG where it is not given.
    pub(crate) config: Option<PathBuf>,
    /// Keys and values, such as ("http.drain_s", "5"), in the order given.
    pub(crate) values: Vec<(String, String)>,
}

/// The configuration from the defaults, the file, the environment and the flags; each goes before those named earlier.
pub(crate) fn load(flags: &Flags, environment: &[(String, String)]) -> Result<Config, ConfigError> {
    let Some((path, source)) = file_path(flags, environment) else {
        return merge(None, environment, &flags.values);
    };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        ConfigError(format!(
            "cannot read the configuration file {} ({source}): {error}",
            path.display()
        ))
    })?;
    let name = path.display().to_string();
    merge(Some((&name, &text)), environment, &flags.values)
}

/// The same with the file's name and text.
pub(super) fn merge(
    file: Option<(&str, &str)>,
    environment: &[(String, String)],
    flags: &[(String, String)],
) -> Result<Config, ConfigError> {
    let mut layers = Layers::of_defaults()?;
    if let Some((name, text)) = file {
        layers.add_file(name, text)?;
    }
    for (path, value) in environment_values(environment, &layers.schema)? {
        let source = variable(&path);
        layers.set(path, value, source)?;
    }
    for (key, text) in flags {
        const SOURCE: &str = "the command line";
        let Some(default) = layers.schema.get(key) else {
            return Err(unknown(SOURCE, key, &layers.schema));
        };
        let value = typed(default, text);
        layers.set(key.clone(), value, SOURCE.to_owned())?;
    }
    layers.config()
}

/// The layers read so far, one over the other.
struct Layers {
    /// Every key with its default.
    schema: BTreeMap<String, Value>,
    merged: Table,
    /// Where the values that are no defaults come from.
    sources: BTreeMap<String, String>,
}

impl Layers {
    fn of_defaults() -> Result<Self, ConfigError> {
        let defaults: Table = toml::from_str(DEFAULT_TOML)
            .map_err(|error| ConfigError(format!("the defaults compiled in are not TOML: {error}")))?;
        Ok(Self {
            schema: leaves(&defaults),
            merged: defaults,
            sources: BTreeMap::new(),
        })
    }

    fn add_file(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        let table: Table = toml::from_str(text)
            .map_err(|error| ConfigError(format!("{name} is not valid TOML: {error}")))?;
        let lines = lines(text);
        for (key, value) in leaves(&table) {
            let source = lines
                .get(&key)
                .map_or_else(|| name.to_owned(), |line| format!("{name}, line {line}"));
            if value.as_table().is_some() && self.has_part(&key) {
                continue;
            }
            if !self.schema.contains_key(&key) {
                return Err(unknown(&source, &key, &self.schema));
            }
            self.set(key, value, source)?;
        }
        Ok(())
    }

    /// Whether keys begin with `part` and a dot.
    fn has_part(&self, part: &str) -> bool {
        let rest = |key: &String| key.strip_prefix(part).is_some_and(|rest| rest.starts_with('.'));
        self.schema.keys().any(rest)
    }

    /// Sets a key of the schema. An error for a value of another type than the default's, or out of range.
    fn set(&mut self, key: String, value: Value, source: String) -> Result<(), ConfigError> {
        if let Some(wrong) = self
            .schema
            .get(&key)
            .and_then(|default| check::wrong_value(&key, default, &value))
        {
            return Err(ConfigError(format!("{source}: {key} {wrong}")));
        }
        set(&mut self.merged, &key, value);
        self.sources.insert(key, source);
        Ok(())
    }

    fn config(self) -> Result<Config, ConfigError> {
        let source = |key: &str| self.sources.get(key).map_or("the defaults", String::as_str);
        let config: Config =
            serde_path_to_error::deserialize(Value::Table(self.merged)).map_err(|error| {
                let path = error.path().to_string();
                // Of an item of a list the place is that of the list.
                let key = path.split('[').next().unwrap_or_default();
                ConfigError(format!("{}: {key}: {}", source(key), error.inner()))
            })?;
        match check::wrong_meaning(&config) {
            Some((key, wrong)) => Err(ConfigError(format!("{}: {key} {wrong}", source(key)))),
            None => Ok(config),
        }
    }
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

/// Every key of `table` with its value, or with an empty table: the path's parts are joined by dots.
pub(super) fn leaves(table: &Table) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) if !inner.is_empty() => {
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

fn unknown(source: &str, key: &str, schema: &BTreeMap<String, Value>) -> ConfigError {
    let hint = did_you_mean(key, schema.keys().map(String::as_str)).map_or_else(
        || "config/default.toml lists all keys".to_owned(),
        |near| format!("did you mean \"{near}\"?"),
    );
    ConfigError(format!("{source}: unknown key \"{key}\"; {hint}"))
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
        values.push(((*path).clone(), typed(default, text)));
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

/// A text as a value of the type that the default has; a text still where it is none.
fn typed(default: &Value, text: &str) -> Value {
    let plain = text.trim();
    let typed = match default {
        Value::Integer(_) => plain.parse().ok().map(Value::Integer),
        Value::Boolean(_) => plain.parse().ok().map(Value::Boolean),
        Value::Array(_) => {
            let parts = plain.split(',').map(str::trim).filter(|part| !part.is_empty());
            Some(Value::Array(
                parts.map(|part| Value::String(part.to_owned())).collect(),
            ))
        }
        _ => None,
    };
    typed.unwrap_or_else(|| Value::String(text.to_owned()))
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
            (
                "[http]\ndrain = 1",
                &[],
                &[],
                ", line 2: unknown key \"http.drain\"; did you mean \"http.drain_s\"?",
            ),
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
            (
                "listen = \"here\"",
                &[][..],
                ", line 1: listen: invalid socket address",
            ),
            (
                "\n[http]\ndrain_s = -1",
                &[],
                ", line 3: http.drain_s must be 0 to 3600, not -1",
            ),
            (
                "[http]\ndrain_s = \"ten\"",
                &[],
                ", line 2: http.drain_s must be a whole number, not \"ten\"",
            ),
            (
                "",
                &[("TURNPIKE_HTTP_DRAIN_S", "ten")],
                "TURNPIKE_HTTP_DRAIN_S: http.drain_s must be a whole number, not \"ten\"",
            ),
            (
                "",
                &[("TURNPIKE_ENGINE_PARTITIONS", "300")],
                "TURNPIKE_ENGINE_PARTITIONS: engine.partitions must be 0 to 256, not 300",
            ),
            (
                "[engine]\nqueue_bytes_max = 1000",
                &[],
                "engine.queue_bytes_max must be 2097152 to",
            ),
            (
                "[http]\ntrusted_proxies = [\"ten\"]",
                &[],
                ", line 2: http.trusted_proxies",
            ),
            ("data_dir = \"\"", &[], ", line 1: data_dir must name a directory"),
            (
                "[telemetry]\nlog_filter = \"a=b=c\"",
                &[],
                ", line 2: telemetry.log_filter",
            ),
            (
                "[telemetry]\notlp_endpoint = \"collector\"",
                &[],
                ", line 2: telemetry.otlp_endpoint",
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
    fn what_would_have_no_effect_is_refused_with_its_line() {
        for (file, expected) in [
            ("\n[htpp]\n", ", line 2: unknown key \"htpp\""),
            (
                "[http]\ncors_origins = [1]",
                ", line 2: http.cors_origins: invalid type",
            ),
            (
                "[http]\ncors_origins = [\"https://a.example/x\"]",
                ", line 2: http.cors_origins has \"https://a.example/x\"",
            ),
            (
                "listen = \"127.0.0.1:8080\"\n[http]\nmetrics_listen = \"127.0.0.1:8080\"",
                ", line 3: http.metrics_listen 127.0.0.1:8080 is where",
            ),
            (
                "listen = \"0.0.0.0:8080\"\n[http]\nmetrics_listen = \"127.0.0.1:8080\"",
                ", line 3: http.metrics_listen 127.0.0.1:8080 is where",
            ),
            (
                "[telemetry]\nlog_filter = \"inof\"",
                ", line 2: telemetry.log_filter has \"inof\"",
            ),
        ] {
            let error = with_file(file, &[], &[]).unwrap_err();
            assert!(error.0.contains(expected), "{file}: {error}");
        }
    }

    #[test]
    fn a_part_may_be_empty() {
        assert_eq!(with_file("[http]\n", &[], &[]), Config::built_in());
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
