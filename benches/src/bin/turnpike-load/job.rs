//! The jobs: what one request is, and what is sent.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::client::{Connection, Wire, request};
use crate::redis;
use crate::stats::{Summary, Tally};
use crate::{Failure, Load};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Job {
    /// T1: NDJSON in batches.
    Ingest,
    /// T2: one event per request.
    Event,
    /// T3: a quota check per request.
    Check,
    /// Quota checks in batches.
    Batch,
    /// T5: a durable consume per request.
    Consume,
    /// T7: usage of one customer, a month by hour.
    Usage,
    /// T7: the top 100 customers of a month.
    Top,
}

/// Runs a job. `epoch` makes the ids of this run differ from those of others.
pub async fn run(
    job: Job,
    address: SocketAddr,
    api_key: &str,
    load: &Load,
    epoch: u64,
) -> Result<Summary, Failure> {
    let sequence = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let measured = begin + Duration::from_secs(load.warm_up_seconds);
    let end = begin + load.whole();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..load.connections {
        let worker = Worker {
            requests: Requests {
                job,
                api_key: api_key.to_owned(),
                load: load.clone(),
                epoch,
            },
            sequence: Arc::clone(&sequence),
            begin,
            measured,
            end,
        };
        workers.spawn(worker.run(address));
    }
    let mut tally = Tally::new();
    while let Some(done) = workers.join_next().await {
        tally.add(&done??);
    }
    let seconds = measured.elapsed().as_secs_f64();
    Ok(Summary {
        tally,
        seconds,
        open_loop: load.rate.is_some(),
    })
}

/// The requests of a job.
pub struct Requests {
    /// What is done.
    pub job: Job,
    /// By whom.
    pub api_key: String,
    /// How.
    pub load: Load,
    /// Makes the ids differ from those of others.
    pub epoch: u64,
}

struct Worker {
    requests: Requests,
    sequence: Arc<AtomicU64>,
    begin: Instant,
    measured: Instant,
    end: Instant,
}

impl Worker {
    async fn run(self, address: SocketAddr) -> Result<Tally, Failure> {
        let mut connection = Connection::open(address, self.requests.load.wire.clone()).await?;
        let mut tally = Tally::new();
        loop {
            let number = self.sequence.fetch_add(1, Ordering::Relaxed);
            let intended = self
                .requests
                .load
                .rate
                .map(|rate| self.begin + Duration::from_nanos(number * 1_000_000_000 / rate.max(1)));
            let is_last = number >= self.requests.load.requests;
            if is_last || intended.unwrap_or_else(Instant::now) >= self.end {
                return Ok(tally);
            }
            if let Some(intended) = intended {
                tokio::time::sleep_until(intended.into()).await;
            }
            let bytes = self.requests.request(number);
            let sent = intended.unwrap_or_else(Instant::now);
            let (status, body) = connection.call(&bytes).await?;
            let good = (200..300).contains(&status) && self.requests.is_done(body);
            tally.acknowledged += if good { self.requests.units() } else { 0 };
            if sent < self.measured {
                tally.errors += u64::from(!good);
                continue;
            }
            tally.latency.saturating_record(sent.elapsed().as_micros() as u64);
            tally.answers += u64::from(good);
            tally.errors += u64::from(!good);
            tally.units += if good { self.requests.units() } else { 0 };
        }
    }
}

impl Requests {
    const fn units(&self) -> u64 {
        if matches!(self.job, Job::Ingest | Job::Batch) {
            self.load.batch as u64
        } else {
            1
        }
    }

    /// Whether an answer says that all of the request was done.
    pub fn is_done(&self, body: &[u8]) -> bool {
        if self.load.wire != Wire::Http {
            return body == b":1";
        }
        let says = |needle: &[u8]| memchr::memmem::find(body, needle).is_some();
        match self.job {
            Job::Ingest => says(format!("\"accepted\":{},", self.load.batch).as_bytes()),
            Job::Event => says(b"\"accepted\":1,"),
            Job::Check | Job::Consume => says(b"\"allowed\":true"),
            Job::Batch => memchr::memmem::find_iter(body, b"\"allowed\":true").count() == self.load.batch,
            Job::Usage | Job::Top => says(b"\"data\""),
        }
    }

