use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

/// How long bytes of a body or an answer may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Without a byte.
    pub(crate) idle: Duration,
    /// Bytes per second on average, once `idle` has passed; 0: no such bound.
    pub(crate) rate_min: u32,
}

/// Keeps a [`Pace`]. It sets no timer while bytes come or go without waiting.
pub(crate) struct Pacer {
    pace: Pace,
    /// The running wait: its timer, and how long it was set for.
    running: Option<(Pin<Box<Sleep>>, Duration)>,
    /// Waits that ended with bytes, counted whole: an upper bound of the time spent.
    waited: Duration,
    bytes: u64,
}

impl Pacer {
    pub(crate) const fn new(pace: Pace) -> Self {
        Self {
            pace,
            running: None,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Takes note of bytes that came or went: a running wait ends.
    pub(crate) fn moved(&mut self, bytes: usize) {
        if let Some((sleep, allowed)) = self.running.take() {
            let left = sleep.deadline().saturating_duration_since(started_now());
            self.waited += allowed.saturating_sub(left);
        }
        self.bytes += bytes as u64;
    }

    /// Begins anew, for other bytes.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.pace);
    }

    /// Ready when the bytes that are waited for have taken too long.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let allowance = self.allowance();
        let (sleep, _) = self
            .running
            .get_or_insert_with(|| (Box::pin(tokio::time::sleep(allowance)), allowance));
        ready!(sleep.as_mut().poll(cx));
        self.running = None;
        Poll::Ready(())
    }

    /// How long the next bytes may take: the idle time, or what is left of the time that the bytes so far allow.
    fn allowance(&self) -> Duration {
        if self.pace.rate_min == 0 {
            return self.pace.idle;
        }
        let earned = Duration::from_millis(self.bytes * 1_000 / u64::from(self.pace.rate_min));
        (self.pace.idle + earned)
            .saturating_sub(self.waited)
            .min(self.pace.idle)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "compared with the runtime's own timer, which no clock is injected into"
)]
fn started_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
