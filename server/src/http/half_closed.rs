//! A client may end its side of a connection behind its last request and read the answers still. Source: RFC 9112, section
//! 9.6. To the HTTP library the end is that of the client, and what it works at for it is dropped: it is told once all
//! answers are out, or once it has lasted so long that the client is most likely gone.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// How long an answer is worked at, without a byte of it that is taken, for a client that has ended its side: nothing tells
/// one that waits from one that is gone until bytes are sent to it.
pub(super) const WAITS: Duration = Duration::from_secs(10);

/// How many requests of one connection have begun, and how many answers were made to their end.
#[derive(Debug, Clone, Default)]
pub(super) struct Owed(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

/// A request that is to be answered: until this is dropped.
pub(super) struct Answer(Owed);

impl Owed {
    pub(super) fn begin(&self) -> Answer {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Answer(self.clone())
    }
}

impl Answer {
    /// `response`, with which the request is answered when all of it was taken.
    pub(super) fn with(self, response: Response) -> Response {
        response.map(|inner| Body::new(AnswerBody { inner, _answer: self }))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

struct AnswerBody {
    inner: Body,
    _answer: Answer,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The end of a client's side, from when it has come.
#[derive(Debug)]
pub(super) struct Ended {
    owed: Owed,
    /// How many answers are out.
    flushed: usize,
    late: Option<Pin<Box<Sleep>>>,
}

impl Ended {
    pub(super) const fn new(owed: Owed) -> Self {
        Self {
            owed,
            flushed: 0,
            late: None,
        }
    }

    /// Whether it has come, and was not told yet.
    pub(super) const fn has_come(&self) -> bool {
        self.late.is_some()
    }

    /// Ready when the end is to be told.
    pub(super) fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.owed.0.begun.load(Ordering::Relaxed) == self.flushed {
            return Poll::Ready(());
        }
        let late = self
            .late
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(WAITS)));
        late.as_mut().poll(cx)
    }

    /// Takes note that all is out of the answers that were made to their end.
    pub(super) fn flushed(&mut self) {
        self.flushed = self.owed.0.ended.load(Ordering::Relaxed);
    }

    /// Takes note of bytes of an answer that went out.
    pub(super) fn taken(&mut self) {
        if let Some(late) = &mut self.late {
            late.as_mut().reset(started_now() + WAITS);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "compared with the runtime's own timer, which no clock is injected into"
)]
fn started_now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::extract::Request;
    use hyper::body::Incoming;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::framing::Watched;
    use super::*;

    /// How long a connection lasts whose client ends its side behind one request, and its answer, which has `body`.
    async fn lasts(body: impl Fn() -> Body) -> (Duration, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        client.shutdown().await.unwrap();
        let owed = Owed::default();
        let watched = TokioIo::new(Watched::new(stream, owed.clone()));
        let service = hyper::service::service_fn(|request: hyper::Request<Incoming>| {
            let answer = owed.begin();
            let _: Request = request.map(Body::new);
            let response = answer.with(Response::new(body()));
            async { Ok::<_, Infallible>(response) }
        });
        let started = started_now();
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(watched, service)
            .await;
        let lasted = started_now() - started;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        (lasted, answer)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_worked_at_for_a_while_and_no_longer() {
        let never = || Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>());
        let (lasted, _) = lasts(never).await;
        assert!(lasted >= WAITS && lasted < 2 * WAITS, "{lasted:?}");
        let slowly = || {
            Body::from_stream(futures_util::stream::unfold(0, |at| async move {
                tokio::time::sleep(WAITS / 2).await;
                (at < 9).then_some((Ok::<_, Infallible>(Bytes::from_static(b"piece")), at + 1))
            }))
        };
        let (lasted, answer) = lasts(slowly).await;
        assert!(lasted >= 5 * WAITS, "each piece shows that it waits: {lasted:?}");
        assert_eq!(answer.matches("piece").count(), 9, "{answer}");
        let (lasted, answer) = lasts(|| Body::from("whole")).await;
        assert!(
            lasted < WAITS && answer.ends_with("whole"),
            "{lasted:?}: {answer}"
        );
    }
}
