use super::*;

fn path() -> &'static Path {
    Path::new("/d/file")
}

fn file_with(disk: &FaultDisk, bytes: &[u8]) -> Box<dyn DiskFile> {
    let file = disk.create(path()).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_directory(Path::new("/d")).unwrap();
    file
}

#[test]
fn what_was_synced_survives_every_crash_and_the_rest_may_not() {
    let mut kept = [0_u32; 3];
    for seed in 0..50 {
        let disk = FaultDisk::new(seed);
        let file = file_with(&disk, &[1; 2_000]);
        file.write_at(&[2; 1_536], 2_048).unwrap();
        let after = disk.crash();
        assert!(file.sync().is_err(), "the old process cannot write");
        let bytes = after.contents(path()).unwrap();
        assert_eq!(bytes[..2_000], [1; 2_000]);
        for sector in bytes[2_000..].chunks(512) {
            kept[usize::from(sector.contains(&2))] += 1;
        }
    }
    assert!(kept[0] > 10 && kept[1] > 10, "{kept:?}");
}

#[test]
fn names_are_lost_unless_the_directory_was_synced() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk = FaultDisk::new(seed);
        file_with(&disk, b"kept");
        disk.create(Path::new("/d/other")).unwrap();
        let after = disk.crash();
        assert_eq!(after.contents(path()).as_deref(), Some(&b"kept"[..]));
        lost += u32::from(after.contents(Path::new("/d/other")).is_none());
    }
    assert!(lost > 2 && lost < 18, "{lost}");
}

#[test]
fn a_failed_sync_fails_once_and_no_later_one_heals_it() {
    let mut torn = 0;
    for seed in 0..20 {
        let disk = FaultDisk::new(seed);
        let file = file_with(&disk, &[1; 4_096]);
        disk.fail(Operation::Sync, 0);
        file.write_at(&[2; 4_096], 0).unwrap();
        assert!(file.sync().is_err());
        file.sync().unwrap();
        torn += u32::from(disk.crash().contents(path()).unwrap() != [2; 4_096]);
    }
    assert!(torn > 10, "{torn}");
}

#[test]
fn a_full_disk_takes_nothing_until_there_is_space() {
    let disk = FaultDisk::new(0);
    disk.set_capacity(1_000);
    let file = file_with(&disk, &[1; 900]);
    assert_eq!(disk.space(path()).unwrap(), (100, 1_000));
    let error = file.allocate(1_001).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(file.write_at(&[1; 101], 900).is_err());
    file.allocate(1_000).unwrap();
    disk.remove(path()).unwrap();
    assert_eq!(disk.space(path()).unwrap().0, 1_000);
    assert_eq!(disk.counts().full, 2);
}

#[test]
fn the_same_seed_gives_the_same_remains() {
    let run = |seed| {
        let disk = FaultDisk::new(seed);
        let file = file_with(&disk, &[1; 3_000]);
        for at in 0..20 {
            file.write_at(&[at; 700], u64::from(at) * 311).unwrap();
        }
        disk.crash().contents(path())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn nothing_changes_after_the_power_is_cut() {
    let disk = FaultDisk::new(0);
    let file = file_with(&disk, &[1; 10]);
    disk.cut_power_after(1);
    file.write_at(&[2; 10], 0).unwrap();
    assert!(file.sync().is_err());
    assert!(file.write_at(&[3; 10], 0).is_err());
    let after = disk.crash();
    let bytes = after.contents(path()).unwrap();
    assert!(bytes == [1; 10] || bytes == [2; 10], "{bytes:?}");
    assert_eq!(disk.kill().contents(path()).unwrap(), bytes);
}
