//! Lines from chunks of bytes, with bounded memory.

use turnpike_domain::limits::{DEAD_LETTER_BYTES_MAX, EVENT_BYTES_MAX};

/// One line, without its end: a line feed, or a carriage return and a line feed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// It has more bytes than an event may have; only its beginning was kept.
    TooLong { head: &'a [u8], bytes: usize },
}

/// Cuts chunks into lines, of which it leaves out those without a byte. Lines within a chunk are borrowed from it; only one that crosses chunks is copied.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The beginning of a line that goes on in the next chunk.
    carry: Vec<u8>,
    /// Bytes of that line so far.
    bytes: usize,
    /// The last of them is a carriage return: of the line's end, where nothing else follows.
    returned: bool,
    /// The line in `carry` was handed out.
    handed_out: bool,
}

impl Lines {
    /// The next line that ends in `chunk`, which is advanced behind it; `None` when the rest of the chunk has been
    /// taken in.
    pub(crate) fn next<'l, 'c: 'l>(&'l mut self, chunk: &mut &'c [u8]) -> Option<Line<'l>> {
        self.forget();
        if self.bytes == 0 {
            skip_empty(chunk);
        }
        if chunk.is_empty() {
            return None;
        }
        let Some(end) = memchr::memchr(b'\n', chunk) else {
            self.carry_on(chunk);
            *chunk = &[];
            return None;
        };
        let (line, rest) = (&chunk[..end], &chunk[end + 1..]);
        *chunk = rest;
        let bare = line.strip_suffix(b"\r").unwrap_or(line);
        if self.bytes == 0 && bare.len() <= EVENT_BYTES_MAX {
            return Some(Line::Whole(bare));
        }
        self.carry_on(line);
        Some(self.hand_out())
    }

    /// The last line, if the text does not end with a line's end.
    pub(crate) fn last(&mut self) -> Option<Line<'_>> {
        self.forget();
        (self.bytes > 0).then(|| self.hand_out())
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        self.carry.capacity()
    }

    fn forget(&mut self) {
        if self.handed_out {
            self.carry.clear();
            self.bytes = 0;
            self.returned = false;
            self.handed_out = false;
        }
    }

    fn carry_on(&mut self, part: &[u8]) {
        self.bytes = self.bytes.saturating_add(part.len());
        self.returned = part.last().map_or(self.returned, |last| *last == b'\r');
        if self.bytes <= EVENT_BYTES_MAX + usize::from(self.returned) {
            self.carry.extend_from_slice(part);
            return;
        }
        let missing = DEAD_LETTER_BYTES_MAX.saturating_sub(self.carry.len());
        self.carry.extend_from_slice(&part[..part.len().min(missing)]);
        self.carry.truncate(DEAD_LETTER_BYTES_MAX);
        self.carry.shrink_to(DEAD_LETTER_BYTES_MAX);
    }

    fn hand_out(&mut self) -> Line<'_> {
        self.handed_out = true;
        let bytes = self.bytes - usize::from(self.returned);
        if bytes <= EVENT_BYTES_MAX {
            Line::Whole(&self.carry[..bytes])
        } else {
            Line::TooLong {
                head: &self.carry,
                bytes,
            }
        }
    }
}

/// Advances `chunk` behind the ends of lines that it begins with: no events, and there may be millions.
fn skip_empty(chunk: &mut &[u8]) {
    let ends = chunk.iter().take_while(|byte| **byte == b'\n').count();
    *chunk = &chunk[ends..];
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for chunk in chunks {
            let mut rest = *chunk;
            while let Some(line) = lines.next(&mut rest) {
                match line {
                    Line::Whole(line) => out.push(line.to_vec()),
                    Line::TooLong { bytes, .. } => out.push(format!("too long: {bytes}").into_bytes()),
                }
            }
            assert!(rest.is_empty());
        }
        match lines.last() {
            Some(Line::Whole(line)) => out.push(line.to_vec()),
            Some(Line::TooLong { bytes, .. }) => out.push(format!("too long: {bytes}").into_bytes()),
            None => {}
        }
        out
    }

    #[test]
    fn the_longest_line_is_whole_and_one_more_byte_is_not() {
        for parts in [1, 2, 7, 1_000] {
            for extra in [0, 1, 5_000_000] {
                let line = vec![b'x'; EVENT_BYTES_MAX + extra];
                let text = [line.as_slice(), b"\nshort\n"].concat();
                let chunks: Vec<&[u8]> = text.chunks(text.len().div_ceil(parts)).collect();
                let read = cut(&chunks);
                assert_eq!(read.len(), 2, "{parts} {extra}");
                assert_eq!(read[1], b"short");
                if extra == 0 {
                    assert_eq!(read[0].len(), EVENT_BYTES_MAX);
                } else {
                    assert_eq!(read[0], format!("too long: {}", line.len()).into_bytes());
                }
            }
        }
    }

    #[test]
    fn a_carriage_return_before_the_end_is_none_of_the_lines_bytes() {
        for parts in [1, 2, 7, 1_000] {
            for (extra, ends) in [
                (0, "\r\n"),
                (0, "\r"),
                (1, "\r\n"),
                (1, "\r"),
                (5_000_000, "\r\n"),
            ] {
                let text = [&vec![b'x'; EVENT_BYTES_MAX + extra], ends.as_bytes()].concat();
                let mut chunks: Vec<&[u8]> = text.chunks(text.len().div_ceil(parts)).collect();
                // The line's end may come by itself.
                let (last, end) = chunks.pop().map(|last| last.split_at(last.len() - 1)).unwrap();
                chunks.extend([last, end, b"short\r\r\n"]);
                let mut read = cut(&chunks);
                let whole = format!("too long: {}", EVENT_BYTES_MAX + extra).into_bytes();
                if ends == "\r\n" {
                    assert_eq!(read.pop().unwrap(), b"short\r", "{parts} {extra}");
                    assert_eq!(read.len(), 1);
                    assert!(read[0] == whole || (extra == 0 && read[0].len() == EVENT_BYTES_MAX));
                }
                let read = cut(&[&text]);
                assert!(
                    read[0] == whole || (extra == 0 && read[0].len() == EVENT_BYTES_MAX),
                    "{extra} {ends:?}"
                );
            }
        }
    }

    #[test]
    fn an_endless_line_takes_no_memory() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; 64 * 1024];
        for _ in 0..1_000 {
            let mut rest = chunk.as_slice();
            assert_eq!(lines.next(&mut rest), None);
            assert!(lines.held() <= 2 * EVENT_BYTES_MAX);
        }
        assert!(lines.held() <= 2 * DEAD_LETTER_BYTES_MAX);
        let Some(Line::TooLong { head, bytes }) = lines.last() else {
            panic!("the line is too long");
        };
        assert_eq!((head.len(), bytes), (DEAD_LETTER_BYTES_MAX, 64_000 * 1024));
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(text in "[a\r\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..6)) {
            let expected: Vec<Vec<u8>> = text
                .split('\n')
                .filter(|line| !line.is_empty())
                .map(|line| line.strip_suffix('\r').unwrap_or(line).into())
                .collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(cut(&chunks), expected);
        }
    }
}
