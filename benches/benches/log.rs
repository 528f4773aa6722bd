//! The event log against its floor: the same records appended in blocks of 1,000 and made durable, and plain writes of the
//! same bytes with `fdatasync`; then what each compression makes of a block.
//!
//! `cargo bench -p turnpike-benches --bench log`. The directory is that of temporary files, unless `TURNPIKE_BENCH_DIR` names another:
//! it must not be a file system in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use turnpike_domain::port::log::{Block, EventLog, Only};
use turnpike_domain::record::{EventRecord, Position, Record, encode};
use turnpike_stores::disk::RealDisk;
use turnpike_stores::embedded::log::{Compression, LogOptions, SegmentedLog};
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::{MachineClock, MachineRandomness};

const RECORDS: u64 = 1_000;
const CHOICES: [(&str, Compression); 4] = [
    ("none", Compression::None),
    ("lz4", Compression::Lz4),
    ("zstd1", Compression::Zstd(1)),
    ("zstd3", Compression::Zstd(3)),
];

/// A block of events of about 250 bytes, as an API gateway would send them.
fn block(seed: u64) -> Block {
    let mut block = Block {
        partition: seed as u32 % 4,
        ..Block::default()
    };
    let mut record = Vec::new();
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for at in 0..RECORDS {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let high = random >> 16;
        let id = format!(
            "{high:012x}-{:04x}-4{:03x}-a{:03x}-{random:016x}",
            at,
            at * 7 % 4_096,
            high % 4_096
        );
        let subject = format!("customer-{:05}", high % 10_000);
        let data = format!(
            r#"{{"method":"POST","route":"/v1/objects/{{id}}","status":200,"bytes":"{}","region":"eu-central-{}"}}"#,
            high % 100_000,
            high % 3
        );
        let event = EventRecord {
            tenant: 1,
            source: "gateway/eu-central-1",
            id: &id,
            kind: "api.request",
            subject: &subject,
            time_us: 1_780_000_000_000_000 + (at * 997) as i64,
            time_sent: true,
            received_us: 1_780_000_000_100_000 + at as i64,
            data: &data,
            extensions: "",
            grant: None,
        };
        record.clear();
        encode(&Record::Event(event), &mut record);
        block.push(&record);
    }
    block
}

fn directory() -> tempfile::TempDir {
    let base = std::env::var_os("TURNPIKE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(base).expect("a directory for the bench")
}

fn open(directory: &Path, compression: Compression) -> Arc<SegmentedLog> {
    let options = LogOptions {
        compression,
        ..LogOptions::new(directory.join("log"))
    };
    let fail = Arc::new(FailPoints::default());
    SegmentedLog::open(
        options,
        Arc::new(RealDisk),
        Arc::new(MachineClock),
        &MachineRandomness,
        fail,
    )
    .expect("the log opens")
}

/// Appends `rounds` × 8 blocks from two threads, each of which waits for its 8 before it goes on: as partition owners do.
fn appends(log: &SegmentedLog, blocks: &[Block], rounds: u64) -> Duration {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            scope.spawn(move || {
                for _ in (thread..rounds).step_by(2) {
                    let mut behind = Position::START;
                    for block in blocks {
                        behind = log.append(block.clone()).expect("space").1;
                    }
                    log.wait_durable_blocking(behind).expect("durable");
                }
            });
        }
    });
    began.elapsed()
}

/// Writes the same bytes, 8 blocks a write, with `fdatasync` after each.
fn floor(file: &File, bytes: &[u8], rounds: u64, end: &mut u64) -> Duration {
    let began = Instant::now();
    for _ in 0..rounds {
        file.write_all_at(bytes, *end).expect("written");
        file.sync_data().expect("durable");
        *end += bytes.len() as u64;
    }
    began.elapsed()
}

fn durable(criterion: &mut Criterion) {
    let blocks: Vec<_> = (1..9).map(block).collect();
    let bytes: Vec<u8> = blocks
        .iter()
        .flat_map(|block| block.bytes.iter().copied())
        .collect();
    println!("bytes per record: {}", bytes.len() as u64 / (8 * RECORDS));
    let mut group = criterion.benchmark_group("log/durable");
    group.throughput(Throughput::Elements(8 * RECORDS));
    let directory = directory();
    let mut end = 0;
    let file = File::create(directory.path().join("floor")).expect("a file");
    group.bench_function("floor: write and fdatasync", |bencher| {
        bencher.iter_custom(|rounds| floor(&file, &bytes, rounds, &mut end));
    });
    file.set_len(0).expect("emptied");
    for (name, compression) in CHOICES {
        let directory = self::directory();
        let log = open(directory.path(), compression);
        group.bench_function(BenchmarkId::new("append and wait", name), |bencher| {
            bencher.iter_custom(|rounds| appends(&log, &blocks, rounds));
        });
    }
    group.finish();
}

fn reading(criterion: &mut Criterion) {
    let blocks: Vec<_> = (1..9).map(block).collect();
    let mut group = criterion.benchmark_group("log/read");
    for (name, compression) in CHOICES {
        let directory = directory();
        let log = open(directory.path(), compression);
        appends(&log, &blocks, 10);
        let stored = log.end().offset();
        println!("{name}: {} bytes a record on disk", stored / (80 * RECORDS));
        group.throughput(Throughput::Elements(80 * RECORDS));
        group.bench_function(BenchmarkId::new("all", name), |bencher| {
            bencher.iter(|| {
                log.read(Position::START, Only::ALL)
                    .map(|block| block.expect("whole").block.ends.len())
                    .sum::<usize>()
            });
        });
        group.bench_function(BenchmarkId::new("skip all", name), |bencher| {
            bencher.iter(|| log.read(Position::START, Only::partition(99)).count());
        });
    }
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group!(name = benches; config = short(); targets = durable, reading);
criterion_main!(benches);
