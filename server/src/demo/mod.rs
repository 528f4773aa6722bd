//! `turnpike demo`: the real server, real usage, and a crash in between, told step by step.

mod billing;
mod child;
mod quota;
mod story;
mod trace;
mod usage;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use turnpike_domain::time::{Clock, Randomness};
use turnpike_stores::machine::{MachineClock, MachineRandomness};

use crate::cli::catalog_files::CatalogFiles;
use crate::cli::signals::StopSignals;
use crate::cli::{Client, CommandError, output};
use child::{Server, Setting};
use story::Story;
use trace::{CUSTOMERS, Request};

/// The catalog that it applies.
const CATALOG: &str = include_str!("../../../config/sample-catalog.toml");
/// The clock of its tenant at first: in the afternoon of the day of the trace, after its last request.
const TODAY: &str = "2023-11-16T20:00:00Z";
/// When subscriptions began.
const MONTH_START: &str = "2023-11-01T00:00:00Z";
/// When their first period ends.
const MONTH_END: &str = "2023-12-01T00:00:00Z";
/// Usage of the month, as query parameters.
const MONTH: &str = "from=2023-11-01T00:00:00Z&to=2023-12-01T00:00:00Z";

/// Show all of it in a minute, with a real server and real usage.
///
/// Duplicates, a hard quota, a crash, a bill, and its proof.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  turnpike demo
  turnpike demo --serve
  turnpike demo --data-dir ./demo --json

Its temporary directory is removed at its end, also when it is stopped with Ctrl-C or SIGTERM. Only a demo that is killed
(kill -9, a closed terminal) leaves turnpike-demo-… behind, under $TMPDIR or /tmp.")]
pub(crate) struct Demo {
    /// An empty directory for the data, which is kept; a temporary one unless said.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Stay up at the end for a look.
    #[arg(long)]
    serve: bool,
    /// Write what was found as JSON instead of the story.
    #[arg(long)]
    json: bool,
}

/// What the steps share.
struct Stage {
    setting: Setting,
    server: Option<Server>,
    story: Story,
    clock: Arc<dyn Clock>,
    /// The key of the demo's own tenant.
    key: String,
    trace: Vec<Request>,
    found: Value,
}

impl Demo {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        let (_temporary, directory) = self.directory()?;
        let mut stop = StopSignals::wait()?;
        let stage = tokio::select! {
            played = self.play(directory) => played?,
            // What is dropped takes its server and its temporary directory along.
            signal = stop.next() => {
                return Err(CommandError::interrupted(signal, "stopped; what the demo had started is ended"));
            }
        };
        self.end(stage, stop).await
    }

    async fn play(&self, directory: PathBuf) -> Result<Stage, CommandError> {
        let mut stage = Stage::new(directory, self.json)?;
        stage.first_start().await?;
        stage.declare().await?;
        stage.send_with_a_crash().await?;
        stage.send_again().await?;
        stage.compare().await?;
        stage.race_a_limit().await?;
        stage.bill().await?;
        stage.verify().await?;
        Ok(stage)
    }

    /// The directory to use; a temporary one is removed when the first part is dropped.
    fn directory(&self) -> Result<(Option<tempfile::TempDir>, PathBuf), CommandError> {
        let Some(path) = &self.data_dir else {
            let temporary = tempfile::Builder::new().prefix("turnpike-demo-").tempdir();
            let temporary = temporary.map_err(|error| {
                CommandError::failed(format!("cannot make a temporary directory: {error}"))
            })?;
            let path = temporary.path().to_owned();
            return Ok((Some(temporary), path));
        };
        let used = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        if used {
            return Err(CommandError::usage(format!(
                "{} is not empty; the demo wants an empty directory",
                path.display()
            )));
        }
        std::fs::create_dir_all(path)
            .map_err(|error| CommandError::failed(format!("cannot make {}: {error}", path.display())))?;
        Ok((None, path.clone()))
    }

    async fn end(self, mut stage: Stage, mut stop: StopSignals) -> Result<(), CommandError> {
        let server = stage.server.take();
        if self.json {
            output::json(&stage.found)?;
        }
        let Some(server) = server else { return Ok(()) };
        if !self.serve {
            stage.story.tell("");
            stage
                .story
                .tell("Everything held. Look around yourself with: turnpike demo --serve");
            return server.stop();
        }
        stage.story.step("It stays up for a look; Ctrl-C ends it");
        let (base, key) = (&server.base, &stage.key);
        stage.story.tell(&format!(
            "API and documentation: {base}/docs\n\n    export TURNPIKE_SERVER={base}\n    export TURNPIKE_API_KEY={key}\n\
             \x20   turnpike usage generated_tokens --from 2023-11-16T18:00:00Z --to 2023-11-16T20:00:00Z --window minute\n\
             \x20   turnpike invoice list"
        ));
        stop.next().await;
        server.stop()
    }
}

