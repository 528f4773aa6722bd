use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::control::{AuditFilter, ControlStore as _, PageAfter};
use turnpike_domain::port::log::{EventLog, LogHealth};
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Clock;
use turnpike_stores::sql::SqlStore;

use crate::http::{Check, Readiness, State};

/// For so long it is believed that changes can be kept; less after it was found that they cannot, so that it is seen soon
/// when they can again.
const PROBE_PAUSE_US: u64 = 5_000_000;
const PROBE_PAUSE_FAILED_US: u64 = 1_000_000;

/// What `/readyz` looks at.
pub(crate) struct EngineState {
    pub(crate) sql: SqlStore,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) closing: AtomicBool,
    /// What the last probe found, and until when that is believed, in microseconds of the steady clock: anybody may ask,
    /// and a probe is a write.
    pub(crate) probed: Mutex<Option<(Result<(), Problem>, u64)>>,
}

impl Readiness for EngineState {
    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async move { vec![self.process(), log(&self.log.health()), self.control().await] })
    }
}

impl EngineState {
    fn process(&self) -> Check {
        if self.closing.load(Ordering::Relaxed) {
            return check("process", State::Down, "it is shutting down");
        }
        check("process", State::Ready, "")
    }

    /// The control store: without reads nothing works; without changes usage and decisions go on.
    async fn control(&self) -> Check {
        let page = PageAfter { after: None, rows: 1 };
        let read = self
            .sql
            .audit(TenantId::DEFAULT, AuditFilter::default(), page)
            .await;
        if let Err(problem) = read {
            tracing::error!(%problem, "the control store cannot be read");
            return check("sql", State::Down, &problem.detail);
        }
        match self.probe().await {
            Ok(()) => check("sql", State::Ready, ""),
            Err(problem) => check(
                "sql",
                State::Degraded,
                &format!("changes are refused: {}", problem.detail),
            ),
        }
    }

    /// Whether changes can be kept. Those who ask at the same time wait for one answer.
    async fn probe(&self) -> Result<(), Problem> {
        let mut probed = self.probed.lock().await;
        let now_us = self.clock.monotonic_us();
        if let Some((found, until_us)) = probed.as_ref()
            && now_us < *until_us
        {
            return found.clone();
        }
        let found = self.sql.probe().await;
        let pause_us = match &found {
            Ok(()) => PROBE_PAUSE_US,
            Err(problem) => {
                tracing::error!(%problem, "the control store keeps no changes");
                PROBE_PAUSE_FAILED_US
            }
        };
        *probed = Some((found.clone(), now_us + pause_us));
        found
    }
}

fn log(health: &LogHealth) -> Check {
    match health {
        LogHealth::Healthy => check("log", State::Ready, ""),
        // Reads and checks go on; only what would be written is refused.
        LogHealth::Full(detail) => check("log", State::Degraded, detail),
        // The words of these name files, and anybody may ask here.
        LogHealth::Damaged(_) => check(
            "log",
            State::Degraded,
            "a part of it is not what was written, and calls that read it fail; the server's log names the place: look with \
             `turnpike doctor`, and restore a backup",
        ),
        LogHealth::Poisoned(_) => check(
            "log",
            State::Down,
            "it takes nothing more after an earlier failure, which the server's log tells: start the server anew",
        ),
    }
}

fn check(name: &str, state: State, detail: &str) -> Check {
    Check {
        name: name.to_owned(),
        state,
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_still_serves_and_a_poisoned_one_does_not() {
        for (health, expected) in [
            (LogHealth::Healthy, State::Ready),
            (LogHealth::Full("95 %".to_owned()), State::Degraded),
            (LogHealth::Damaged("/x".to_owned()), State::Degraded),
            (LogHealth::Poisoned("EIO".to_owned()), State::Down),
        ] {
            assert_eq!(log(&health).state, expected);
        }
    }
}
