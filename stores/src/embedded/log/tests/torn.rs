//! Torn ends are cut, damage is refused (R3).

use super::*;
use crate::contract::log::{append, block, read_all};
use crate::disk::DiskFile;
use crate::embedded::log::format::FRAME_HEADER;
use turnpike_domain::port::log::StoredBlock;

fn one_segment() -> LogOptions {
    LogOptions {
        segment_bytes: 1 << 30,
        ..options(DIRECTORY)
    }
}

/// A log of one segment whose process was killed, with a frame for each of its blocks.
fn killed(blocks: u32) -> (FaultDisk, Vec<StoredBlock>, PathBuf) {
    let disk = FaultDisk::new(0);
    let log = open_with(one_segment(), disk.clone()).unwrap();
    let stored = (1..=blocks)
        .map(|size| append(&*log, block(0, size as usize * 7)))
        .collect();
    let disk = disk.kill();
    drop(log);
    let file = files(&disk).remove(0);
    (disk, stored, file)
}

#[test]
fn cut_at_every_byte_of_the_last_group_all_before_it_is_there() {
    let (disk, stored, file) = killed(5);
    let whole = disk.contents(&file).unwrap();
    let (before, last) = stored.split_at(stored.len() - 1);
    let frame = last[0].position.offset() as usize - FRAME_HEADER;
    let end = last[0].next.offset() as usize;
    assert!(whole.len() > end, "space was taken ahead");
    let mut faults = 0;
    for cut in frame..=end {
        let zeroed: Vec<_> = whole
            .iter()
            .enumerate()
            .map(|(at, byte)| if at < cut { *byte } else { 0 })
            .collect();
        for bytes in [&whole[..cut], &zeroed] {
            disk.put(&file, bytes);
            let log = open(&disk.kill()).unwrap();
            let expected = if cut == end { &stored } else { before };
            assert_eq!(read_all(&*log), expected, "cut at {cut}");
            let more = append(&*log, block(1, 3));
            assert!(more.position >= expected.last().unwrap().next);
            assert_eq!(read_all(&*log).last(), Some(&more));
            faults += 1;
        }
    }
    println!("{faults} ends cut off");
    assert!(faults > 100);
}

