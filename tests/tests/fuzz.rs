//! R24 on each change: the kept corpora of the fuzz targets, and mutations of them, through the same entries.

use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use turnpike_tests::fuzz::{TARGETS, Target};
use turnpike_tests::run::{seed, times};

/// Texts that mean something to one reader or another.
const WORDS: [&str; 24] = [
    "0",
    "-1",
    "1e400",
    "1e-400",
    "9223372036854775808",
    "99999999999999999999999999",
    "0.0000000000001",
    "null",
    "true",
    "\"\"",
    "{}",
    "[]",
    "{\"a\":",
    "\\ud800",
    "\\u0000",
    "\u{feff}",
    "\r\n",
    "\n\n",
    ",",
    "$.a",
    "[0]",
    "''",
    "#",
    "\u{7f}",
];

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a root");
    let folder = root.join("fuzz/corpus").join(target.name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let read = |path: PathBuf| (path.clone(), std::fs::read(path).expect("a file"));
    files.into_iter().map(read).collect()
}

/// Shows the input that broke a promise.
struct Shown<'a>(&'a Path, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("from {}: b\"{}\"", self.0.display(), self.1.escape_ascii());
        }
    }
}

fn enter(target: &Target, path: &Path, input: &[u8]) -> bool {
    let _shown = Shown(path, input);
    (target.enter)(input)
}

/// One or two small changes; `other` is another file of the corpus.
fn mutated(input: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.random_range(1..=2) {
        let at = random.random_range(0..=bytes.len());
        let to = (at + random.random_range(0..=16)).min(bytes.len());
        let digit = bytes.iter().skip(at).position(u8::is_ascii_digit);
        match (random.random_range(0..8), digit) {
            (0, _) if at < bytes.len() => bytes[at] = random.random(),
            (1, _) if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            (2, _) => drop(bytes.drain(at..to)),
            (3, _) => drop(bytes.splice(at..at, bytes[at..to].to_vec())),
            (4, _) => {
                let from = random.random_range(0..=other.len());
                let until = (from + random.random_range(0..=32)).min(other.len());
                drop(bytes.splice(at..to, other[from..until].iter().copied()));
            }
            (5..8, Some(digit)) => bytes[at + digit] = random.random_range(b'0'..=b'9'),
            _ => drop(bytes.splice(at..to, WORDS[random.random_range(0..WORDS.len())].bytes())),
        }
    }
    bytes
}

/// The corpus has enough of what is taken and of what is refused, and nothing made from it breaks a promise.
fn run(name: &str) {
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target");
    let files = corpus(target);
    let taken = files
        .iter()
        .filter(|(path, input)| enter(target, path, input))
        .count();
    assert!(
        taken >= 10,
        "{taken} of {} files of {name} are taken",
        files.len()
    );
    assert!(
        files.len() - taken >= 5,
        "{taken} of {} files of {name} are taken",
        files.len()
    );
    let mut random = StdRng::seed_from_u64(seed(&format!("--test fuzz r24_{name}"), 24));
    let (mut entered, mut meant) = (0, 0);
    for _ in 0..times(30, 1_000) {
        for (path, input) in &files {
            let other = &files[random.random_range(0..files.len())].1;
            let input = mutated(input, other, &mut random);
            meant += usize::from(enter(target, path, &input));
            entered += 1;
        }
    }
    println!(
        "{name}: {} files, {entered} mutations, {meant} of them taken",
        files.len()
    );
    assert!(
        meant * 20 > entered,
        "{meant} of {entered} mutations are taken: they break too much"
    );
}

#[test]
fn r24_config() {
    run("config");
}

#[test]
fn r24_events() {
    run("events");
}

#[test]
fn r24_log() {
    run("log");
}

#[test]
fn r24_meters() {
    run("meters");
}

#[test]
fn r24_prices() {
    run("prices");
}

#[test]
fn every_target_has_its_binary_and_its_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a root");
    let manifest = std::fs::read_to_string(root.join("fuzz/Cargo.toml")).expect("the manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let binaries = manifest["bin"].as_array().expect("binaries").iter();
    let mut binaries: Vec<_> = binaries
        .map(|bin| bin["name"].as_str().expect("a name").to_owned())
        .collect();
    binaries.sort();
    let folders = std::fs::read_dir(root.join("fuzz/corpus")).expect("the corpora");
    let mut folders: Vec<_> = folders
        .map(|folder| {
            folder
                .expect("a folder")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    folders.sort();
    let targets: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(binaries, targets);
    assert_eq!(folders, targets);
}
