use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cli::CommandError;

/// How the formats that are unpacked begin. Sources: RFC 1952 and RFC 8878.
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// How those begin that are not, and the command that unpacks each to standard output.
const FOREIGN: [(&[u8], &str); 3] = [
    (b"BZh", "bzip2 -dc"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz -dc"),
    (b"PK\x03\x04", "unzip -p"),
];
/// The most bytes that any of them begins with.
const MAGIC_BYTES: u64 = 6;
/// The byte order mark of UTF-8, which spreadsheets put before the first line.
const MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// Opens a file, told from its first bytes to be packed with gzip or zstd or not at all; `-` is standard input. The
/// byte order mark is taken off. `read` counts the bytes taken from the file.
pub(crate) fn open(path: &Path, read: Arc<AtomicU64>) -> Result<Box<dyn BufRead + Send>, CommandError> {
    let failed = |error: io::Error| CommandError::usage(format!("cannot read {}: {error}", path.display()));
    let raw: Box<dyn Read + Send> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(failed)?)
    };
    let mut counted = BufReader::with_capacity(256 * 1024, Counted { inner: raw, read });
    let magic = first_bytes(&mut counted, MAGIC_BYTES).map_err(failed)?;
    if let Some((_, unpack)) = FOREIGN.iter().find(|(begin, _)| magic.starts_with(begin)) {
        return Err(CommandError::usage(format!(
            "{0} is packed in a way that is not read here; unpack it: {unpack} {0} | turnpike import - --format …",
            path.display()
        )));
    }
    let whole = Cursor::new(magic.clone()).chain(counted);
    let mut unpacked: Box<dyn Read + Send> = if magic.starts_with(GZIP) {
        Box::new(flate2::bufread::MultiGzDecoder::new(whole))
    } else if magic.starts_with(ZSTD) {
        Box::new(zstd::Decoder::with_buffer(whole).map_err(failed)?)
    } else {
        Box::new(whole)
    };
    let mut text = first_bytes(&mut unpacked, MARK.len() as u64).map_err(failed)?;
    if text.starts_with(&[0xff, 0xfe]) || text.starts_with(&[0xfe, 0xff]) {
        return Err(CommandError::usage(format!(
            "{0} is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {0} | turnpike import - --format …",
            path.display()
        )));
    }
    if text == MARK {
        text.clear();
    }
    let text = Cursor::new(text).chain(unpacked);
    Ok(Box::new(BufReader::with_capacity(256 * 1024, text)))
}

/// The first `count` bytes, fewer only at the end.
fn first_bytes(input: &mut impl Read, count: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(count).read_to_end(&mut bytes)?;
    Ok(bytes)
}

struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const TEXT: &str = "who,n\na,1\nb,2\n";

    fn read(bytes: &[u8]) -> Result<String, CommandError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let (mut text, count) = (String::new(), Arc::new(AtomicU64::new(0)));
        open(file.path(), Arc::clone(&count))?
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(count.load(Ordering::Relaxed), bytes.len() as u64);
        Ok(text)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 3).unwrap()
    }

    #[test]
    fn packed_files_are_told_by_their_first_bytes() {
        let marked = [MARK, TEXT.as_bytes()].concat();
        let twice = |pack: &dyn Fn(&[u8]) -> Vec<u8>| [pack(b"who,n\na,1\n"), pack(b"b,2\n")].concat();
        for bytes in [
            TEXT.as_bytes().to_vec(),
            gzip(TEXT.as_bytes()),
            zstd(TEXT.as_bytes()),
            gzip(&marked),
            zstd(&marked),
            twice(&gzip),
            twice(&zstd),
            marked,
        ] {
            assert_eq!(read(&bytes).unwrap(), TEXT, "{bytes:x?}");
        }
    }

    #[test]
    fn files_shorter_than_a_mark_are_read() {
        for text in ["", "a", "ab"] {
            assert_eq!(read(text.as_bytes()).unwrap(), text);
        }
        assert_eq!(read(&gzip(b"")).unwrap(), "");
    }

    #[test]
    fn what_is_packed_or_written_otherwise_is_told() {
        for (bytes, expected) in [
            (&b"BZh91AY"[..], "bzip2 -dc"),
            (b"\xfd7zXZ\0\0", "xz -dc"),
            (b"PK\x03\x04\x14\0", "unzip -p"),
            (b"\xff\xfew\0h\0o\0", "iconv"),
        ] {
            let refused = read(bytes).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
        assert!(open(Path::new("/no/such.csv"), Arc::default()).is_err());
    }
}
