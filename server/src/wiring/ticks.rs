use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use turnpike_domain::problem::Problem;

/// The shortest pause after a failure, which may last: each one is logged.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Work that is done again and again in the background until the engine closes.
#[derive(Debug, Default)]
pub(crate) struct Ticks {
    running: JoinSet<()>,
    stop: CancellationToken,
}

impl Ticks {
    /// Does `work` now and then every `pause` after it has ended. A failure is logged and tried again.
    pub(crate) fn every<W, F>(&mut self, name: &'static str, pause: Duration, mut work: W)
    where
        W: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<(), Problem>> + Send,
    {
        let stop = self.stop.clone();
        self.running.spawn(async move {
            while !stop.is_cancelled() {
                let mut pause = pause;
                if let Err(error) = work().await {
                    pause = pause.max(AFTER_FAILURE);
                    metrics::counter!("turnpike_background_failures_total", "work" => name).increment(1);
                    tracing::warn!(work = name, %error, "background work failed; it will be tried again");
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => {}
                }
            }
        });
    }

    /// Lets what is running finish, and starts nothing more.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.running.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use turnpike_domain::problem::Code;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_do_not_end_it_and_stopping_does() {
        let count = Arc::new(AtomicU32::new(0));
        let mut ticks = Ticks::default();
        let counted = Arc::clone(&count);
        ticks.every("test", Duration::from_secs(1), move || {
            let at = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                if at == 0 {
                    Err(Problem::new(Code::Unavailable, "not yet"))
                } else {
                    Ok(())
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        assert_eq!(count.load(Ordering::SeqCst), 4);
        ticks.stop().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(count.load(Ordering::SeqCst), 4);
    }
}
