//! The command line: one file per command.

pub(crate) mod apply;
mod check;
mod client;
mod completions;
mod doctor;
mod export;
mod import;
pub(crate) mod invoice;
mod keys;
pub(crate) mod output;
mod rebuild;
mod serve;
pub(crate) mod usage;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub(crate) use client::{Body, Client};

use crate::config::{Config, ConfigError, Flags};

/// Usage metering, quotas and billing.
#[derive(Debug, Parser)]
#[command(name = "turnpike", version, propagate_version = true, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong arguments or configuration; 3 the server cannot be reached; \
4 the server refused the call; 5 a check said no, or found differences or damage.";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Apply(apply::Apply),
    Import(Box<import::Import>),
    Usage(usage::Usage),
    Check(check::Check),
    Invoice(invoice::Invoice),
    Keys(keys::Keys),
    Export(export::Export),
    Rebuild(rebuild::Rebuild),
    Verify(verify::Verify),
    Doctor(doctor::Doctor),
    Demo(crate::demo::Demo),
    Completions(completions::Completions),
}

/// Why a command ended without success: words for people, and an exit code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CommandError {
    code: u8,
    text: String,
}

impl CommandError {
    /// It failed.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self {
            code: 1,
            text: text.into(),
        }
    }

    /// The server cannot be reached.
    pub(crate) fn unreachable(text: impl Into<String>) -> Self {
        Self {
            code: 3,
            text: text.into(),
        }
    }

    /// The server refused the call.
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self {
            code: 4,
            text: text.into(),
        }
    }

    /// A check said no, or found differences or damage.
    pub(crate) fn negative(text: impl Into<String>) -> Self {
        Self {
            code: 5,
            text: text.into(),
        }
    }

    /// Arguments or configuration are wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self {
            code: 2,
            text: text.into(),
        }
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.0)
    }
}

/// Where configuration comes from.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file; TURNPIKE_CONFIG where it is not given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory; TURNPIKE_DATA_DIR, else ./data.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Any key of the configuration, such as http.drain_s=5; may repeat.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    /// The configuration of this process, with `more` set last.
    fn load(&self, more: Vec<(String, String)>) -> Result<Config, CommandError> {
        let mut values = Vec::new();
        for pair in &self.set {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(CommandError::usage(format!(
                    "--set takes KEY=VALUE, not \"{pair}\""
                )));
            };
            values.push((key.trim().to_owned(), value.to_owned()));
        }
        if let Some(path) = &self.data_dir {
            values.push(("data_dir".to_owned(), path.display().to_string()));
        }
        values.extend(more);
        let environment: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Ok(crate::config::load(
            &Flags {
                config: self.config.clone(),
                values,
            },
            &environment,
        )?)
    }
}

/// Reads the command line, does what it says, and tells how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start threads: {error}");
            return ExitCode::from(1);
        }
    };
    let ended = runtime.block_on(run(cli));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.code)
        }
    }
}

async fn run(cli: Cli) -> Result<(), CommandError> {
    match cli.command {
        Command::Serve(command) => command.run().await,
        Command::Apply(command) => command.run().await,
        Command::Import(command) => command.run().await,
        Command::Usage(command) => command.run().await,
        Command::Check(command) => command.run().await,
        Command::Invoice(command) => command.run().await,
        Command::Keys(command) => command.run().await,
        Command::Export(command) => command.run().await,
        Command::Rebuild(command) => command.run().await,
        Command::Verify(command) => command.run().await,
        Command::Doctor(command) => command.run().await,
        Command::Demo(command) => command.run().await,
        Command::Completions(command) => {
            command.run();
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        let about = Cli::command().get_about().map(ToString::to_string);
        assert_eq!(about.as_deref(), Some("Usage metering, quotas and billing"));
        for command in Cli::command().get_subcommands() {
            assert!(
                command.get_about().is_some(),
                "{} has no description",
                command.get_name()
            );
        }
    }

    #[test]
    fn arguments_are_read() {
        for line in [
            "turnpike serve --listen 127.0.0.1:0 --data-dir x --set http.drain_s=1",
            "turnpike apply a.toml b.toml --yes",
            "turnpike apply dir --dry-run --api-key k",
            "turnpike import f.csv --type t --subject-column c --data a=b --data c=d",
            "turnpike usage tokens --customer a --customer b --window hour --filter model=x",
            "turnpike check acme tokens 5 --json",
            "turnpike invoice run --period-end 2026-02-01T00:00:00Z",
            "turnpike invoice verify id",
            "turnpike keys create name --scope read --scope check",
            "turnpike keys create name --scope read --json --server http://x --api-key k",
            "turnpike keys --json list",
            "turnpike invoice list --json",
            "turnpike export audit",
            "turnpike export usage --format ndjson --with meter=tokens",
            "turnpike completions bash",
            "turnpike rebuild --data-dir x",
            "turnpike verify",
            "turnpike verify --data-dir x --json",
            "turnpike doctor --config f",
            "turnpike demo --serve",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "turnpike",
            "turnpike apply",
            "turnpike apply a --yes --dry-run",
            "turnpike usage t --window week",
            "turnpike keys create name",
            "turnpike keys create name --scope root",
            "turnpike import f --data nonsense",
            "turnpike serve --listen here",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
