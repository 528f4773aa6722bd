//! The command line: one file per command.

mod apply;
mod backup;
pub(crate) mod catalog_files;
mod check;
mod client;
mod completions;
mod config;
mod doctor;
mod export;
mod import;
pub(crate) mod invoice;
mod keys;
pub(crate) mod output;
mod plot;
mod rebuild;
mod refusal;
mod serve;
pub(crate) mod signals;
pub(crate) mod usage;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use tokio::signal::unix::SignalKind;

pub(crate) use client::{Body, Client};

use crate::config::{Config, ConfigError, Flags};

/// Usage metering, quotas and billing.
#[derive(Debug, Parser)]
#[command(name = "turnpike", version, propagate_version = true, max_term_width = 110, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong arguments or configuration; 3 the server cannot be reached; \
4 the server refused the call; 5 a check said no, or found differences or damage; 130 and 143 stopped by SIGINT and SIGTERM.

With --json, standard output has one JSON document, and an error is one JSON object on standard error: \
{\"error\": {\"kind\": \"refused\", \"exit_code\": 4, \"detail\": \"…\", \"problem\": {…}}}, where kind is failed, usage, \
unreachable, refused, negative or interrupted, and problem is what the server said (RFC 9457).

Try it: turnpike demo. The API's documentation is at /docs of a running server.";

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
    Backup(backup::Backup),
    Restore(backup::Restore),
    Rebuild(rebuild::Rebuild),
    Verify(verify::Verify),
    Doctor(doctor::Doctor),
    Config(config::ShowConfig),
    Demo(crate::demo::Demo),
    Completions(completions::Completions),
}

/// How a command ended without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// It failed.
    Failed,
    /// Arguments or configuration are wrong.
    Usage,
    /// The server cannot be reached.
    Unreachable,
    /// The server refused the call.
    Refused,
    /// A check said no, or found differences or damage.
    Negative,
    /// Somebody stopped it.
    Interrupted,
}

impl Kind {
    const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Refused => 4,
            Self::Negative => 5,
            Self::Interrupted => SIGNAL_EXIT_BASE + 2,
        }
    }
}

/// What shells add to the number of the signal that ended a command.
const SIGNAL_EXIT_BASE: u8 = 128;

/// Why a command ended without success: words for people, and what programs need.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct CommandError {
    kind: Kind,
    exit_code: u8,
    text: String,
    /// What the server answered; null where it did not.
    problem: Box<Value>,
}

impl CommandError {
    fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            exit_code: kind.exit_code(),
            text: text.into(),
            problem: Box::default(),
        }
    }

    /// It failed.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::new(Kind::Failed, text)
    }

    /// The server cannot be reached.
    pub(crate) fn unreachable(text: impl Into<String>) -> Self {
        Self::new(Kind::Unreachable, text)
    }

    /// The server refused the call with `problem`.
    pub(crate) fn refused(text: impl Into<String>, problem: Value) -> Self {
        Self {
            problem: Box::new(problem),
            ..Self::new(Kind::Refused, text)
        }
    }

    /// A check said no, or found differences or damage.
    pub(crate) fn negative(text: impl Into<String>) -> Self {
        Self::new(Kind::Negative, text)
    }

    /// Arguments or configuration are wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Kind::Usage, text)
    }

    /// Somebody stopped it with `signal`.
    pub(crate) fn interrupted(signal: SignalKind, text: impl Into<String>) -> Self {
        let number = u8::try_from(signal.as_raw_value()).unwrap_or_default();
        Self {
            exit_code: SIGNAL_EXIT_BASE + number,
            ..Self::new(Kind::Interrupted, text)
        }
    }

    /// Whether somebody stopped it.
    pub(crate) fn is_interruption(&self) -> bool {
        self.kind == Kind::Interrupted
    }

    /// What the server said about something that the call names: that it is not there, or not in a state for the call.
    pub(crate) fn of_what_was_named(&self) -> Option<&Value> {
        let named = self.problem["status"] == 404 || self.problem["status"] == 409;
        named.then_some(&*self.problem)
    }

    /// The same error with what to do about it, unless it is one of the arguments, which says so itself.
    fn with_hint(mut self, hint: &str) -> Self {
        if self.kind != Kind::Usage {
            self.text = format!("{}\n{hint}", self.text);
        }
        self
    }

    /// Tells people, or programs, on standard error.
    fn tell(&self, json: bool) {
        if !json {
            return output::tell(&format!("error: {}", self.text));
        }
        let mut error = json!({ "kind": self.kind, "exit_code": self.exit_code, "detail": self.text });
        if !self.problem.is_null() {
            error["problem"] = Value::clone(&self.problem);
        }
        output::tell(&json!({ "error": error }).to_string());
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
            let path = path
                .to_str()
                .ok_or_else(|| CommandError::usage(format!("--data-dir {} is not UTF-8", path.display())))?;
            values.push(("data_dir".to_owned(), path.to_owned()));
        }
        values.extend(more);
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os() {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => environment.push((name, value)),
                (Ok(name), Err(value)) if name.starts_with("TURNPIKE_") => {
                    let shown = value.to_string_lossy();
                    return Err(CommandError::usage(format!("{name} is not UTF-8: \"{shown}\"")));
                }
                _ => {}
            }
        }
        Ok(crate::config::load(
            &Flags {
                config: self.config.clone(),
                values,
            },
            &environment,
        )?)
    }
}

