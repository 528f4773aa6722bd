use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Whether some of a request's body is left that nobody reads: no other request can follow behind it, so that its answer is
/// the last of its connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leftover(Arc<AtomicBool>);

impl Leftover {
    fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// As far as is known now.
    pub(crate) fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A body that ends with an error when its sender is too slow. It sets no timer while bytes are there already. `leftover`
/// is told when not all of it is read.
pub(crate) fn paced(body: Body, pace: Pace, linger: Linger, leftover: Leftover) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(PacedBody {
        inner: body,
        pacer: Pacer::new(pace),
        linger_bytes_max: Some(linger.bytes_max()),
        leftover,
    })
}

struct PacedBody {
    inner: Body,
    pacer: Pacer,
    /// Bytes that are still to be read when nobody wants them any more; none once no more can come.
    linger_bytes_max: Option<u64>,
    leftover: Leftover,
}

impl PacedBody {
    /// The rest of it, whatever it is, is not read.
    fn give_up(&mut self) {
        self.linger_bytes_max = None;
        self.leftover.note();
    }
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
            match &frame {
                Some(Ok(frame)) => this.pacer.moved(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) => this.give_up(),
                None => this.linger_bytes_max = None,
            }
            return Poll::Ready(frame);
        }
        ready!(this.pacer.poll_late(cx));
        this.give_up();
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
        let Some(bytes_max) = self.linger_bytes_max.filter(|_| !self.inner.is_end_stream()) else {
            return;
        };
        if bytes_max == 0 || self.inner.size_hint().lower() > bytes_max {
            self.leftover.note();
        }
        if bytes_max == 0 {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let rest = std::mem::take(&mut self.inner);
            let thrown = throw_away(rest, bytes_max);
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
    use std::sync::atomic::AtomicUsize;

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

    /// The bytes of such a body, `None` where it ends with an error, and whether some of it is left.
    async fn read(body: Body, pace: Pace) -> (Option<usize>, bool) {
        let leftover = Leftover::default();
        let paced = paced(body, pace, Linger::Known, leftover.clone());
        let read = paced.collect().await;
        (read.ok().map(|whole| whole.to_bytes().len()), leftover.is_there())
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_body_passes() {
        let body = dripping(50, &[b'x'; 100], Duration::from_millis(90));
        assert_eq!(read(body, pace(100, 1_000)).await, (Some(5_000), false));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it() {
        let slow = || dripping(3, b"x", Duration::from_millis(150));
        assert_eq!(read(slow(), pace(100, 0)).await, (None, true));
        let body = paced(slow(), pace(100, 0), Linger::Asked, Leftover::default());
        let error = body.collect().await.unwrap_err();
        assert!(error.to_string().contains("too slowly"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn dripping_ends_it_too() {
        let drip = || dripping(500, b"x", Duration::from_millis(90));
        let without_a_rate = read(drip(), pace(100, 0)).await;
        assert_eq!(without_a_rate, (Some(500), false), "it may drip for ever");
        assert_eq!(read(drip(), pace(100, 1_000)).await, (None, true));
    }

    #[tokio::test]
    async fn what_is_there_needs_no_timer() {
        let read = read(Body::from("abc"), pace(1, 1_000_000)).await;
        assert_eq!(read, (Some(3), false));
    }

    #[tokio::test]
    async fn of_a_broken_body_the_rest_is_left() {
        let pieces = [
            Ok("abc"),
            Err(std::io::Error::from(std::io::ErrorKind::InvalidData)),
        ];
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        assert_eq!(read(body, pace(100, 0)).await, (None, true));
    }

    /// A body of 1 MiB pieces that counts those that were read.
    fn counted(pieces: usize, read: Arc<AtomicUsize>) -> Body {
        let piece = Bytes::from(vec![b'x'; 1024 * 1024]);
        Body::from_stream(futures_util::stream::iter(0..pieces).map(move |_| {
            read.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(piece.clone())
        }))
    }

    /// The pieces read in the end, and whether the answer tells that some are left.
    async fn read_after_refusal(pieces: usize, linger: Linger) -> (usize, bool) {
        let read = Arc::new(AtomicUsize::new(0));
        let leftover = Leftover::default();
        let body = counted(pieces, Arc::clone(&read));
        let mut body = paced(body, pace(100, 0), linger, leftover.clone());
        assert!(body.frame().await.unwrap().is_ok());
        drop(body);
        let told = leftover.is_there();
        tokio::time::sleep(2 * LINGER).await;
        (read.load(Ordering::SeqCst), told)
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_body_is_read_on_for_a_while() {
        assert_eq!(read_after_refusal(65, Linger::Known).await, (65, false));
        assert_eq!(
            read_after_refusal(1_000, Linger::Known).await,
            (130, false),
            "the first, and one beyond the bound, as the body does not say how long it is"
        );
        assert_eq!(read_after_refusal(1_000, Linger::Stranger).await, (3, false));
        assert_eq!(read_after_refusal(65, Linger::Asked).await, (1, true));
    }

    #[tokio::test]
    async fn a_refused_body_that_says_that_it_is_too_long_is_left() {
        const BYTES: usize = 1024 * 1024;
        for (bytes, expected) in [(BYTES, false), (BYTES + 1, true)] {
            let leftover = Leftover::default();
            let body = Body::from(vec![b'x'; bytes]);
            drop(paced(body, pace(100, 0), Linger::Stranger, leftover.clone()));
            assert_eq!(leftover.is_there(), expected, "{bytes}");
        }
    }
}
