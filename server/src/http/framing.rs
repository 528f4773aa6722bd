//! Where messages begin and end on a connection, so that a head is seen as it was sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes of a line that are kept: more than any name or length that is looked for needs.
const LINE_KEPT: usize = 128;

/// A message whose end another reader of the same bytes could see elsewhere. Source: RFC 9112, sections 6.1, 6.3, 7.1 and 11.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ambiguous {
    /// Its head tells its length in two ways, or in one that cannot be read.
    Head,
    /// A chunk of its body has no size that can be read.
    ChunkSize,
}

impl Ambiguous {
    /// What is wrong, for the client.
    pub(crate) const fn detail(self) -> &'static str {
        match self {
            Self::Head => {
                "the head tells the length of its body in two ways, or in none that can be read: send Content-Length or \
                 Transfer-Encoding: chunked, once"
            }
            Self::ChunkSize => {
                "a chunk of the body does not begin with its size: send it as a hexadecimal number on a line of its own"
            }
        }
    }
}

impl From<Ambiguous> for std::io::Error {
    fn from(ambiguous: Ambiguous) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, ambiguous.detail())
    }
}

/// Follows the messages of one connection. The HTTP library reads them itself, but takes away a `Content-Length` beside
/// a `Transfer-Encoding` before anybody sees it, and looks at no more than the last coding.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    state: State,
    /// The beginning of the line that is being read.
    line: Vec<u8>,
    head: Head,
    /// How many of the bytes that came last belong to messages that have ended.
    ended: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// A body of which so many bytes are to come.
    Body(u64),
    ChunkSize,
    /// A chunk of which so many bytes are to come.
    Chunk(u64),
    ChunkEnd,
    Trailers,
}

/// What of a head says how long its body is.
#[derive(Debug, Default)]
struct Head {
    begun: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    /// Takes in the bytes that came next.
    pub(crate) fn watch(&mut self, all: &[u8]) -> Result<(), Ambiguous> {
        let mut bytes = all;
        self.ended = 0;
        while !bytes.is_empty() {
            if let State::Body(left) | State::Chunk(left) = self.state {
                let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                bytes = &bytes[here..];
                self.skipped(here as u64);
                self.note_end(all.len() - bytes.len());
                continue;
            }
            let end = memchr::memchr(b'\n', bytes);
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let Some(end) = end else {
                self.keep(part);
                return Ok(());
            };
            bytes = &bytes[end + 1..];
            if self.line.is_empty() {
                // Most lines come whole, and are looked at where they stand.
                self.take_line(&part[..part.len().min(LINE_KEPT)])?;
            } else {
                self.keep(part);
                let line = std::mem::take(&mut self.line);
                self.take_line(&line)?;
            }
            self.note_end(all.len() - bytes.len());
        }
        Ok(())
    }

    /// Keeps a part of a line, as far as there is room.
    fn keep(&mut self, part: &[u8]) {
        let room = LINE_KEPT.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    /// Goes on behind a line, of which no more is given than is kept.
    fn take_line(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        self.state = self.after_line(line.strip_suffix(b"\r").unwrap_or(line))?;
        Ok(())
    }

    /// Whether the next byte begins a message.
    fn is_between(&self) -> bool {
        self.state == State::Head && !self.head.begun && self.line.is_empty()
    }

    /// Whether the next byte belongs to a body, or ends one.
    fn is_within_body(&self) -> bool {
        self.state != State::Head
    }

    fn note_end(&mut self, taken: usize) {
        if self.is_between() {
            self.ended = taken;
        }
    }

    fn skipped(&mut self, bytes: u64) {
        self.state = match self.state {
            State::Body(left) if left > bytes => State::Body(left - bytes),
            State::Body(_) => State::Head,
            State::Chunk(left) if left > bytes => State::Chunk(left - bytes),
            State::Chunk(_) => State::ChunkEnd,
            other => other,
        };
    }

    fn after_line(&mut self, line: &[u8]) -> Result<State, Ambiguous> {
        Ok(match self.state {
            State::Head if line.is_empty() && self.head.begun => std::mem::take(&mut self.head).body()?,
            State::Head if line.is_empty() => State::Head,
            State::Head => {
                self.head.line(line)?;
                State::Head
            }
            State::ChunkSize => match chunk_size(line).ok_or(Ambiguous::ChunkSize)? {
                0 => State::Trailers,
                size => State::Chunk(size),
            },
            State::ChunkEnd => State::ChunkSize,
            State::Trailers if line.is_empty() => State::Head,
            other => other,
        })
    }
}

impl Head {
    fn line(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        self.begun = true;
        // Of the two names that are looked for, neither begins with another letter.
        if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T')) {
            return Ok(());
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Ok(());
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        // Of a line of which not all is kept nobody here knows what it says.
        let is_whole = line.len() < LINE_KEPT;
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !is_whole || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(Ambiguous::Head);
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok().filter(|_| is_whole);
            let length = length.and_then(|text| text.trim().parse().ok());
            let length = length.ok_or(Ambiguous::Head)?;
            if self.length.is_some_and(|before| before != length) {
                return Err(Ambiguous::Head);
            }
            self.length = Some(length);
        }
        Ok(())
    }

