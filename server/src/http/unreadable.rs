//! Requests whose head cannot be read never reach a route: the HTTP library answers them itself, with a status and no
//! body. Here that answer becomes a problem like any other. A message of ambiguous length, which the library would read in
//! its own way, is refused here too.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::StatusCode;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Randomness;
use turnpike_http::ProblemBody;

use super::framing::Watched;
use super::pace::{Pace, Pacer};

/// Bytes of the library's own answer at the most: a status line and three headers.
const BARE_BYTES_MAX: usize = 200;
/// How long what a refused client goes on sending is read and thrown away, so that it sees the answer and not a broken
/// connection. Source: RFC 9112, section 9.6.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are thrown away at the most.
const LINGER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A connection on which the library's own refusals go out as problems.
pub(crate) struct Refusing {
    /// `None` once it was given to the one who lingers.
    inner: Option<TokioIo<Watched>>,
    randomness: Arc<dyn Randomness>,
    /// What is still to be written in place of the library's answer.
    pending: Vec<u8>,
    refused: bool,
    /// How slowly answers are taken.
    pacer: Pacer,
}

impl Refusing {
    pub(crate) fn new(stream: TcpStream, pace: Pace, randomness: Arc<dyn Randomness>) -> Self {
        Self {
            inner: Some(TokioIo::new(Watched::new(stream))),
            randomness,
            pending: Vec::new(),
            refused: false,
            pacer: Pacer::new(pace),
        }
    }

    /// `written`, or an error once the client has taken too little of its answers for too long: it must not hold what
    /// they are made of for ever.
    fn in_time(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<std::io::Result<usize>>,
    ) -> Poll<std::io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => self.pacer.moved(bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                ready!(self.pacer.poll_late(cx));
                metrics::counter!("turnpike_http_answers_given_up_total").increment(1);
                return Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()));
            }
        }
        written
    }

    fn io(&mut self) -> std::io::Result<Pin<&mut TokioIo<Watched>>> {
        let closed = || std::io::Error::from(std::io::ErrorKind::NotConnected);
        self.inner.as_mut().map(Pin::new).ok_or_else(closed)
    }

    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.pending.is_empty() {
            let bytes = std::mem::take(&mut self.pending);
            let written = self.io()?.poll_write(cx, &bytes);
            self.pending = bytes;
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.pending.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes `bytes` as written when they are the library's own answer.
    fn replace(&mut self, bytes: &[u8]) -> bool {
        let Some(status) = bare(bytes) else {
            return false;
        };
        let problem = self.ambiguous().unwrap_or_else(|| problem(status));
        self.pending = refusal(&problem, &self.randomness.new_id());
        self.refused = true;
        true
    }

    /// What is wrong with the message that can no longer be read, if there is one.
    fn ambiguous(&self) -> Option<Problem> {
        let ambiguous = self.inner.as_ref()?.inner().ambiguous?;
        Some(Problem::new(Code::InvalidRequest, ambiguous.detail()))
    }
}

/// The status of the library's own answer; `None` for bytes that a route answered with, which name their request.
fn bare(bytes: &[u8]) -> Option<StatusCode> {
    if bytes.len() > BARE_BYTES_MAX || !bytes.starts_with(b"HTTP/1.") || !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let head = std::str::from_utf8(bytes).ok()?;
    let of_a_route = head.contains("x-request-id") || !head.contains("content-length: 0\r\n");
    let status = StatusCode::from_bytes(bytes.get(9..12)?).ok()?;
    (status.is_client_error() && !of_a_route).then_some(status)
}

/// What the library's own answer with this status says.
fn problem(status: StatusCode) -> Problem {
    let (code, detail) = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => (
            Code::HeadTooLarge,
            "the head of the request has too many bytes or too many headers",
        ),
        StatusCode::URI_TOO_LONG => (Code::UriTooLong, "the target of the request is too long"),
        _ => (
            Code::InvalidRequest,
            "the head of the request is not valid HTTP/1.1",
        ),
    };
    Problem::new(code, detail)
}

/// A whole answer that closes its connection, counted and noted, for what reached no route.
pub(super) fn refusal(problem: &Problem, id: &str) -> Vec<u8> {
    let body = ProblemBody::new(problem, Some(id.to_owned()));
    let json = serde_json::to_string(&body).unwrap_or_default();
    let retry = problem
        .retry_after_s
        .map_or(String::new(), |s| format!("retry-after: {s}\r\n"));
    metrics::counter!("turnpike_http_requests_total", "method" => "other", "route" => "unreadable", "status" => body.status.to_string())
        .increment(1);
    tracing::debug!(target: "turnpike::access", request_id = id, status = body.status, "a request could not be read");
    format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nx-request-id: {id}\r\n\
         cache-control: no-store\r\nx-content-type-options: nosniff\r\n{retry}connection: close\r\n\r\n{json}",
        body.status,
        body.title,
        json.len(),
    )
    .into_bytes()
}

impl Read for Refusing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.io()?.poll_read(cx, buf)
    }
}

impl Write for Refusing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        ready!(self.poll_pending(cx))?;
        if self.replace(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = self.io()?.poll_write(cx, buf);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        ready!(self.poll_pending(cx))?;
        if let [only] = bufs
            && self.replace(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        let written = self.io()?.poll_write_vectored(cx, bufs);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.as_ref().is_some_and(Write::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        // All that was to be written is: what comes next is measured by itself.
        self.pacer.reset();
        self.io()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        self.io()?.poll_shutdown(cx)
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        let refused = self.refused || self.ambiguous().is_some();
        let Some(stream) = self.inner.take().filter(|_| refused) else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let pending = std::mem::take(&mut self.pending);
            let stream = stream.into_inner().stream;
            runtime.spawn(tokio::time::timeout(LINGER, throw_away(stream, pending)));
        }
    }
}

/// Writes what is still to be said, and reads on for a while.
async fn throw_away(mut stream: TcpStream, pending: Vec<u8>) {
    let _ = stream.write_all(&pending).await;
    let _ = stream.shutdown().await;
    let mut rest = stream.take(LINGER_BYTES_MAX);
    let mut buffer = [0; 4_096];
    while matches!(rest.read(&mut buffer).await, Ok(read) if read > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_librarys_own_answer_is_replaced() {
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: Sat, 01 Jan 2026 00:00:00 GMT\r\n\r\n";
        assert_eq!(bare(own), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        let of_a_route = b"HTTP/1.1 404 Not Found\r\nx-request-id: r\r\ncontent-length: 0\r\n\r\n";
        let good = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n";
        for other in [&of_a_route[..], good, b"{}", b"HTTP/1.1 400 Bad", &own[..60]] {
            assert_eq!(bare(other), None);
        }
    }

    #[test]
    fn the_answer_is_whole() {
        for (status, code) in [
            (400, "invalid_request"),
            (431, "head_too_large"),
            (414, "uri_too_long"),
        ] {
            let problem = problem(StatusCode::from_u16(status).unwrap());
            let text = String::from_utf8(refusal(&problem, "r-1")).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(
                head.contains(&format!("content-length: {}", body.len())),
                "{head}"
            );
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(
                (&body["code"], &body["request_id"]),
                (&code.into(), &"r-1".into())
            );
        }
    }
}
