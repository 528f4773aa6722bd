//! The bytes of a body as they come: decompressed, and never waited for without end.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::io::StreamReader;
use turnpike_domain::limits::ZSTD_WINDOW_LOG_MAX;
use turnpike_domain::problem::{Code, Problem};

use super::content::Encoding;

/// Bytes that are decompressed at a time.
const DECODED_CHUNK_BYTES: usize = 64 * 1024;

/// Reads a body chunk by chunk.
pub(crate) struct BodyReader {
    source: Source,
    idle: Duration,
}

enum Source {
    Plain(BodyDataStream),
    Compressed {
        reader: Pin<Box<dyn AsyncRead + Send>>,
        buffer: BytesMut,
        name: &'static str,
    },
}

impl BodyReader {
    /// A reader of `body` that gives up after `idle` without a byte.
    pub(crate) fn new(body: Body, encoding: Encoding, idle: Duration) -> Self {
        let stream = body.into_data_stream();
        let source = match encoding {
            Encoding::Identity => Source::Plain(stream),
            Encoding::Gzip => {
                let mut decoder = GzipDecoder::new(StreamReader::new(stream.map_err(cut_short)));
                // Members may follow each other; anything else behind the first is an error, not ignored.
                decoder.multiple_members(true);
                Source::compressed(Box::pin(decoder), "gzip")
            }
            Encoding::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX);
                let reader = StreamReader::new(stream.map_err(cut_short));
                let mut decoder = ZstdDecoder::with_params(reader, &[window]);
                decoder.multiple_members(true);
                Source::compressed(Box::pin(decoder), "zstd")
            }
        };
        Self { source, idle }
    }

    /// The next bytes, not empty; `None` at the end of the body.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if let Ok(read) = tokio::time::timeout(self.idle, self.source.next()).await {
            read
        } else {
            let detail = format!("no byte of the body came for {} seconds", self.idle.as_secs());
            Err(Problem::new(Code::RequestTimeout, detail))
        }
    }
}

impl Source {
    fn compressed(reader: Pin<Box<dyn AsyncRead + Send>>, name: &'static str) -> Self {
        Self::Compressed {
            reader,
            buffer: BytesMut::new(),
            name,
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
            Self::Compressed { reader, buffer, name } => {
                buffer.reserve(DECODED_CHUNK_BYTES);
                match reader.read_buf(buffer).await {
                    Ok(0) => Ok(None),
                    Ok(_) => Ok(Some(buffer.split().freeze())),
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
    if let Some(problem) = turnpike_http::told(error) {
        return problem;
    }
    let inner = error.get_ref();
    let is_cut = inner.and_then(|inner| inner.downcast_ref::<CutShort>()).is_some();
    let detail = if is_cut {
        format!("the body ended early: {error}")
    } else {
        format!("the body is not whole, valid {encoding}: {error}")
    };
    Problem::new(Code::InvalidRequest, detail)
}
