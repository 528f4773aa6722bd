//! Bytes that are not what was written are noticed, and the file is named.

use super::model::play;
use super::*;
use crate::contract::views::{checkpoint, entry, name, row};

/// Views with a few files of each kind.
fn written() -> (FaultDisk, Vec<std::path::PathBuf>) {
    let disk = FaultDisk::new(0);
    let views = open_on(&disk, FailPoints::default()).unwrap();
    play(&views, |_| {}).unwrap();
    drop(views);
    let files = disk.list(Path::new("/views/partition-00003")).unwrap();
    for kind in ["ids-", "rows-", "meta-", "manifest"] {
        assert!(
            files.iter().any(|file| file.to_string_lossy().contains(kind)),
            "{files:?}"
        );
    }
    (disk, files)
}

fn open_and_read(disk: &FaultDisk) -> Result<(), StoreError> {
    open_on(disk, FailPoints::default())?.verify()
}

/// The name that an error should have in it.
fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn a_flipped_bit_in_any_byte_is_noticed() {
    let (disk, files) = written();
    open_and_read(&disk).unwrap();
    for file in files {
        let len = disk.contents(&file).unwrap().len() as u64;
        // Every byte of small files, and of large ones as many, spread evenly, with both ends.
        let step = (len / 1_500).max(1);
        for byte in (0..len).filter(|byte| byte % step == 0 || *byte < 100 || *byte + 200 > len) {
            let bit = byte * 8 + byte % 8;
            disk.flip(&file, bit);
            let error = open_and_read(&disk).expect_err("a flipped bit");
            let text = error.to_string();
            assert!(text.contains(file_name(&file)), "{text}");
            // The bytes of a version may read as a newer one; all else is damage, with its offset.
            let versioned = (8..12).contains(&byte) || (len - 80..len - 76).contains(&byte);
            assert!(
                matches!(error, StoreError::Damaged(_)) && text.contains("at offset") || versioned,
                "{text}"
            );
            disk.flip(&file, bit);
        }
    }
    open_and_read(&disk).unwrap();
    assert!(disk.counts().flips > 5_000);
}

#[test]
fn a_cut_or_missing_file_is_noticed() {
    let (disk, files) = written();
    for file in files {
        let bytes = disk.contents(&file).unwrap();
        for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            disk.put(&file, &bytes[..len]);
            let error = open_and_read(&disk).expect_err("a cut file");
            assert!(
                matches!(&error, StoreError::Damaged(text) if text.contains(file_name(&file))),
                "{error}"
            );
        }
        if file_name(&file) != "manifest" {
            disk.lose(&file);
            let error = open_and_read(&disk).expect_err("a missing file");
            assert!(
                matches!(&error, StoreError::Damaged(text) if text.contains(file_name(&file)) && text.contains("missing")),
                "{error}"
            );
        }
        disk.put(&file, &bytes);
    }
    open_and_read(&disk).unwrap();
}

#[test]
fn damage_met_while_reading_is_an_error() {
    let disk = FaultDisk::new(0);
    let views = open_on(&disk, FailPoints::default()).unwrap();
    views.remember(&[(name(1), entry(1, 1))]).unwrap();
    views.begin_checkpoint().unwrap();
    checkpoint(views.as_ref(), 1, vec![row("a", 1)], vec![]).unwrap();
    drop(views);
    for file in disk.list(Path::new("/views/partition-00003")).unwrap() {
        if file_name(&file) != "manifest" {
            disk.flip(&file, 50);
        }
    }
    let views = open_on(&disk, FailPoints::default()).unwrap();
    let error = views.probe(&[name(1)]).unwrap_err();
    assert!(
        matches!(&error, StoreError::Damaged(text) if text.contains("ids-") && text.contains("at offset 0"))
    );
    let rows: Vec<_> = views.rows().scan_back(vec![]..b"~".to_vec()).collect();
    assert!(
        matches!(&rows[..], [Err(StoreError::Damaged(text))] if text.contains("rows-") && text.contains("at offset 0"))
    );
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (disk, files) = written();
    for file in files {
        let bytes = disk.contents(&file).unwrap();
        let version_at = match file_name(&file) {
            "manifest" => 8,
            name if name.starts_with("meta-") => continue,
            _ => bytes.len() - 80,
        };
        let mut newer = bytes.clone();
        newer[version_at] += 1;
        disk.put(&file, &newer);
        let error = open_and_read(&disk).unwrap_err().to_string();
        assert!(
            error.contains(file_name(&file))
                && error.contains(&format!("format version {}", newer[version_at]))
                && error.contains("newer program"),
            "{error}"
        );
        disk.put(&file, &bytes);
    }
}

#[test]
fn another_partitions_manifest_is_refused() {
    let (disk, _) = written();
    let bytes = disk
        .contents(Path::new("/views/partition-00003/manifest"))
        .unwrap();
    disk.put(Path::new("/views/partition-00004/manifest"), &bytes);
    let options = ViewsOptions {
        partition: 4,
        ..options(Path::new("/views"))
    };
    let opened = EmbeddedViews::open(
        options,
        Arc::new(AddValues),
        Arc::new(disk.clone()),
        Arc::new(FailPoints::default()),
    );
    let error = opened.err().unwrap().to_string();
    assert!(error.contains("belongs to partition 3, not 4"), "{error}");
}

#[test]
fn foreign_files_are_left_alone_and_leftovers_removed() {
    let (disk, files) = written();
    let path = |name: &str| Path::new("/views/partition-00003").join(name);
    for name in [
        "notes.txt",
        "ids-old.run",
        "manifest.new",
        "ids-00000000000fffff.run",
        "meta-0000000000000001.bin",
    ] {
        disk.put(&path(name), b"something");
    }
    let views = open_on(&disk, FailPoints::default()).unwrap();
    let mut left = disk.list(Path::new("/views/partition-00003")).unwrap();
    left.retain(|file| !files.contains(file));
    assert_eq!(left, [path("ids-old.run"), path("notes.txt")]);
    checkpoint(views.as_ref(), 100, vec![row("a", 1)], vec![]).unwrap();
}
