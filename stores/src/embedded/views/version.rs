//! What the views are at one moment: immutable, and exactly what one manifest says.

use std::sync::Arc;

use turnpike_domain::port::StoreError;
use turnpike_domain::record::Position;

use super::file::{Directory, StoredFile};
use super::ids::IdRun;
use super::manifest::{META_INLINE_BYTES_MAX, Manifest, MetaName, RunName};
use super::rows::RowRun;
use crate::width::in_memory;

/// The runs and the rest of a manifest, open.
#[derive(Clone)]
pub(super) struct Version {
    /// The log position that is contained.
    pub(super) position: Position,
    /// What the owner stored with it.
    pub(super) meta: Arc<Meta>,
    /// Runs of ids, newest first.
    pub(super) ids: Vec<Arc<IdRun>>,
    /// Runs of rows, newest first.
    pub(super) rows: Vec<Arc<RowRun>>,
    /// Identity of the log that it is derived from, where it is known.
    pub(super) log: Option<u64>,
}

/// What the owner stored.
pub(super) struct Meta {
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    /// Number and file, when it is too large for the manifest.
    file: Option<(u64, StoredFile)>,
}

/// The name of the file of the owner's meta.
pub(super) fn meta_file_name(number: u64) -> String {
    format!("meta-{number:016x}.bin")
}

impl Meta {
    /// Makes `bytes` durable, in a file with `number` when they are large.
    pub(super) fn store(directory: &Directory, number: u64, bytes: Vec<u8>) -> Result<Self, StoreError> {
        let file = if bytes.len() > META_INLINE_BYTES_MAX {
            let mut writer = directory.create(&meta_file_name(number))?;
            writer.push(&bytes)?;
            Some((number, writer.finish()?))
        } else {
            None
        };
        Ok(Self { bytes, file })
    }

    /// Whether it was too large for the manifest.
    pub(super) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    fn open(directory: &Directory, name: MetaName) -> Result<Self, StoreError> {
        let (number, len, checksum) = match name {
            MetaName::Inline(bytes) => return Ok(Self { bytes, file: None }),
            MetaName::File {
                number,
                len,
                checksum,
            } => (number, len, checksum),
        };
        let file = directory.open_file(&meta_file_name(number), len)?;
        let bytes = file.read(0, in_memory(len))?;
        if crc32c::crc32c(&bytes) != checksum {
            return Err(file.damaged(0, "the checksum of the owner's meta does not match"));
        }
        Ok(Self {
            bytes,
            file: Some((number, file)),
        })
    }

    fn name(&self) -> MetaName {
        match &self.file {
            None => MetaName::Inline(self.bytes.clone()),
            Some((number, _)) => MetaName::File {
                number: *number,
                len: self.bytes.len() as u64,
                checksum: crc32c::crc32c(&self.bytes),
            },
        }
    }
}

impl Version {
    /// Nothing.
    fn empty() -> Self {
        Self {
            position: Position::START,
            meta: Arc::new(Meta {
                bytes: Vec::new(),
                file: None,
            }),
            ids: Vec::new(),
            rows: Vec::new(),
            log: None,
        }
    }

    /// Opens the last one that was published; the empty one where none was.
    pub(super) fn last(directory: &Directory, partition: u32) -> Result<Self, StoreError> {
        Manifest::read(directory, partition)?
            .map_or_else(|| Ok(Self::empty()), |manifest| Self::open(directory, manifest))
    }

    /// Opens what `manifest` names.
    fn open(directory: &Directory, manifest: Manifest) -> Result<Self, StoreError> {
        let ids = manifest.ids.into_iter();
        let rows = manifest.rows.into_iter();
        Ok(Self {
            position: Position(manifest.position),
            meta: Arc::new(Meta::open(directory, manifest.meta)?),
            ids: ids
                .map(|named| IdRun::open(directory, named).map(Arc::new))
                .collect::<Result<_, _>>()?,
            rows: rows
                .map(|named| RowRun::open(directory, named).map(Arc::new))
                .collect::<Result<_, _>>()?,
            log: manifest.log,
        })
    }

    /// Reads all of its runs and compares them with their checksums.
    pub(super) fn verify(&self) -> Result<(), StoreError> {
        self.ids.iter().try_for_each(|run| run.verify())?;
        self.rows.iter().try_for_each(|run| run.verify())
    }

    /// The manifest that names it.
    pub(super) fn manifest(&self, partition: u32) -> Manifest {
        Manifest {
            partition,
            position: self.position.0,
            meta: self.meta.name(),
            ids: self.ids.iter().map(|run| run.named()).collect(),
            rows: self.rows.iter().map(|run| run.named()).collect(),
            log: self.log,
        }
    }

    /// Its files by their names.
    pub(super) fn files(&self) -> impl Iterator<Item = (String, &StoredFile)> {
        let meta = self.meta.file.iter().map(|(_, file)| file);
        meta.chain(self.ids.iter().map(|run| run.file()))
            .chain(self.rows.iter().map(|run| run.file()))
            .map(|file| (file.name(), file))
    }

    /// Bytes of its runs on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        let ids = self.ids.iter().map(|run| run.named());
        ids.chain(self.rows.iter().map(|run| run.named()))
            .map(|named: RunName| named.len)
            .sum()
    }
}
