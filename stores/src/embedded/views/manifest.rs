//! The manifest of a partition's views: which runs belong together, and the log position that they contain.
//!
//! It is replaced as a whole: the new one is written beside it and made durable, together with the names of all that
//! it names, then renamed over the old one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bincode::error::DecodeError;
use bincode::{Decode, Encode};
use turnpike_domain::port::StoreError;
use turnpike_domain::record::Position;

use super::bytes::Reader;
use super::file::{Directory, StoredFile, damaged};
use super::version::meta_file_name;
use super::{ids, rows};
use crate::disk::Disk;
use crate::width::in_memory;

/// The name of the manifest.
pub(super) const FILE_NAME: &str = "manifest";
/// The name of the next one, until it is complete.
pub(super) const NEW_FILE_NAME: &str = "manifest.new";
/// The version of the format of manifests. Version 1 did not name the log.
pub(super) const VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"TURNMANI";
const HEADER_LEN: usize = 24;
/// Bytes of the owner's meta up to which it stands in the manifest itself.
pub(super) const META_INLINE_BYTES_MAX: usize = 4 * 1024;

/// A run as a manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct RunName {
    /// The number in its file's name.
    pub(super) number: u64,
    /// Bytes of the file.
    pub(super) len: u64,
    /// Entries or rows in it.
    pub(super) entries: u64,
    /// Checksum that its footer ends with.
    pub(super) checksum: u32,
}

/// Where the owner's meta is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum MetaName {
    /// 0: here.
    Inline(Vec<u8>),
    /// 1: in a file of its own.
    File {
        /// The number in the file's name.
        number: u64,
        /// Bytes.
        len: u64,
        /// CRC-32C of the bytes.
        checksum: u32,
    },
}

/// A manifest. The order of the fields is the persisted format.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Manifest {
    /// The partition.
    pub(super) partition: u32,
    /// The log position that the views contain.
    pub(super) position: u64,
    /// What the owner stored with it.
    pub(super) meta: MetaName,
    /// Runs of ids, newest first.
    pub(super) ids: Vec<RunName>,
    /// Runs of rows, newest first.
    pub(super) rows: Vec<RunName>,
    /// Identity of the log that the views are derived from; unknown in what version 1 wrote.
    pub(super) log: Option<u64>,
}

/// The fields of a manifest of version 1, in their order.
type BodyV1 = (u32, u64, MetaName, Vec<RunName>, Vec<RunName>);

/// Looks into the views of a partition, as their last finished checkpoint left them: the log position that they contain.
/// Changes nothing.
///
/// # Errors
/// [`StoreError::Damaged`] names the file and offset where the manifest is not what was written, or is of another log than
/// the one with identity `log`.
pub fn look(
    disk: &Arc<dyn Disk>,
    views: &Path,
    partition: u32,
    log: Option<u64>,
) -> Result<Position, StoreError> {
    let directory = Directory::existing(Arc::clone(disk), views, partition);
    let Some(manifest) = Manifest::read(&directory, partition)? else {
        return Ok(Position::START);
    };
    refuse_other_log(&directory, manifest.log, log)?;
    Ok(Position(manifest.position))
}

/// The files of a partition's last finished checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where they are.
    pub directory: PathBuf,
    /// The name of the manifest's file, which is replaced as a whole, and its bytes.
    pub manifest: (&'static str, Vec<u8>),
    /// The names of the files that it names, which are never written to again. A process that has the views open removes
    /// them once a later manifest no longer names them.
    pub files: Vec<String>,
}

/// What is published of a partition, for those who copy it; `None` where nothing is yet. Changes nothing.
///
/// # Errors
/// As [`look`].
pub fn published(
    disk: &Arc<dyn Disk>,
    views: &Path,
    partition: u32,
) -> Result<Option<Published>, StoreError> {
    let directory = Directory::existing(Arc::clone(disk), views, partition);
    let read = Manifest::read_with_bytes(&directory, partition)?;
    Ok(read.map(|(manifest, bytes)| Published {
        directory: directory.path().to_owned(),
        manifest: (FILE_NAME, bytes),
        files: manifest.files(),
    }))
}

