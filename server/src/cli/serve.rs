use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

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
  turnpike serve --config turnpike.toml --set http.drain_s=5")]
pub(crate) struct Serve {
    #[command(flatten)]
    config: ConfigArgs,
    /// Address and port of the API; TURNPIKE_LISTEN, else 127.0.0.1:8080.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
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
            show_key: Box::new(show_key),
        };
        crate::telemetry::start(
            &config.telemetry,
            Arc::clone(&parts.clock),
            Arc::clone(&parts.randomness),
        )?;
        // Before anything is opened, so that a port in use costs nothing.
        let listener = bind(config.listen).await?;
        let randomness: Arc<dyn Randomness> = Arc::clone(&parts.randomness);
        let engine = Engine::open(&config, parts)
            .await
            .map_err(|error| CommandError::failed(error.to_string()))?;
        let address = listener.local_addr().unwrap_or(config.listen);
        // Before anybody is told that it listens, and may ask it to stop.
        let stop = stop_on_signals()?;
        // On standard output, for people and for programs that started us on port 0; logs go to standard error.
        // Who does not listen to them does not want to know.
        let _ = output::line(&format!("turnpike listens on http://{address}"));
        tracing::info!(%address, data_dir = %config.data_dir.display(), version = env!("CARGO_PKG_VERSION"), "turnpike serves");
        engine.unready_on(stop.clone());
        let metrics = serve_metrics(&config, &engine, &randomness, stop.clone()).await?;
        let cut = serve(
            listener,
            engine.router.clone(),
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

async fn bind(address: SocketAddr) -> Result<TcpListener, CommandError> {
    TcpListener::bind(address).await.map_err(|error| {
        CommandError::failed(format!(
            "cannot listen on {address}: {error}; choose another address with --listen or TURNPIKE_LISTEN"
        ))
    })
}

/// The one time that the key can be seen. Not logged: standard output only.
fn show_key(key: &str) -> Result<(), Problem> {
    let mut out = std::io::stdout().lock();
    let shown = writeln!(
        out,
        "First start: making the tenant \"default\" and an admin API key. It is shown only now:\n\n    {key}\n"
    );
    shown.and_then(|()| out.flush()).map_err(|error| {
        let detail = format!(
            "the admin API key of the first start cannot be shown on standard output ({error}), so none was made; \
             choose one with TURNPIKE_BOOTSTRAP_API_KEY"
        );
        Problem::new(Code::Internal, detail)
    })
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
    let listener = bind(address).await?;
    tracing::info!(address = %listener.local_addr().unwrap_or(address), "metrics are served on their own");
    Ok(Some(tokio::spawn(serve(
        listener,
        engine.metrics_router.clone(),
        config.http.clone(),
        Arc::clone(randomness),
        stop,
    ))))
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
