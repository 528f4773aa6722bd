use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use turnpike_domain::identity::TenantId;
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::control::{AuditFilter, ControlStore as _, PageAfter};
use turnpike_domain::port::log::{EventLog, LogHealth};
use turnpike_domain::problem::Problem;
use turnpike_stores::sql::SqlStore;

use crate::http::{Check, Readiness, State};

/// What `/readyz` looks at.
pub(crate) struct EngineState {
    pub(crate) sql: SqlStore,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) closing: AtomicBool,
}

impl Readiness for EngineState {
    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async move {
            let page = PageAfter { after: None, rows: 1 };
            let sql = self
                .sql
                .audit(TenantId::DEFAULT, AuditFilter::default(), page)
                .await;
            vec![
                self.process(),
                log(&self.log.health()),
                of_call("sql", sql.map(|_| ())),
            ]
        })
    }
}

impl EngineState {
    fn process(&self) -> Check {
        if self.closing.load(Ordering::Relaxed) {
            return check("process", State::Down, "it is shutting down");
        }
        check("process", State::Ready, "")
    }
}

fn log(health: &LogHealth) -> Check {
    match health {
        LogHealth::Healthy => check("log", State::Ready, ""),
        // Reads and checks go on; only what would be written is refused.
        LogHealth::Full(detail) => check("log", State::Degraded, detail),
        LogHealth::Poisoned(detail) => check("log", State::Down, detail),
    }
}

fn of_call(name: &str, called: Result<(), Problem>) -> Check {
    match called {
        Ok(()) => check(name, State::Ready, ""),
        Err(problem) => check(name, State::Down, &problem.detail),
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
            (LogHealth::Poisoned("EIO".to_owned()), State::Down),
        ] {
            assert_eq!(log(&health).state, expected);
        }
    }
}