    /// What follows on the head.
    fn body(self) -> Result<State, Ambiguous> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Ambiguous::Head),
            (true, None) => Ok(State::ChunkSize),
            (false, None | Some(0)) => Ok(State::Head),
            (false, Some(length)) => Ok(State::Body(length)),
        }
    }
}

/// The size at the start of a chunk's line; what an extension says behind it is not looked at. Digits up to where the line
/// was cut may not be all.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits >= LINE_KEPT {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()
}

/// What is read in the place of an ambiguous message: no head has that byte anywhere, so that the reader refuses it, after
/// it has answered what came before. The reader of a head that came in parts looks at it again where a line is empty.
const NO_HEAD: &[u8] = b"\0\r\n\r\n";

/// A connection that is watched as it is read. An ambiguous message and what follows on it can no longer be read.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) stream: TcpStream,
    framing: Framing,
    pub(crate) ambiguous: Option<Ambiguous>,
    /// What is still to be read in its place.
    instead: &'static [u8],
}

impl Watched {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            framing: Framing::default(),
            ambiguous: None,
            instead: &[],
        }
    }

    /// Hands on what is read in the place of an ambiguous message, as far as there is room.
    fn read_instead(&mut self, buf: &mut ReadBuf<'_>) {
        let (now, later) = self.instead.split_at(self.instead.len().min(buf.remaining()));
        buf.put_slice(now);
        self.instead = later;
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        if !this.instead.is_empty() {
            this.read_instead(buf);
            return Poll::Ready(Ok(()));
        }
        if let Some(ambiguous) = this.ambiguous {
            return Poll::Ready(Err(ambiguous.into()));
        }
        let before = buf.filled().len();
        let within_body = this.framing.is_within_body();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let Err(ambiguous) = this.framing.watch(&buf.filled()[before..]) else {
            return Poll::Ready(Ok(()));
        };
        this.ambiguous = Some(ambiguous);
        let ended = this.framing.ended;
        buf.set_filled(before + ended);
        if within_body && ended == 0 {
            // The route has the head already: it is the one that answers, and knows what it has taken of the body.
            return Poll::Ready(Err(ambiguous.into()));
        }
        this.instead = NO_HEAD;
        this.read_instead(buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    const SIZED: &str = "POST / HTTP/1.1\r\nhost: x\r\nContent-Length: 44\r\n\r\ntransfer-encoding: chunked\r\ncontent-length:1";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\n\r\n11;x=y\r\ncontent-length:7\n\r\n0\r\ncontent-length: 3\r\n\r\n";
    const BOTH: &str = "POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n";
    const BOTH_TURNED: &str =
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nx: y\r\ncontent-length: 5\r\n\r\n";

    /// What is ambiguous in the bytes, taken in pieces of these sizes.
    fn watched(text: &str, pieces: &[usize]) -> Result<(), Ambiguous> {
        let (mut framing, mut rest) = (Framing::default(), text.as_bytes());
        for size in pieces.iter().cycle() {
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            framing.watch(piece)?;
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        Ok(())
    }

    #[test]
    fn a_length_told_twice_or_unreadably_is_ambiguous() {
        for clear in [GET, SIZED, CHUNKED] {
            assert_eq!(watched(clear, &[usize::MAX]), Ok(()), "{clear}");
        }
        let wrong = [
            BOTH,
            BOTH_TURNED,
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: one\r\n\r\n",
        ];
        for wrong in wrong {
            assert_eq!(watched(wrong, &[usize::MAX]), Err(Ambiguous::Head), "{wrong}");
        }
        for chunk in ["zz", "", "-1", "10000000000000000"] {
            let text = format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{chunk}\r\n");
            assert_eq!(
                watched(&text, &[usize::MAX]),
                Err(Ambiguous::ChunkSize),
                "{chunk}"
            );
        }
    }

    #[test]
    fn a_transfer_encoding_is_chunked_once_or_ambiguous() {
        let head = |lines: &str| format!("POST / HTTP/1.1\r\n{lines}\r\n\r\n0\r\n\r\n");
        for clear in ["chunked", "Chunked \t"] {
            let text = head(&format!("transfer-encoding: {clear}"));
            assert_eq!(watched(&text, &[usize::MAX]), Ok(()), "{clear}");
        }
        let beyond_what_is_kept = format!("chunked{}, chunked", " ".repeat(LINE_KEPT));
        for value in [
            "gzip, chunked",
            "chunked, chunked",
            "chunked\r\nx: y\r\nTransfer-Encoding: chunked",
            "identity\r\ntransfer-encoding: chunked",
            "gzip",
            "chunked;q=1",
            "",
            &beyond_what_is_kept,
        ] {
            let text = head(&format!("transfer-encoding: {value}"));
            assert_eq!(watched(&text, &[usize::MAX]), Err(Ambiguous::Head), "{value}");
        }
    }

    #[test]
    fn a_length_with_more_digits_than_are_kept_is_ambiguous() {
        let five = format!("{}5", "0".repeat(LINE_KEPT));
        let sized = format!("POST / HTTP/1.1\r\ncontent-length: {five}\r\n\r\nabcde");
        assert_eq!(watched(&sized, &[usize::MAX]), Err(Ambiguous::Head));
        let chunked =
            format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{five}\r\nabcde\r\n0\r\n\r\n");
        assert_eq!(watched(&chunked, &[usize::MAX]), Err(Ambiguous::ChunkSize));
    }

    #[test]
    fn what_has_ended_before_an_ambiguous_message_is_told() {
        for (before, ambiguous) in [
            (GET, BOTH),
            (SIZED, BOTH_TURNED),
            (CHUNKED, BOTH),
            ("", BOTH),
            ("\r\n", BOTH),
        ] {
            let mut framing = Framing::default();
            let found = framing.watch(format!("{before}{ambiguous}").as_bytes());
            assert_eq!(
                (found, framing.ended),
                (Err(Ambiguous::Head), before.len()),
                "{before}"
            );
        }
        let mut framing = Framing::default();
        let (first, second) = BOTH.split_at(20);
        assert_eq!(framing.watch(format!("{GET}{first}").as_bytes()), Ok(()));
        assert!(!framing.is_between());
        assert_eq!(framing.watch(second.as_bytes()), Err(Ambiguous::Head));
        assert_eq!(framing.ended, 0, "what came before has been read");
    }

    proptest! {
        /// However messages follow on one another, and wherever reads are cut: the ambiguous ones are found, and nothing
        /// in a body is taken for a head.
        #[test]
        fn every_head_is_seen_and_no_body_is_one(
            before in prop::collection::vec(0usize..3, 0..6), both in prop::option::of(any::<bool>()),
            pieces in prop::collection::vec(1usize..40, 1..8),
        ) {
            let mut text: String = before.iter().map(|at| [GET, SIZED, CHUNKED][*at]).collect();
            text.push_str(both.map_or("", |turned| if turned { BOTH_TURNED } else { BOTH }));
            prop_assert_eq!(watched(&text, &pieces).is_ok(), both.is_none());
        }
    }
}
