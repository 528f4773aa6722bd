//! The bytes of a body as they come: decompressed, and never waited for without end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::io::StreamReader;
use turnpike_domain::limits::{DECOMPRESSED_BYTES_FREE, DECOMPRESSION_RATIO_MAX, ZSTD_WINDOW_LOG_MAX};
use turnpike_domain::problem::{Code, Problem};

use super::content::Encoding;

/// Bytes that are decompressed at a time.
const DECODED_CHUNK_BYTES: usize = 64 * 1024;

/// Bytes after which the thread is left to other requests. A body that has arrived, and most of all a compressed one,
/// never makes its reader wait, so nothing else would.
const TURN_BYTES: usize = DECODED_CHUNK_BYTES;

/// Reads a body chunk by chunk.
pub(crate) struct BodyReader {
    source: Source,
    idle: Duration,
    /// Bytes handed out since other requests had their turn.
    turn: usize,
}

enum Source {
    Plain(BodyDataStream),
    Compressed {
        reader: Pin<Box<dyn AsyncRead + Send>>,
        buffer: BytesMut,
        name: &'static str,
        expansion: Expansion,
    },
}

/// How much a compressed body has become.
struct Expansion {
    /// Bytes as they came.
    received: Arc<AtomicU64>,
    decoded: u64,
}

impl Expansion {
    /// Counts `bytes` more that came out of the body; an error when they are too many for what went in.
    fn add(&mut self, bytes: usize) -> Result<(), Problem> {
        self.decoded += bytes as u64;
        let received = self.received.load(Ordering::Relaxed);
        if self.decoded <= DECOMPRESSED_BYTES_FREE.max(received.saturating_mul(DECOMPRESSION_RATIO_MAX)) {
            return Ok(());
        }
        let detail = format!(
            "the body is more than {DECOMPRESSION_RATIO_MAX} times as large after decompression as before, and more \
             than {DECOMPRESSED_BYTES_FREE} bytes: send it in parts or less compressed"
        );
        Err(Problem::new(Code::TooLarge, detail))
    }
}

impl BodyReader {
    /// A reader of `body` that gives up after `idle` without a byte.
    pub(crate) fn new(body: Body, encoding: Encoding, idle: Duration) -> Self {
        let stream = body.into_data_stream();
        let received = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&received);
        let count = move |chunk: &Bytes| {
            counted.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        };
        let source = match encoding {
            Encoding::Identity => Source::Plain(stream),
            Encoding::Gzip => {
                let reader = StreamReader::new(stream.map_err(cut_short).inspect_ok(count));
                let mut decoder = GzipDecoder::new(reader);
                // Members may follow each other; anything else behind the first is an error, not ignored.
                decoder.multiple_members(true);
                Source::compressed(Box::pin(decoder), "gzip", received)
            }
            Encoding::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX);
                let reader = StreamReader::new(stream.map_err(cut_short).inspect_ok(count));
                let mut decoder = ZstdDecoder::with_params(reader, &[window]);
                decoder.multiple_members(true);
                Source::compressed(Box::pin(decoder), "zstd", received)
            }
        };
        Self {
            source,
            idle,
            turn: 0,
        }
    }

    /// The next bytes, not empty; `None` at the end of the body.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if self.turn >= TURN_BYTES {
            self.turn = 0;
            tokio::task::yield_now().await;
        }
        let Ok(read) = tokio::time::timeout(self.idle, self.source.next()).await else {
            let detail = format!("no byte of the body came for {} seconds", self.idle.as_secs());
            return Err(Problem::new(Code::RequestTimeout, detail));
        };
        let read = read?;
        self.turn += read.as_ref().map_or(0, Bytes::len);
        Ok(read)
    }
}

impl Source {
    fn compressed(
        reader: Pin<Box<dyn AsyncRead + Send>>,
        name: &'static str,
        received: Arc<AtomicU64>,
    ) -> Self {
        Self::Compressed {
            reader,
            buffer: BytesMut::new(),
            name,
            expansion: Expansion { received, decoded: 0 },
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        match self {
            Self::Plain(stream) => loop {
                match stream.next().await {
                    None => return Ok(None),
                    Some(Ok(chunk)) if chunk.is_empty() => {}
                    Some(Ok(chunk)) => return Ok(Some(chunk)),
                    Some(Err(error)) => return Err(unreadable(&cut_short(error), "plain")),
                }
            },
            Self::Compressed {
                reader,
                buffer,
                name,
                expansion,
            } => {
                buffer.reserve(DECODED_CHUNK_BYTES);
                match reader.read_buf(buffer).await {
                    Ok(0) => Ok(None),
                    Ok(read) => {
                        expansion.add(read)?;
                        Ok(Some(buffer.split().freeze()))
                    }
                    Err(error) => Err(unreadable(&error, name)),
                }
            }
        }
    }
}

/// Marks a failure of the connection, to tell it from broken compression.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct CutShort(#[source] axum::Error);

fn cut_short(error: axum::Error) -> io::Error {
    io::Error::other(CutShort(error))
}

fn unreadable(error: &io::Error, encoding: &str) -> Problem {
    let inner = error.get_ref();
    if let Some(CutShort(cut)) = inner.and_then(|inner| inner.downcast_ref()) {
        return turnpike_http::unread(cut);
    }
    let detail = format!("the body is not whole, valid {encoding}: {error}");
    Problem::new(Code::InvalidRequest, detail)
}