impl Stage {
    fn new(directory: PathBuf, quiet: bool) -> Result<Self, CommandError> {
        let mut secret = [0; 24];
        MachineRandomness.fill(&mut secret);
        let hex = blake3::hash(&secret).to_hex();
        let trace = trace::requests();
        if trace.is_empty() {
            return Err(CommandError::failed(
                "the trace that is compiled in cannot be read",
            ));
        }
        Ok(Self {
            setting: Setting {
                data_dir: directory.join("data"),
                log: directory.join("server.log"),
                key: format!("demo_{hex}"),
            },
            server: None,
            story: Story::quiet(quiet),
            clock: Arc::new(MachineClock),
            key: String::new(),
            trace,
            found: json!({}),
        })
    }

    /// A client with the key of the demo's tenant.
    fn client(&self) -> Result<Client, CommandError> {
        self.client_with(&self.key)
    }

    fn client_with(&self, key: &str) -> Result<Client, CommandError> {
        let server = self
            .server
            .as_ref()
            .ok_or_else(|| CommandError::failed("the server is not running"))?;
        Client::new(&server.base, key)
    }

    /// Starts the server; how long it took until it was ready.
    async fn start(&mut self) -> Result<std::time::Duration, CommandError> {
        let before = self.clock.monotonic_us();
        self.server = Some(self.setting.start().await?);
        Ok(self.since(before))
    }

    fn since(&self, before_us: u64) -> std::time::Duration {
        std::time::Duration::from_micros(self.clock.monotonic_us() - before_us)
    }

    async fn first_start(&mut self) -> Result<(), CommandError> {
        self.story
            .step("Start: one process, one data directory, nothing else to install");
        let took = self.start().await?;
        let base = self
            .server
            .as_ref()
            .map(|server| server.base.clone())
            .unwrap_or_default();
        self.story.tell(&format!(
            "turnpike serve is ready after {}: {base}",
            story::words(took)
        ));
        self.story
            .tell(&format!("data: {}", self.setting.data_dir.display()));
        Ok(())
    }

    /// A tenant with its own clock, for the trace is of 2023; a catalog, customers, subscriptions.
    async fn declare(&mut self) -> Result<(), CommandError> {
        self.story
            .step("Declare: a tenant, a catalog as code, customers, subscriptions");
        let admin = self.client_with(&self.setting.key)?;
        let tenant = json!({"key": "demo", "name": "Demo", "test": true, "clock": TODAY});
        let made = admin.post("/v1/tenants", tenant).await?;
        self.key = key_of(&made)?;
        self.story.tell(&format!(
            "tenant \"demo\" with its own clock, which shows {TODAY}, the day of the trace"
        ));
        let client = self.client()?;
        let mut files = CatalogFiles::default();
        let added = files.add("sample-catalog.toml", CATALOG.to_owned());
        added.map_err(CommandError::failed)?;
        let diff = client.post("/v1/catalog/apply", files.catalog).await?;
        let created: Vec<String> = diff["created"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| format!("{} {}", output::cell(&item["kind"]), output::cell(&item["key"])))
            .collect();
        self.story.tell(&format!("catalog: {}", created.join(", ")));
        for (key, name, _) in CUSTOMERS {
            let path = format!("/v1/customers/{key}");
            client
                .json(
                    reqwest::Method::PUT,
                    &path,
                    crate::cli::Body::Json(json!({"name": name})),
                )
                .await?;
            client
                .post(
                    "/v1/subscriptions",
                    json!({"customer": key, "plan": "team", "start": MONTH_START}),
                )
                .await?;
        }
        self.story
            .tell("customers acme, globex and initech, each on plan \"team\" since 1 November 2023");
        Ok(())
    }
}

/// The key that was made with a tenant.
fn key_of(made: &Value) -> Result<String, CommandError> {
    let key = [&made["api_key"]["key"], &made["api_key"], &made["key"]["key"]]
        .into_iter()
        .find_map(Value::as_str);
    key.map(str::to_owned)
        .ok_or_else(|| CommandError::failed("the tenant was made without a key"))
}
