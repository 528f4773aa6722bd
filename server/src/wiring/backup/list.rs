//! The list of a backup's files: what makes a directory a backup.

use std::fs;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use turnpike_domain::time::Timestamp;

use super::BackupError;
use crate::wiring::data_dir::BACKUP;

/// The layout of backups. A program refuses one of a newer version by name.
const FORMAT_VERSION: u32 = 1;

/// `backup.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    format_version: u32,
    /// The program that took it.
    turnpike: String,
    /// The instant that it shows.
    pub(crate) taken_at: Timestamp,
    /// What of the event log it has.
    pub(crate) log: LogPart,
    /// The files, by their paths as in a data directory.
    pub(crate) files: Vec<Entry>,
    /// BLAKE3 of this list with nothing in this place, hexadecimal.
    blake3: String,
}

/// A part of the event log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogPart {
    /// The log's identity, hexadecimal.
    pub(crate) identity: String,
    /// The offset of its first byte.
    pub(crate) first: u64,
    /// The offset behind its last byte.
    pub(crate) end: u64,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// BLAKE3 of its bytes, hexadecimal.
    pub(crate) blake3: String,
}

/// What every version of the list says.
#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

impl List {
    pub(super) fn new(taken_at: Timestamp, log: LogPart, files: Vec<Entry>) -> Self {
        let mut list = Self {
            format_version: FORMAT_VERSION,
            turnpike: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at,
            log,
            files,
            blake3: String::new(),
        };
        list.blake3 = list.checksum();
        list
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// As it is kept.
    pub(super) fn text(&self) -> String {
        // Texts and numbers can always be written.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    fn checksum(&self) -> String {
        let bare = Self {
            blake3: String::new(),
            ..self.clone()
        };
        blake3::hash(bare.text().as_bytes()).to_hex().to_string()
    }

    /// The list of the backup in a directory.
    ///
    /// # Errors
    /// Where there is none, where a newer program wrote it, and where a byte of it is not what was written.
    pub(super) fn read(backup: &Path) -> Result<Self, BackupError> {
        let path = backup.join(BACKUP);
        if !path.exists() {
            return Err(BackupError::NoBackup(backup.to_owned()));
        }
        let damaged = |reason: String| BackupError::Damaged {
            path: path.clone(),
            reason,
        };
        let bytes = fs::read(&path).map_err(BackupError::io("reading", &path))?;
        let text = String::from_utf8(bytes).map_err(|_| damaged("it is not UTF-8".to_owned()))?;
        let version: Version = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if version.format_version > FORMAT_VERSION {
            return Err(BackupError::Newer {
                path,
                found: version.format_version,
                known: FORMAT_VERSION,
            });
        }
        let list: Self = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if list.text() != text || list.checksum() != list.blake3 {
            return Err(damaged("its checksum does not match".to_owned()));
        }
        if let Some(entry) = list.files.iter().find(|entry| !is_below(&entry.path)) {
            return Err(damaged(format!(
                "{:?} is no path of a data directory",
                entry.path
            )));
        }
        Ok(list)
    }
}

/// Whether a path leads down only.
fn is_below(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    !path.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(path: &str) -> List {
        let log = LogPart {
            identity: "00".to_owned(),
            first: 0,
            end: 64,
        };
        let entry = Entry {
            path: path.to_owned(),
            bytes: 3,
            blake3: "ab".to_owned(),
        };
        List::new(
            Timestamp::from_micros_clamped(1_767_225_600_123_456),
            log,
            vec![entry],
        )
    }

    fn read(text: &[u8]) -> Result<List, BackupError> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(BACKUP), text).unwrap();
        List::read(directory.path())
    }

    #[test]
    fn it_is_read_as_it_was_written_and_every_byte_is_held() {
        let written = list("log/x");
        let text = written.text();
        assert_eq!(read(text.as_bytes()).unwrap(), written);
        for at in 0..text.len() {
            for bit in [0x01, 0x10, 0x80] {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= bit;
                let refused = read(&bytes).unwrap_err();
                assert!(refused.to_string().contains(BACKUP), "{at}: {refused}");
            }
        }
        assert!(read(&text.as_bytes()[..text.len() - 1]).is_err());
    }

    #[test]
    fn a_newer_one_is_refused_by_name_whatever_else_it_holds() {
        let refused = read(br#"{"format_version": 2, "other": []}"#)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("backup.json") && refused.contains("version 2"),
            "{refused}"
        );
        assert!(refused.contains("newer"), "{refused}");
    }

    #[test]
    fn no_path_leads_out_of_the_directory() {
        for path in ["../x", "/etc/x", "log/../../x", "", "./x"] {
            let refused = read(list(path).text().as_bytes());
            assert!(matches!(refused, Err(BackupError::Damaged { .. })), "{path}");
        }
    }
}
