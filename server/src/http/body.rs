use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use futures_util::StreamExt as _;
use hyper::body::{Frame, SizeHint};
use turnpike_domain::problem::{Code, Problem};

use super::pace::{Pace, Pacer};

/// Bytes of a refused body that are still read and thrown away.
const LINGER_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// The same for a sender who showed no valid key: whoever likes may send these.
const LINGER_STRANGER_BYTES_MAX: u64 = 1024 * 1024;
/// How long they may take.
const LINGER: Duration = Duration::from_secs(10);

/// How much of a body that nobody reads is read on, for a while, and thrown away: a client that sends all before it looks
/// for an answer would see a broken connection instead of the refusal. Source: RFC 9112, section 9.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linger {
    /// Nothing: the client asked before it sent anything, and reads the refusal first.
    Asked,
    /// A little: nobody knows who sends it. Behind that the connection is closed.
    Stranger,
    /// The largest body that any call takes.
    Known,
}

impl Linger {
    const fn bytes_max(self) -> u64 {
        match self {
            Self::Asked => 0,
            Self::Stranger => LINGER_STRANGER_BYTES_MAX,
            Self::Known => LINGER_BYTES_MAX,
        }
    }
}

/// A body that ends with an error when its sender is too slow. It sets no timer while bytes are there already.
pub(crate) fn paced(body: Body, pace: Pace, linger: Linger) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(PacedBody {
        inner: body,
        pacer: Pacer::new(pace),
        linger_bytes_max: linger.bytes_max(),
    })
}

struct PacedBody {
    inner: Body,
    pacer: Pacer,
    /// Bytes that are still to be read when nobody wants them any more; 0 when there are none.
    linger_bytes_max: u64,
}

impl HttpBody for PacedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            let bytes = if let Some(Ok(frame)) = &frame {
                frame.data_ref().map_or(0, Bytes::len)
            } else {
                this.linger_bytes_max = 0;
                0
            };
            this.pacer.moved(bytes);
            return Poll::Ready(frame);
        }
        ready!(this.pacer.poll_late(cx));
        this.linger_bytes_max = 0;
        Poll::Ready(Some(Err(axum::Error::new(Problem::new(
            Code::RequestTimeout,
            "the body came too slowly",
        )))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for PacedBody {
    fn drop(&mut self) {
        if self.linger_bytes_max == 0 || self.inner.is_end_stream() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let rest = std::mem::take(&mut self.inner);
            let thrown = throw_away(rest, self.linger_bytes_max);
            runtime.spawn(tokio::time::timeout(LINGER, thrown));
        }
    }
}

async fn throw_away(body: Body, bytes_max: u64) {
    let mut chunks = body.into_data_stream();
    let mut read = 0;
    while let Some(Ok(chunk)) = chunks.next().await {
        read += chunk.len() as u64;
        if read > bytes_max {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt as _;

    use super::*;

    /// A body of `pieces` with a pause before each.
    fn dripping(pieces: usize, piece: &'static [u8], pause: Duration) -> Body {
        let stream = futures_util::stream::unfold(0, move |at| async move {
            tokio::time::sleep(pause).await;
            (at < pieces).then_some((Ok::<_, std::io::Error>(Bytes::from_static(piece)), at + 1))
        });
        Body::from_stream(stream)
    }

    fn pace(idle_ms: u64, rate_min: u32) -> Pace {
        Pace {
            idle: Duration::from_millis(idle_ms),
            rate_min,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_body_passes() {
        let body = paced(
            dripping(50, &[b'x'; 100], Duration::from_millis(90)),
            pace(100, 1_000),
            Linger::Asked,
        );
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 5_000);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it() {
        let body = paced(
            dripping(3, b"x", Duration::from_millis(150)),
            pace(100, 0),
            Linger::Asked,
        );
        let error = body.collect().await.unwrap_err();
        assert!(error.to_string().contains("too slowly"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn dripping_ends_it_too() {
        let drip = || dripping(500, b"x", Duration::from_millis(90));
        assert!(
            paced(drip(), pace(100, 0), Linger::Asked).collect().await.is_ok(),
            "without a rate it may drip for ever"
        );
        assert!(
            paced(drip(), pace(100, 1_000), Linger::Asked)
                .collect()
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn what_is_there_needs_no_timer() {
        let body = paced(Body::from("abc"), pace(1, 1_000_000), Linger::Asked);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
    }

    /// A body of 1 MiB pieces that counts those that were read.
    fn counted(pieces: usize, read: Arc<AtomicUsize>) -> Body {
        let piece = Bytes::from(vec![b'x'; 1024 * 1024]);
        Body::from_stream(futures_util::stream::iter(0..pieces).map(move |_| {
            read.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(piece.clone())
        }))
    }

    async fn read_after_refusal(pieces: usize, linger: Linger) -> usize {
        let read = Arc::new(AtomicUsize::new(0));
        let mut body = paced(counted(pieces, Arc::clone(&read)), pace(100, 0), linger);
        assert!(body.frame().await.unwrap().is_ok());
        drop(body);
        tokio::time::sleep(2 * LINGER).await;
        read.load(Ordering::SeqCst)
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_body_is_read_on_for_a_while() {
        assert_eq!(read_after_refusal(65, Linger::Known).await, 65);
        assert_eq!(
            read_after_refusal(1_000, Linger::Known).await,
            130,
            "the first, and one beyond the bound"
        );
        assert_eq!(read_after_refusal(1_000, Linger::Stranger).await, 3);
        assert_eq!(read_after_refusal(65, Linger::Asked).await, 1);
    }
}
