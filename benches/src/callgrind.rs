//! Instruction counts under valgrind's callgrind, which do not depend on the machine's mood, beside those that are kept in
//! `benches/instructions.txt`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The error of a count: told to the person who ran it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A count may be so many hundredths above the kept one.
const RISE_MAX: u64 = 5;

/// Whether counting is possible on this machine.
pub fn is_here() -> bool {
    let said = Command::new("callgrind_control").arg("--version").output();
    said.is_ok_and(|said| said.status.success())
}

/// What runs `program` under callgrind, which writes its counts to files named after `out`.
pub fn command(program: &Path, out: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program);
    command
}

/// Counts from here on in the process `pid`.
pub fn zero(pid: u32) -> Result<(), Failure> {
    control("--zero", pid)
}

/// The instructions of all threads of the process `pid` since [`zero`], by the dump that is the first to `out`.
pub fn counted(pid: u32, out: &Path) -> Result<u64, Failure> {
    control("--dump", pid)?;
    let mut dump = out.as_os_str().to_owned();
    dump.push(".1");
    let text = std::fs::read_to_string(&dump)?;
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("callgrind's file has no totals")?.trim().parse()?)
}

fn control(what: &str, pid: u32) -> Result<(), Failure> {
    let status = Command::new("callgrind_control")
        .args([what, &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("callgrind_control {what} failed: {status}").into())
    }
}

/// The counts that are kept in the repository, each with the reason of its last change.
pub struct Kept {
    path: PathBuf,
    counts: BTreeMap<String, (u64, String)>,
}

impl Kept {
    /// Those of `benches/instructions.txt`.
    pub fn read() -> Result<Self, Failure> {
        Self::read_from(Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt"))
    }

    fn read_from(path: PathBuf) -> Result<Self, Failure> {
        let mut counts = BTreeMap::new();
        for line in std::fs::read_to_string(&path)?.lines() {
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let mut words = line.splitn(3, ' ').map(str::trim);
            let (Some(name), Some(count), Some(reason)) = (words.next(), words.next(), words.next()) else {
                return Err(format!("{}: {line:?} has no name, count and reason", path.display()).into());
            };
            counts.insert(name.to_owned(), (count.parse()?, reason.to_owned()));
        }
        Ok(Self { path, counts })
    }

    /// Prints what was counted beside what is kept. With a `reason` it is kept from now on; without one, a rise of more than
    /// 5 % is an error, and so is a count of which nothing is kept.
    pub fn compare(&mut self, counted: &[(&str, u64)], reason: Option<&str>) -> Result<(), Failure> {
        let mut risen = Vec::new();
        println!("what\tinstructions\tkept\tof it");
        for (name, count) in counted {
            let kept = self.counts.get(*name).map(|(kept, _)| *kept);
            let hundredths = kept.map_or(0, |kept| count * 100 / kept.max(1));
            println!("{name}\t{count}\t{}\t{hundredths} %", kept.unwrap_or(0));
            if kept.is_none_or(|kept| *count > kept + kept * RISE_MAX / 100) {
                risen.push(*name);
            }
            if let Some(reason) = reason {
                self.counts
                    .insert((*name).to_owned(), (*count, reason.to_owned()));
            }
        }
        if reason.is_some() {
            return self.write();
        }
        if risen.is_empty() {
            return Ok(());
        }
        let names = risen.join(", ");
        Err(format!(
            "{names}: more than {RISE_MAX} % above benches/instructions.txt; where it must be so, count again with --keep and the reason"
        )
        .into())
    }

    fn write(&self) -> Result<(), Failure> {
        let mut text =
            String::from("# Instructions of the hot paths: what, how many, why the last change.\n");
        for (name, (count, reason)) in &self.counts {
            writeln!(text, "{name} {count} {reason}")?;
        }
        Ok(std::fs::write(&self.path, text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rise_is_an_error_until_its_reason_is_kept() -> Result<(), Failure> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("kept.txt");
        std::fs::write(&path, "# a comment\n\ncheck 1000 first count\n")?;
        let mut kept = Kept::read_from(path.clone())?;
        kept.compare(&[("check", 1_050)], None)?;
        kept.compare(&[("check", 10)], None)?;
        for too_much in [("check", 1_051), ("event", 1)] {
            let error = kept.compare(&[too_much], None).unwrap_err().to_string();
            assert!(error.starts_with(too_much.0), "{error}");
        }
        kept.compare(&[("check", 2_000), ("event", 7)], Some("it does more"))?;
        let mut kept = Kept::read_from(path.clone())?;
        kept.compare(&[("check", 2_100), ("event", 7)], None)?;
        assert!(kept.compare(&[("check", 2_101)], None).is_err());
        std::fs::write(&path, "check 7\n")?;
        assert!(Kept::read_from(path).is_err(), "a count without a reason");
        Ok(())
    }
}
