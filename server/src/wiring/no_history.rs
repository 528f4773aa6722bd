use turnpike_domain::identity::TenantId;
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::history::{Backfill, DeadLetterPage, EventPage, EventQuery, History};
use turnpike_domain::problem::{Code, Problem};

/// Answers 503 until the partition owners can look back.
pub(crate) struct NoHistory;

fn not_ready() -> Problem {
    Problem::new(Code::Unavailable, "looking at raw events is not ready")
}

impl History for NoHistory {
    fn events(&self, _: TenantId, _: EventQuery) -> BoxFuture<'_, Result<EventPage, Problem>> {
        Box::pin(async { Err(not_ready()) })
    }

    fn dead_letters(
        &self,
        _: TenantId,
        _: usize,
        _: Option<String>,
    ) -> BoxFuture<'_, Result<DeadLetterPage, Problem>> {
        Box::pin(async { Err(not_ready()) })
    }

    fn backfill(&self, _: TenantId, _: &str) -> Option<Backfill> {
        None
    }
}