#[test]
fn every_bit_turned_before_the_tail_is_found_and_its_place_named() {
    let (disk, _, file) = killed(40);
    // A clean stop leaves a seal as the tail.
    let disk = disk.kill();
    let log = open_with(one_segment(), disk.clone()).unwrap();
    while log.end().offset() < 64 * 1024 {
        let size = log.end().offset() as usize % 400 + 20;
        append(&*log, block(2, size));
    }
    let stored = read_all(&*log);
    log.close().unwrap();
    let disk = disk.kill();
    let bytes = disk.contents(&file).unwrap();
    assert!(bytes.len() >= 64 * 1024);
    let tail = (bytes.len() - FRAME_HEADER) as u64 * 8;
    let starts: Vec<_> = stored.iter().map(|stored| stored.position.offset()).collect();
    let threads = 2;
    let found: u64 = std::thread::scope(|scope| {
        let check = |thread| {
            let (bytes, file, starts) = (&bytes, &file, &starts);
            move || {
                let disk = FaultDisk::new(thread);
                disk.put(file, bytes);
                let mut found = 0;
                for bit in (thread..tail).step_by(threads) {
                    disk.flip(file, bit);
                    let result = recovery::chain(&disk, Path::new(DIRECTORY));
                    let Some(StoreError::Damaged(text)) = result.err() else {
                        panic!("bit {bit} turned over was not found");
                    };
                    disk.flip(file, bit);
                    found += u64::from(names_the_place(&text, file, bit / 8, starts));
                }
                found
            }
        };
        let threads: Vec<_> = (0..threads as u64)
            .map(|thread| scope.spawn(check(thread)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("{tail} bits turned over, {found} found and named");
    assert_eq!(found, tail);
}

/// Whether the error names the file and the start of the header or block that holds `byte`.
fn names_the_place(text: &str, file: &Path, byte: u64, starts: &[u64]) -> bool {
    assert!(text.contains(file.to_str().unwrap()), "{text}");
    let named = text
        .split("byte ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap();
    let named: u64 = named.parse().unwrap();
    let at = starts.partition_point(|start| *start <= byte);
    let block = at.checked_sub(1).map_or(0, |at| starts[at]);
    let next = starts.get(at).copied().unwrap_or(u64::MAX);
    // A frame's header stands before its first block.
    let within = named == 0 || named >= block && named < next;
    assert!(
        named <= byte && within && byte - named < 20_000,
        "byte {byte}: {text}"
    );
    true
}

#[test]
fn bits_turned_in_the_tail_cost_the_tail_only() {
    let (disk, stored, file) = killed(4);
    let (before, last) = stored.split_at(3);
    let whole = disk.contents(&file).unwrap();
    let frame = last[0].position.offset() - FRAME_HEADER as u64;
    for bit in frame * 8..last[0].next.offset() * 8 {
        disk.put(&file, &whole);
        disk.flip(&file, bit);
        let log = open(&disk.kill()).unwrap();
        assert_eq!(read_all(&*log), before);
    }
    println!("{}", disk.counts());
    assert!(disk.counts().flips > 1_000);
}

/// A log of several segments, stopped in good order.
fn segments() -> (FaultDisk, Vec<StoredBlock>) {
    let disk = FaultDisk::new(0);
    let log = open(&disk).unwrap();
    let mut noise = 1_u64;
    let mut stored = Vec::new();
    for _ in 0..100 {
        let mut block = block(0, 1);
        for _ in 0..100 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            block.push(&noise.to_be_bytes());
        }
        stored.push(append(&*log, block));
    }
    log.close().unwrap();
    assert!(files(&disk).len() > 4);
    (disk.kill(), stored)
}

#[test]
fn a_missing_segment_a_short_one_and_a_foreign_one_are_refused_by_name() {
    let (disk, _) = segments();
    let names = files(&disk);
    let middle = disk.contents(&names[2]).unwrap();
    disk.lose(&names[2]);
    let error = refused(&disk).to_string();
    assert!(
        error.contains("is missing") && error.contains(names[1].to_str().unwrap()),
        "{error}"
    );
    disk.put(&names[2], &middle[..middle.len() - 1]);
    assert!(refused(&disk).to_string().contains("is missing"));
    let foreign = FaultDisk::new(1);
    open(&foreign).unwrap().close().unwrap();
    let mut header = foreign.contents(&files(&foreign)[0]).unwrap()[..SEGMENT_HEADER].to_vec();
    disk.put(&names[2], &[&header, &middle[SEGMENT_HEADER..]].concat());
    assert!(
        refused(&disk)
            .to_string()
            .contains("not the offset in its header")
    );
    let found = SegmentHeader::decode(&header).unwrap();
    let start = segment::start_of(&names[2]).unwrap();
    header = SegmentHeader { start, ..found }.encode().to_vec();
    disk.put(&names[2], &[&header, &middle[SEGMENT_HEADER..]].concat());
    assert!(refused(&disk).to_string().contains("another log"));
    let newer = SegmentHeader {
        version: VERSION + 1,
        ..SegmentHeader::decode(&middle).unwrap()
    };
    disk.put(&names[2], &[&newer.encode(), &middle[SEGMENT_HEADER..]].concat());
    let error = refused(&disk);
    assert!(
        matches!(&error, StoreError::Failed(text) if text.contains("version 2")),
        "{error}"
    );
    disk.put(&names[2], &middle);
    assert!(open(&disk).is_ok());
}

#[test]
fn damage_in_an_earlier_segment_is_met_by_readers_and_by_verification() {
    let (disk, stored) = segments();
    let directory = Path::new(DIRECTORY);
    let mut steps = 0;
    let whole = verify(&disk, directory, &mut |done, total| {
        assert!(done <= total);
        steps += 1;
    });
    let whole = whole.unwrap();
    assert_eq!(
        (whole.blocks, whole.records, whole.torn_bytes),
        (100, 100 * 101, 0)
    );
    assert_eq!(whole.frames + 1, steps);
    let names = files(&disk);
    disk.flip(&names[1], 3_000);
    let error = verify(&disk, directory, &mut |_, _| {}).unwrap_err();
    assert!(matches!(&error, StoreError::Damaged(text) if text.contains(names[1].to_str().unwrap())));
    // A start looks at the newest segments: it finds damage as far as it looks, and a large log is not read whole.
    assert!(names.len() > 3, "{names:?}");
    let reaching = |checked_bytes| {
        let options = LogOptions {
            checked_bytes,
            ..options(DIRECTORY)
        };
        open_with(options, disk.kill())
    };
    assert_eq!(reaching(1 << 20).err(), Some(error.clone()));
    let later = disk.contents(&names[2]).unwrap().len() as u64;
    assert!(reaching(later).is_ok());
    let log = reaching(0).unwrap();
    let mut read = log.read(Position::START, Only::ALL);
    let good = read.by_ref().map_while(Result::ok).count();
    assert!(good > 0 && good < 100 && read.next().is_none());
    let errors = |blocks: Blocks<'_>| blocks.filter_map(Result::err).collect::<Vec<_>>();
    assert_eq!(
        errors(log.read(Position::START, Only::ALL)),
        std::slice::from_ref(&error)
    );
    assert_eq!(
        errors(log.read_back(log.end(), Only::ALL)),
        std::slice::from_ref(&error)
    );
    assert_eq!(log.fetch(stored[good].position), Err(error));
    assert!(log.fetch(stored[good + 1].position).is_ok());
}

#[test]
fn a_segment_whose_making_was_interrupted_is_made_again() {
    let (disk, stored) = segments();
    let end = open(&disk).unwrap().end().offset();
    let disk = disk.kill();
    let name = segment::path(Path::new(DIRECTORY), end);
    let header = SegmentHeader {
        version: VERSION,
        start: end,
        identity: 1,
        sequence: 1,
    }
    .encode();
    for len in 0..SEGMENT_HEADER {
        for space in [0, 300] {
            disk.put(&name, &[&header[..len], &vec![0; space]].concat());
            let log = open(&disk.kill()).unwrap();
            assert_eq!(disk.contents(&name), None);
            assert_eq!(read_all(&*log), stored);
        }
    }
    disk.put(&name, &[&header[..20], &[0; 100][..], b"x"].concat());
    assert!(
        matches!(refused(&disk.kill()), StoreError::Damaged(_)),
        "something was written there"
    );
}

/// The next one is made while the one before it waits for its header.
#[test]
fn two_segments_whose_making_was_interrupted_are_made_again() {
    let (disk, stored) = segments();
    let end = open(&disk).unwrap().end().offset();
    let disk = disk.kill();
    let names = [end, end + 40_000].map(|start| segment::path(Path::new(DIRECTORY), start));
    for space in [0, 300] {
        for name in &names {
            disk.put(name, &vec![0; space]);
        }
        let log = open(&disk.kill()).unwrap();
        assert_eq!(names.each_ref().map(|name| disk.contents(name)), [None, None]);
        assert_eq!(read_all(&*log), stored);
    }
    let header = SegmentHeader {
        version: VERSION,
        start: end + 40_000,
        identity: 1,
        sequence: 1,
    };
    disk.put(&names[0], &[0; 300]);
    disk.put(&names[1], &header.encode());
    let told = refused(&disk.kill());
    let first = names[0].to_str().unwrap();
    assert!(
        matches!(&told, StoreError::Damaged(text) if text.contains(first)),
        "one with a header was made behind it: {told}"
    );
}

#[test]
fn what_a_killed_process_left_in_the_cache_is_made_durable_before_it_is_built_upon() {
    let mut found = 0;
    for seed in 0..20 {
        let disk = FaultDisk::new(seed);
        let log = open(&disk).unwrap();
        append(&*log, block(0, 50));
        disk.fail(crate::fault::Operation::Sync, 0);
        let (_, next) = log.append(block(0, 300)).unwrap();
        assert!(log.wait_durable_blocking(next).is_err());
        let disk = disk.kill();
        let log = open(&disk).unwrap();
        let seen = read_all(&*log);
        found += u32::from(seen.len() == 2);
        let disk = disk.crash();
        assert_eq!(read_all(&*open(&disk).unwrap()), seen);
    }
    assert_eq!(found, 20, "the cache has what was written");
}

#[test]
fn bytes_that_a_sender_chose_are_not_taken_for_a_frame() {
    // A record that looks like a frame at its own place, but for the salt, in a frame that is torn.
    let disk = FaultDisk::new(0);
    let log = open_with(
        LogOptions {
            compression: Compression::None,
            ..options(DIRECTORY)
        },
        disk.clone(),
    )
    .unwrap();
    let kept = append(&*log, block(0, 3));
    let mut hostile = Block::default();
    for offset in 0..4_096 {
        hostile.push(
            &format::FrameHeader {
                offset,
                sequence: 3,
                body: 0,
                blocks: 0,
            }
            .encode(0),
        );
    }
    let torn = append(&*log, hostile);
    let disk = disk.kill();
    let name = &files(&disk)[0];
    disk.flip(name, (torn.next.offset() - 1) * 8);
    assert_eq!(read_all(&*open(&disk).unwrap()), [kept]);
}

#[test]
fn a_file_that_cannot_be_read_is_a_failure_not_damage() {
    let (disk, _) = segments();
    disk.fail(crate::fault::Operation::Read, 12);
    assert!(matches!(open(&disk).err(), Some(StoreError::Failed(_))));
    let file: Box<dyn DiskFile> = disk.open(&files(&disk)[0]).unwrap();
    assert!(file.len().unwrap() > 0);
}
