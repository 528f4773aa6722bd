use serde_json::Value;

use super::{CommandError, ConfigArgs, output};

/// Show the configuration that would apply.
///
/// Defaults, file, environment and flags together; secrets are hidden.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike config
  turnpike config --config turnpike.toml --set http.drain_s=5
  turnpike config --json | jq .http")]
pub(crate) struct ShowConfig {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write JSON instead of TOML.
    #[arg(long)]
    json: bool,
}

impl ShowConfig {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let mut config = self.config.load(Vec::new())?;
        config.telemetry.otlp_endpoint = without_password(&config.telemetry.otlp_endpoint);
        if self.json {
            let all = serde_json::to_value(&config);
            let all: Value = all.map_err(|error| {
                CommandError::failed(format!("the configuration cannot be written: {error}"))
            })?;
            return output::json(&all);
        }
        let text = config.to_toml().map_err(|error| CommandError::failed(error.0))?;
        output::line(text.trim_end())
    }
}

/// A URL whose password, if it has one, is `***`.
fn without_password(text: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse(text) else {
        return text.to_owned();
    };
    if url.password().is_none() || url.set_password(Some("***")).is_err() {
        return text.to_owned();
    }
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Flags, load};

    #[test]
    fn passwords_are_hidden() {
        assert_eq!(
            without_password("http://u:secret@collector:4318/v1/traces"),
            "http://u:***@collector:4318/v1/traces"
        );
        for plain in ["", "http://collector:4318/v1/traces", "no url"] {
            assert_eq!(without_password(plain), plain);
        }
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let config = Config::built_in().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml::to_string(&config).unwrap()).unwrap();
        let flags = Flags {
            config: Some(file.path().to_owned()),
            values: Vec::new(),
        };
        assert_eq!(load(&flags, &[]).unwrap(), config);
    }
}