    /// Appends check `number`.
    fn check(&self, number: u64, out: &mut Vec<u8>) {
        use std::io::Write as _;
        let customer = mix(number ^ self.epoch) % u64::from(self.load.customers);
        let written = write!(
            out,
            r#"{{"customer":"c{customer:07}","feature":"feature_{}","amount":"1"}}"#,
            number % 3
        );
        debug_assert!(written.is_ok());
    }

    /// Request `number`, whole.
    pub fn request(&self, number: u64) -> Vec<u8> {
        let key = &self.api_key;
        let customer = mix(number ^ self.epoch) % u64::from(self.load.customers);
        if let Wire::Redis(script) = &self.load.wire {
            return redis::take(
                script,
                &format!("c{customer:07}"),
                &format!("feature_{}", number % 3),
            );
        }
        match self.job {
            Job::Ingest => {
                let mut body = Vec::with_capacity(self.load.batch * 256);
                for index in 0..self.load.batch as u64 {
                    event(
                        self.epoch,
                        number * self.load.batch as u64 + index,
                        &self.load,
                        &mut body,
                    );
                    body.push(b'\n');
                }
                request("POST", "/v1/events", key, "application/x-ndjson", &body)
            }
            Job::Event => {
                let mut body = Vec::with_capacity(256);
                event(self.epoch, number, &self.load, &mut body);
                request("POST", "/v1/events", key, "application/json", &body)
            }
            Job::Check => {
                let mut body = Vec::with_capacity(64);
                self.check(number, &mut body);
                request("POST", "/v1/quota/check", key, "application/json", &body)
            }
            Job::Batch => {
                let mut body = b"{\"checks\":[".to_vec();
                for index in 0..self.load.batch as u64 {
                    body.extend_from_slice(if index == 0 { b"" } else { b"," });
                    self.check(number * self.load.batch as u64 + index, &mut body);
                }
                body.extend_from_slice(b"]}");
                request("POST", "/v1/quota/batch", key, "application/json", &body)
            }
            Job::Consume => {
                let id = mix(number) ^ self.epoch;
                let body = format!(
                    r#"{{"id":"{id:016x}-{number:x}","customer":"c{customer:07}","feature":"feature_0","amount":"1"}}"#
                );
                request(
                    "POST",
                    "/v1/quota/consume",
                    key,
                    "application/json",
                    body.as_bytes(),
                )
            }
            Job::Usage => {
                let path = format!(
                    "/v1/meters/tokens/usage?customer=c{customer:07}&from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z\
                     &window=hour&limit=1000"
                );
                request("GET", &path, key, "application/json", b"")
            }
            Job::Top => {
                let path = "/v1/meters/tokens/usage?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z&group_by=customer\
                            &limit=100";
                request("GET", path, key, "application/json", b"")
            }
        }
    }
}

/// Mixes a counter into something that looks random: the finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
pub const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The tokens of event `number`: known to the check of the totals.
pub const fn tokens(number: u64) -> u64 {
    number % 4_000
}

/// The id of an event: 36 characters.
pub struct EventId {
    high: u64,
    low: u64,
}

impl EventId {
    /// That of event `number` of a run.
    pub const fn new(epoch: u64, number: u64) -> Self {
        Self {
            high: mix(number ^ (epoch << 48)),
            low: mix(number.wrapping_add(epoch << 40)),
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = (self.high, self.low);
        write!(
            f,
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 52,
            low & 0xffff_ffff_ffff,
        )
    }
}

/// Appends event `number` of a run: 36 characters of id, three properties, about 240 bytes. Times lie in the first
/// `minutes` of January 2026.
pub fn event(epoch: u64, number: u64, load: &Load, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let customer = mix(number) % u64::from(load.customers);
    let second = mix(number ^ 7) % (u64::from(load.minutes) * 60);
    let (day, hour, minute) = (second / 86_400 + 1, second / 3_600 % 24, second / 60 % 60);
    let written = write!(
        out,
        r#"{{"specversion":"1.0","id":"{}","source":"load","type":"llm.request","subject":"c{customer:07}","time":"2026-01-{day:02}T{hour:02}:{minute:02}:{:02}Z","data":{{"tokens":{},"model":"gpt-4","status":"ok"}}}}"#,
        EventId::new(epoch, number),
        second % 60,
        tokens(number),
    );
    debug_assert!(written.is_ok());
}