/// Refuses views of another log than the one with identity `log`: what they count is not in it.
pub(super) fn refuse_other_log(
    directory: &Directory,
    found: Option<u64>,
    log: Option<u64>,
) -> Result<(), StoreError> {
    match (found, log) {
        (Some(found), Some(log)) if found != log => Err(damaged(
            &directory.path_of(FILE_NAME),
            0,
            &format!(
                "the views are derived from another log ({found:016x}) than the one beside them ({log:016x}); restore \
                 views/ and log/ from the same backup"
            ),
        )),
        _ => Ok(()),
    }
}

impl Manifest {
    /// Writes it as the next manifest, and makes durable all that has been made in the directory.
    pub(super) fn write(&self, directory: &Directory) -> Result<(), StoreError> {
        directory.remove(NEW_FILE_NAME)?;
        let mut writer = directory.create(NEW_FILE_NAME)?;
        writer.push(&self.encode()?)?;
        let file = writer.finish()?;
        directory.sync()?;
        file.keep();
        Ok(())
    }

    /// Puts the next manifest in place of the current one. After an error it is unknown which of the two is found by the
    /// next start.
    pub(super) fn install(directory: &Directory) -> Result<(), StoreError> {
        directory.rename(NEW_FILE_NAME, FILE_NAME)?;
        directory.sync()
    }

    /// Reads the current manifest; `None` where there is none yet.
    pub(super) fn read(directory: &Directory, partition: u32) -> Result<Option<Self>, StoreError> {
        Ok(Self::read_with_bytes(directory, partition)?.map(|(manifest, _)| manifest))
    }

    /// The same with the bytes of its file.
    fn read_with_bytes(directory: &Directory, partition: u32) -> Result<Option<(Self, Vec<u8>)>, StoreError> {
        if !directory.names()?.iter().any(|name| name == FILE_NAME) {
            return Ok(None);
        }
        let file = directory.open_any(FILE_NAME)?;
        let bytes = file.read(0, in_memory(file.len()?))?;
        Ok(Some((Self::parse(&file, &bytes, partition)?, bytes)))
    }

    fn parse(file: &StoredFile, bytes: &[u8], partition: u32) -> Result<Self, StoreError> {
        let bad = |offset: usize, what: &str| Err(file.damaged(offset as u64, what));
        let mut reader = Reader::new(bytes);
        if reader.array() != Some(MAGIC) {
            return bad(0, "this is no manifest");
        }
        let version = reader.u32().unwrap_or_default();
        super::check_version(file.path(), version, VERSION)?;
        let (Some(checksum), Some(len)) = (reader.u32(), reader.u64()) else {
            return bad(bytes.len(), "the manifest is cut short");
        };
        let body = &bytes[HEADER_LEN..];
        if body.len() as u64 != len {
            return bad(16, "the manifest has another length than it says");
        }
        if crc32c::crc32c(body) != checksum {
            return bad(HEADER_LEN, "the checksum of the manifest does not match");
        }
        let (manifest, read) = match Self::decode(version, body) {
            Ok(decoded) => decoded,
            Err(error) => return bad(HEADER_LEN, &format!("the manifest cannot be read: {error}")),
        };
        if read != body.len() {
            return bad(HEADER_LEN + read, "there are bytes behind the manifest's end");
        }
        if manifest.partition != partition {
            let other = manifest.partition;
            return bad(
                HEADER_LEN,
                &format!("the manifest belongs to partition {other}, not {partition}"),
            );
        }
        Ok(manifest)
    }

    /// The manifest in `body`, and the bytes that it takes.
    fn decode(version: u32, body: &[u8]) -> Result<(Self, usize), DecodeError> {
        let standard = bincode::config::standard();
        if version >= 2 {
            return bincode::decode_from_slice(body, standard);
        }
        let ((partition, position, meta, ids, rows), read): (BodyV1, usize) =
            bincode::decode_from_slice(body, standard)?;
        let manifest = Self {
            partition,
            position,
            meta,
            ids,
            rows,
            log: None,
        };
        Ok((manifest, read))
    }

    /// The names of the files that it names.
    fn files(&self) -> Vec<String> {
        let meta = match self.meta {
            MetaName::Inline(_) => None,
            MetaName::File { number, .. } => Some(meta_file_name(number)),
        };
        let ids = self.ids.iter().map(|run| ids::file_name(run.number));
        let rows = self.rows.iter().map(|run| rows::file_name(run.number));
        meta.into_iter().chain(ids).chain(rows).collect()
    }

    fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let body = bincode::encode_to_vec(self, bincode::config::standard())
            .map_err(|error| StoreError::Failed(format!("encoding a manifest: {error}")))?;
        let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }
}
