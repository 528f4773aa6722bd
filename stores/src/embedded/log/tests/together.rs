//! Blocks that are taken together are there together or not at all.

use super::*;
use crate::contract::log::{append, block, read_all};

fn together() -> Vec<Block> {
    let blocks = (0..5).map(|partition| block(partition, 40 + partition as usize));
    blocks.collect()
}

#[test]
fn a_loss_of_power_at_any_step_leaves_all_of_them_or_none() {
    let mut kept = [0, 0];
    for seed in 0..60 {
        for step in 0..4 {
            let disk = FaultDisk::new(seed);
            let log = open(&disk).unwrap();
            let first = append(&*log, block(9, 3));
            disk.cut_power_after(step);
            let placed = log.append_all(together());
            let acknowledged = placed
                .ok()
                .is_some_and(|placed| log.wait_durable_blocking(placed[4].1).is_ok());
            let disk = disk.crash();
            drop(log);
            let found = read_all(&*open(&disk).unwrap());
            assert_eq!(found[0], first);
            let blocks: Vec<_> = found[1..].iter().map(|stored| stored.block.clone()).collect();
            assert!(
                blocks == together() || (blocks.is_empty() && !acknowledged),
                "seed {seed}, step {step}: {} of 5 blocks",
                blocks.len()
            );
            kept[usize::from(blocks.is_empty())] += 1;
        }
    }
    println!(
        "240 losses of power: {} times all, {} times none",
        kept[0], kept[1]
    );
    assert!(kept[0] > 20 && kept[1] > 20, "{kept:?}");
}

#[test]
fn a_cut_at_every_byte_of_their_frame_leaves_all_of_them_or_none() {
    let disk = FaultDisk::new(0);
    let log = open(&disk).unwrap();
    let first = append(&*log, block(9, 3));
    let placed = log.append_all(together()).unwrap();
    log.wait_durable_blocking(placed[4].1).unwrap();
    let all = read_all(&*log);
    let disk = disk.kill();
    drop(log);
    let file = files(&disk).remove(0);
    let whole = disk.contents(&file).unwrap();
    let end = placed[4].1.offset() as usize;
    for cut in first.next.offset() as usize..=end {
        disk.put(&file, &whole[..cut]);
        let found = read_all(&*open(&disk.kill()).unwrap());
        let expected = if cut == end { &all[..] } else { &all[..1] };
        assert_eq!(found, expected, "cut at {cut}");
    }
}

#[test]
fn a_failure_between_two_of_them_takes_none() {
    for nth in 1..=5 {
        let disk = FaultDisk::new(0);
        let fail = FailPoints::parse(&format!("log.before_append:{nth}:error")).unwrap();
        let log = open_failing(options(DIRECTORY), disk.clone(), fail).unwrap();
        let end = log.end();
        assert!(log.append_all(together()).is_err());
        assert_eq!((log.end(), log.health()), (end, LogHealth::Healthy));
        log.append_all(together()).unwrap();
        log.close().unwrap();
        assert_eq!(read_all(&*open(&disk.kill()).unwrap()).len(), 5);
    }
}
