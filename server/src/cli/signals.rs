//! The signals that ask a command to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CommandError;

/// Waits for SIGINT and SIGTERM, which from then on do not end the process themselves. SIGHUP is left as it is, so that
/// `nohup` holds.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Begins to wait.
    pub(crate) fn wait() -> Result<Self, CommandError> {
        let of = |kind| {
            signal(kind).map_err(|error| CommandError::failed(format!("cannot wait for signals: {error}")))
        };
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }
}
