use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use futures_util::StreamExt as _;
use reqwest::Method;
use turnpike_client::transport::encode;

use super::catalog_files::as_toml;
use super::client::{Body, Client, ClientArgs};
use super::{CommandError, output};

/// Write usage, invoices, the audit log or the catalog.
///
/// As CSV or NDJSON; the catalog as TOML that `turnpike apply` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike export usage --with meter=tokens --with from=2026-01-01T00:00:00Z -o usage.csv
  turnpike export invoices --format ndjson | jq .total
  turnpike export audit --with action=security -o audit.csv
  turnpike export catalog -o catalog.toml")]
pub(crate) struct Export {
    /// What.
    #[arg(value_parser = ["usage", "invoices", "audit", "catalog"])]
    what: String,
    /// The file; standard output unless said.
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// How; csv unless said, ndjson with --json, and the catalog as TOML, or as JSON with --json.
    #[arg(long, value_parser = ["csv", "ndjson"])]
    format: Option<String>,
    /// A parameter of the call, such as meter=tokens or from=2026-01-01T00:00:00Z; may repeat.
    #[arg(long = "with", value_name = "NAME=VALUE")]
    with: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

impl Export {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        let client = self.client.client()?;
        if self.what == "catalog" {
            return self.catalog(&client).await;
        }
        let format = self.rows_format()?;
        let mut path = format!("/v1/export/{}?format={format}", self.what);
        for pair in &self.with {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| CommandError::usage(format!("--with takes NAME=VALUE, not \"{pair}\"")))?;
            let _ = write!(path, "&{}={}", encode(name), encode(value));
        }
        let place = self.output.as_ref().map_or_else(
            || "to standard output".to_owned(),
            |file| file.display().to_string(),
        );
        let failed = |error: std::io::Error| CommandError::failed(format!("cannot write {place}: {error}"));
        let response = client.call(Method::GET, &path, Body::None).await?;
        let mut out: Box<dyn Write> = match &self.output {
            Some(file) => Box::new(BufWriter::new(File::create(file).map_err(failed)?)),
            None => Box::new(std::io::stdout().lock()),
        };
        let bar = if self.output.is_some() {
            output::progress(response.content_length(), "bytes")
        } else {
            indicatif::ProgressBar::hidden()
        };
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| {
                CommandError::failed(format!(
                    "the answer broke off: {error}; what was written is not whole, and the server's log says why"
                ))
            })?;
            match out.write_all(&piece) {
                // A reader that went away (`| head`) has what it wanted.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.map_err(failed)?,
            }
            bar.inc(piece.len() as u64);
        }
        out.flush().map_err(failed)?;
        bar.finish_and_clear();
        Ok(())
    }

    async fn catalog(&self, client: &Client) -> Result<(), CommandError> {
        if self.format.is_some() || !self.with.is_empty() {
            return Err(CommandError::usage(
                "the catalog is written whole, as TOML or with --json: leave out --format and --with",
            ));
        }
        let catalog = client.get("/v1/catalog").await?;
        let text = if self.client.json {
            output::pretty(&catalog)
        } else {
            as_toml(&catalog)?
        };
        output::page(text.trim_end(), self.output.as_deref())
    }

    /// How rows are written. With `--json` one JSON object per line.
    fn rows_format(&self) -> Result<&str, CommandError> {
        match self.format.as_deref() {
            Some("csv") if self.client.json => Err(CommandError::usage(
                "--json writes NDJSON: leave out --format csv, or --json",
            )),
            None if self.client.json => Ok("ndjson"),
            given => Ok(given.unwrap_or("csv")),
        }
    }
}