/// Whether the arguments ask for JSON: also where they are wrong otherwise.
fn wants_json() -> bool {
    std::env::args_os()
        .skip(1)
        .take_while(|argument| argument != "--")
        .any(|argument| argument == "--json")
}

/// Reads the command line, does what it says, and tells how it ended.
pub fn main() -> ExitCode {
    let json = wants_json();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are no errors; people get clap's own words, with colours.
        Err(error) if !json || !error.use_stderr() => error.exit(),
        Err(error) => {
            let words = error.render().to_string();
            let error = CommandError::usage(words.trim_start_matches("error: ").trim_end());
            error.tell(true);
            return ExitCode::from(error.exit_code);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            CommandError::failed(format!("cannot start threads: {error}")).tell(json);
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.tell(json);
            ExitCode::from(error.exit_code)
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
        Command::Backup(command) => command.run().await,
        Command::Restore(command) => command.run().await,
        Command::Rebuild(command) => command.run().await,
        Command::Verify(command) => command.run().await,
        Command::Doctor(command) => command.run().await,
        Command::Config(command) => command.run(),
        Command::Demo(command) => command.run().await,
        Command::Completions(command) => command.run(),
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
            assert!(
                command
                    .get_after_help()
                    .is_some_and(|help| help.to_string().contains("turnpike ")),
                "{} has no example",
                command.get_name()
            );
        }
    }

    #[test]
    fn errors_have_an_exit_code_each() {
        let errors = [
            CommandError::failed("x"),
            CommandError::usage("x"),
            CommandError::unreachable("x"),
            CommandError::refused("x", Value::Null),
            CommandError::negative("x"),
            CommandError::interrupted(SignalKind::interrupt(), "x"),
            CommandError::interrupted(SignalKind::terminate(), "x"),
        ];
        let codes = errors.map(|error| error.exit_code);
        assert_eq!(codes, [1, 2, 3, 4, 5, 130, 143]);
        let told = Cli::command()
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        for code in codes {
            assert!(
                told.contains(&format!("{code} ")),
                "{code} is not documented: {told}"
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
            "turnpike backup there --data-dir x --copy --json",
            "turnpike restore there --data-dir x",
            "turnpike rebuild --data-dir x",
            "turnpike verify",
            "turnpike verify --data-dir x --json",
            "turnpike doctor --config f",
            "turnpike demo --serve",
            "turnpike config --json --set http.drain_s=5",
            "turnpike invoice pay INV-000001",
            "turnpike keys rotate id --grace-s 0",
            "turnpike import - --format csv --delimiter ; --decimal-comma --type t --subject s",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "turnpike",
            "turnpike apply",
            "turnpike backup",
            "turnpike restore --data-dir x",
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
