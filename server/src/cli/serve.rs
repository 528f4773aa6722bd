use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::sync::Arc;

use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Randomness;
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::{MachineClock, MachineRandomness};

use super::signals::StopSignals;
use super::{CommandError, ConfigArgs, output};
use crate::config::Config;
use crate::http::serve::serve;
use crate::wiring::{Engine, EngineParts};

/// Run the engine.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike serve
  turnpike serve --data-dir /var/lib/turnpike --listen 0.0.0.0:8080
  TURNPIKE_BOOTSTRAP_API_KEY=choose-a-long-secret turnpike serve
  turnpike serve --config turnpike.toml --set http.drain_s=5
  turnpike serve --listen 127.0.0.1:0 --json")]
pub(crate) struct Serve {
    #[command(flatten)]
    config: ConfigArgs,
    /// Address and port of the API; TURNPIKE_LISTEN, else 127.0.0.1:8080.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Write what is said on standard output as JSON, one object per line: {"api_key": …} at a first start, then
    /// {"listens": …}.
    #[arg(long)]
    json: bool,
    /// Stop when standard input ends: for a program that starts the server and may die before it.
    #[arg(long)]
    stop_with_stdin: bool,
}

impl Serve {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        let flags = self
            .listen
            .map(|listen| ("listen".to_owned(), listen.to_string()));
        let config = self.config.load(flags.into_iter().collect())?;
        let parts = EngineParts {
            clock: Arc::new(MachineClock),
            randomness: Arc::new(MachineRandomness),
            fail_points: Arc::new(fail_points()?),
            bootstrap_key: bootstrap_key()?,
            show_key: Box::new(move |key| show_key(key, self.json)),
        };
        crate::telemetry::start(
            &config.telemetry,
            Arc::clone(&parts.clock),
            Arc::clone(&parts.randomness),
        )?;
        // Before anything is opened, so that a port in use costs nothing.
        let listener = bind(config.listen, "--listen or TURNPIKE_LISTEN").await?;
        let randomness: Arc<dyn Randomness> = Arc::clone(&parts.randomness);
        let engine = Engine::open(&config, parts)
            .await
            .map_err(|error| CommandError::failed(error.to_string()))?;
        let address = listener.local_addr().unwrap_or(config.listen);
        // Before anybody is told that it listens, and may ask it to stop.
        let stop = stop_on_signals()?;
        if self.stop_with_stdin {
            stop_with_stdin(stop.clone());
        }
        // On standard output, for people and for programs that started us on port 0; logs go to standard error.
        // Who does not listen to them does not want to know.
        let _ = output::line(&if self.json {
            json!({"listens": format!("http://{address}")}).to_string()
        } else {
            format!("turnpike listens on http://{address}")
        });
        tracing::info!(%address, data_dir = %config.data_dir.display(), version = env!("CARGO_PKG_VERSION"), "turnpike serves");
        engine.unready_on(stop.clone());
        let metrics = serve_metrics(&config, &engine, &randomness, stop.clone()).await?;
        let cut = serve(
            listener,
            engine.front.clone(),
            config.http.clone(),
            randomness,
            stop,
        )
        .await;
        if let Some(metrics) = metrics {
            let _ = metrics.await;
        }
        if cut > 0 {
            tracing::warn!(
                connections = cut,
                "connections were cut: their requests had not ended in time"
            );
        }
        engine
            .close()
            .await
            .map_err(|error| CommandError::failed(error.to_string()))?;
        tracing::info!("turnpike has stopped");
        Ok(())
    }
}

fn fail_points() -> Result<FailPoints, CommandError> {
    match std::env::var("TURNPIKE_TEST_FAIL_POINT") {
        Ok(text) if !text.is_empty() => FailPoints::parse(&text)
            .map_err(|error| CommandError::usage(format!("TURNPIKE_TEST_FAIL_POINT: {error}"))),
        _ => Ok(FailPoints::default()),
    }
}

/// The admin key that the operator chose for the first start, if any. One that cannot be read is not taken for none.
fn bootstrap_key() -> Result<Option<String>, CommandError> {
    match std::env::var("TURNPIKE_BOOTSTRAP_API_KEY") {
        Ok(key) => Ok(Some(key).filter(|key| !key.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(CommandError::usage(
            "TURNPIKE_BOOTSTRAP_API_KEY is not UTF-8: choose 16 to 128 printable characters",
        )),
    }
}

/// Listens on an address that `setting` chose.
async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, CommandError> {
    TcpListener::bind(address).await.map_err(|error| {
        CommandError::failed(format!(
            "cannot listen on {address}: {error}; choose another address with {setting}"
        ))
    })
}

/// The one time that the key can be seen. Not logged: standard output only.
fn show_key(key: &str, as_json: bool) -> Result<(), Problem> {
    let unseen = |why: &str| {
        let detail = format!(
            "the admin API key of the first start cannot be shown on standard output ({why}), so none was made; \
             choose one with TURNPIKE_BOOTSTRAP_API_KEY"
        );
        Problem::new(Code::Internal, detail)
    };
    if goes_nowhere() {
        return Err(unseen("it is closed, or goes to /dev/null"));
    }
    let text = if as_json {
        json!({ "api_key": key }).to_string()
    } else {
        format!(
            "First start: making the tenant \"default\" and an admin API key. It is shown only now:\n\n    {key}\n"
        )
    };
    let mut out = std::io::stdout().lock();
    let shown = writeln!(out, "{text}");
    shown
        .and_then(|()| out.flush())
        .map_err(|error| unseen(&error.to_string()))
}

/// Whether nobody can read standard output. One that is closed at the start is `/dev/null` here, for the standard library
/// opens that in its place.
fn goes_nowhere() -> bool {
    let device = |path: &str| {
        let meta = std::fs::metadata(path).ok()?;
        meta.file_type().is_char_device().then(|| meta.rdev())
    };
    device("/dev/null").is_some_and(|null| device("/dev/stdout") == Some(null))
}

async fn serve_metrics(
    config: &Config,
    engine: &Engine,
    randomness: &Arc<dyn Randomness>,
    stop: CancellationToken,
) -> Result<Option<tokio::task::JoinHandle<usize>>, CommandError> {
    let Some(address) = config.http.metrics_listen.0 else {
        return Ok(None);
    };
    let listener = bind(address, "http.metrics_listen").await?;
    tracing::info!(address = %listener.local_addr().unwrap_or(address), "metrics are served on their own");
    Ok(Some(tokio::spawn(serve(
        listener,
        engine.metrics_router.clone(),
        config.http.clone(),
        Arc::clone(randomness),
        stop,
    ))))
}

/// Cancels `stop` when standard input ends. Whoever holds its other end lets go of it, however it dies.
fn stop_with_stdin(stop: CancellationToken) {
    // A thread of its own, for which nobody waits.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        tracing::info!("standard input has ended");
        stop.cancel();
    });
}

/// Cancelled by the first SIGTERM or SIGINT; a second one ends the process at once.
fn stop_on_signals() -> Result<CancellationToken, CommandError> {
    let mut signals = StopSignals::wait()?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        for second in [false, true] {
            signals.next().await;
            if second {
                std::process::exit(1);
            }
            tracing::info!("stopping: no new connections; requests in flight may finish");
            stopped.cancel();
        }
    });
    Ok(stop)
}
