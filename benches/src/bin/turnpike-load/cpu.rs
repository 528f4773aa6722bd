//! Processor time: it says what a server's work costs also on a machine that is busy with something else.

use std::time::Duration;

use crate::stats::Summary;

/// What all threads of a process have used so far; those that have ended are not counted.
pub fn used(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let of_thread = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    let nanoseconds = threads
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(of_thread)
        .sum();
    Duration::from_nanos(nanoseconds)
}

/// What a process has used since `before` for each of the units of a run, its warm-up included.
pub fn each(pid: u32, before: Duration, run: &Summary) -> Duration {
    let units = u32::try_from(run.tally.acknowledged).unwrap_or(u32::MAX).max(1);
    used(pid).saturating_sub(before) / units
}
