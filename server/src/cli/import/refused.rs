use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::CommandError;

/// Standard input as a file, which tells whether it was one.
const STANDARD_INPUT: &str = "/dev/stdin";

/// The file of refused rows; made when the first one comes.
pub(super) struct RefusedFile {
    path: PathBuf,
    out: Option<BufWriter<File>>,
}

impl RefusedFile {
    /// At `path`, or beside `input`; an error where that is one of the files that are `read`, under whatever name.
    pub(super) fn beside(
        input: &Path,
        path: Option<PathBuf>,
        mapping: Option<&Path>,
    ) -> Result<Self, CommandError> {
        let standard = input.as_os_str() == "-";
        let path = path.unwrap_or_else(|| {
            let name = if standard {
                "stdin".into()
            } else {
                input.as_os_str().to_owned()
            };
            let mut name = PathBuf::from(name).into_os_string();
            name.push(".refused.ndjson");
            name.into()
        });
        let input = if standard {
            Path::new(STANDARD_INPUT)
        } else {
            input
        };
        match [Some(input), mapping]
            .into_iter()
            .flatten()
            .find(|read| same(read, &path))
        {
            Some(read) => Err(CommandError::usage(format!(
                "the refused rows would overwrite {}, which is read; give another file with --refused",
                read.display()
            ))),
            None => Ok(Self { path, out: None }),
        }
    }

    pub(super) fn write(&mut self, row: &Value) -> Result<(), CommandError> {
        let out = match &mut self.out {
            Some(out) => out,
            None => self.out.insert(BufWriter::new(
                File::create(&self.path).map_err(|error| failed(&self.path, &error))?,
            )),
        };
        writeln!(out, "{row}").map_err(|error| failed(&self.path, &error))
    }

    /// The path, if anything was written.
    pub(super) fn finish(&mut self) -> Result<Option<PathBuf>, CommandError> {
        let Some(mut out) = self.out.take() else {
            return Ok(None);
        };
        out.flush().map_err(|error| failed(&self.path, &error))?;
        Ok(Some(self.path.clone()))
    }
}

/// Whether two paths lead to one file. What is not there, or cannot be looked at, is told when it is opened.
fn same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let meta = std::fs::metadata(path).ok().filter(Metadata::is_file)?;
        Some((meta.dev(), meta.ino()))
    };
    place(one).is_some_and(|one| place(other) == Some(one))
}

fn failed(path: &Path, error: &io::Error) -> CommandError {
    CommandError::failed(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (input, mapping) = (at("a.csv"), at("mapping.toml"));
        for file in [&input, &mapping] {
            std::fs::write(file, "kept").unwrap();
        }
        std::os::unix::fs::symlink(&input, at("soft")).unwrap();
        std::fs::hard_link(&input, at("hard")).unwrap();
        for name in ["a.csv", "soft", "hard", "mapping.toml"] {
            let refused = RefusedFile::beside(&input, Some(at(name)), Some(&mapping));
            let error = refused.err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.contains("--refused")), "{name}");
        }
        let mut beside = RefusedFile::beside(&input, None, Some(&mapping)).unwrap();
        assert_eq!(beside.finish(), Ok(None), "nothing is made for nothing");
        beside.write(&serde_json::json!({"row": 1})).unwrap();
        assert_eq!(beside.finish(), Ok(Some(at("a.csv.refused.ndjson"))));
        assert_eq!(
            std::fs::read_to_string(at("a.csv.refused.ndjson")).unwrap(),
            "{\"row\":1}\n"
        );
        assert_eq!(std::fs::read_to_string(&input).unwrap(), "kept");
    }
}
