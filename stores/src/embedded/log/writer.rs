//! The one thread that writes: one write and one sync for each group, and never again after a failure.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use turnpike_domain::port::StoreError;

use super::Shared;
use super::format::{SegmentHeader, VERSION};
use super::group::{Group, Target};
use super::queue::Work;
use super::recovery::write_header;
use super::segment::{Segment, failed};
use crate::width::metric;

/// Writes what is appended until the log is closed or poisoned.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    /// The segment that is written to, and its entry for readers.
    pub(super) target: Arc<Target>,
    pub(super) segment: Arc<Segment>,
}

/// Poisons the log when the writer ends in a panic, so that nobody waits for ever.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison("the writer ended unexpectedly".to_owned());
        }
    }
}

impl Writer {
    pub(super) fn run(mut self) {
        let _guard = Guard(Arc::clone(&self.shared));
        if let Err(error) = self.work() {
            tracing::error!(%error, "the log cannot be written: it takes no records until the process has started anew");
            self.shared.poison(error.to_string());
        }
    }

    fn work(&mut self) -> Result<(), StoreError> {
        let mut measured_us = 0;
        loop {
            match self.shared.next_work() {
                Work::Write(group) => self.write(group)?,
                Work::Idle => {
                    if let Some(seal) = self.shared.seal() {
                        self.write(seal)?;
                    }
                }
                Work::Close => return self.finish(),
            }
            let now_us = self.shared.clock.monotonic_us();
            if Duration::from_micros(now_us.saturating_sub(measured_us)) >= self.shared.options.tick {
                measured_us = now_us;
                self.shared.measure();
                metrics::gauge!("turnpike_log_bytes").set(metric(self.shared.on_disk()));
            }
        }
    }

    /// Makes a group durable.
    fn write(&mut self, group: Arc<Group>) -> Result<(), StoreError> {
        if group.target.start != self.target.start {
            self.roll(&group)?;
        }
        let shared = &self.shared;
        let Target { path, file, .. } = &*group.target;
        shared.fail.pass("log.before_write")?;
        file.write_at(group.bytes(), group.file_offset())
            .map_err(|error| failed(path, "writing", &error))?;
        shared.fail.pass("log.after_write")?;
        let began_us = shared.clock.monotonic_us();
        file.sync().map_err(|error| failed(path, "syncing", &error))?;
        let took_us = shared.clock.monotonic_us() - began_us;
        shared.fail.pass("log.after_sync")?;
        self.segment.note(group.header());
        metrics::histogram!("turnpike_log_fsync_seconds").record(Duration::from_micros(took_us));
        metrics::histogram!("turnpike_log_group_bytes").record(metric(group.bytes().len() as u64));
        metrics::histogram!("turnpike_log_group_blocks").record(group.header().blocks);
        metrics::counter!("turnpike_log_written_bytes_total").increment(group.bytes().len() as u64);
        shared.settle(group);
        Ok(())
    }

    /// Ends the segment and begins the one that `group` goes to.
    fn roll(&mut self, group: &Group) -> Result<(), StoreError> {
        trim(&self.target, group.target.start - self.target.start)?;
        let shared = &self.shared;
        let next = &group.target;
        let header = SegmentHeader {
            version: VERSION,
            start: next.start,
            identity: shared.identity,
            sequence: group.header().sequence,
        };
        write_header(&*shared.disk, &shared.options.directory, &*next.file, &header)?;
        shared.fail.pass("log.segment_created")?;
        let segment = Arc::new(Segment::new(
            next.path.clone(),
            next.start,
            header.salt(),
            &next.file,
        ));
        shared.segments.push(Arc::clone(&segment));
        self.target = Arc::clone(next);
        self.segment = segment;
        Ok(())
    }

    /// Seals the end and gives the space behind it back.
    fn finish(&mut self) -> Result<(), StoreError> {
        if let Some(seal) = self.shared.seal() {
            self.write(seal)?;
        }
        let next = self.shared.queue.lock().next;
        trim(&self.target, next - self.target.start)
    }
}

/// Gives the space behind `len` back.
fn trim(target: &Target, len: u64) -> Result<(), StoreError> {
    if target.allocated.swap(len, Ordering::AcqRel) == len {
        return Ok(());
    }
    let cut = target.file.set_len(len).and_then(|()| target.file.sync());
    cut.map_err(|error| failed(&target.path, "cutting", &error))
}
