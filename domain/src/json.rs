//! A strict reader of JSON (RFC 8259) in one pass over borrowed text: it checks everything and copies nothing.
//!
//! What `serde_json` skips unread (the inside of raw values) is checked here as well: the pairing of surrogates, and
//! how deep values are nested. Nesting costs one bit a level and no recursion, so that no input can overflow a stack.

use std::borrow::Cow;

/// Why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Syntax {
    /// Offset of the byte that cannot be.
    pub at: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// The kind of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// A string.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// `null`
    Null,
}

impl Kind {
    /// The kind with its article, for messages.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Null => "null",
        }
    }
}

/// A value as it stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// What it is.
    pub kind: Kind,
    /// The value's own bytes, without space around it.
    pub raw: &'a str,
    /// Whether a string in it (a key counts) has a surrogate that is not one of a pair.
    pub lone_surrogate: bool,
    /// Levels of objects and arrays: 0 for a scalar.
    pub depth: usize,
    /// Whether it is a string with an escape.
    escaped: bool,
}

impl<'a> Value<'a> {
    /// The text of a string; `None` for another kind and for a string that is no Unicode text.
    #[inline]
    pub fn text(&self) -> Option<Cow<'a, str>> {
        if self.kind != Kind::Text || self.lone_surrogate {
            return None;
        }
        if self.escaped {
            return serde_json::from_str::<String>(self.raw).ok().map(Cow::Owned);
        }
        self.raw.get(1..self.raw.len() - 1).map(Cow::Borrowed)
    }
}

/// Reads values one behind the other from a text.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Stands at the beginning of `text`.
    #[inline]
    pub const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Offset of the next byte.
    #[inline]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The text from `start` up to the next byte.
    #[inline]
    pub fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// The next byte that is not space, not taken yet.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    /// Takes `byte` if it is the next that is not space.
    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// An error unless only space is left.
    #[inline]
    pub fn end(&mut self) -> Result<(), Syntax> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.wrong("something follows the end of the JSON value")),
        }
    }

    /// An error at the next byte; at the end of the text it says so.
    pub fn wrong(&self, what: &'static str) -> Syntax {
        let ended = self.at >= self.text.len();
        Syntax {
            at: self.at,
            what: if ended { "the JSON ends early" } else { what },
        }
    }

    /// A key of an object and the colon behind it.
    #[inline]
    pub fn key(&mut self) -> Result<Value<'a>, Syntax> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong("a key in double quotes is missing"));
        }
        let start = self.at;
        let read = self.string()?;
        let raw = self.since(start);
        if !self.take(b':') {
            return Err(self.wrong("a colon is missing"));
        }
        Ok(Value {
            kind: Kind::Text,
            raw,
            lone_surrogate: read.lone_surrogate,
            depth: 0,
            escaped: read.escaped,
        })
    }

    /// The next value, whatever it is.
    #[inline]
    pub fn value(&mut self) -> Result<Value<'a>, Syntax> {
        let first = self.peek();
        let start = self.at;
        let mut read = StringRead::default();
        let mut depth = 0;
        let kind = match first {
            Some(bracket @ (b'{' | b'[')) => {
                let mut nesting = Nesting::default();
                read.lone_surrogate = self.nested(&mut nesting)?;
                depth = nesting.deepest;
                if bracket == b'{' {
                    Kind::Object
                } else {
                    Kind::Array
                }
            }
            Some(b'"') => {
                read = self.string()?;
                Kind::Text
            }
            _ => self.scalar()?,
        };
        Ok(Value {
            kind,
            raw: self.since(start),
            lone_surrogate: read.lone_surrogate,
            depth,
            escaped: read.escaped,
        })
    }

    /// An object or array with all that is in it. Answers whether a string in it has a lone surrogate.
    fn nested(&mut self, nesting: &mut Nesting) -> Result<bool, Syntax> {
        let mut lone_surrogate = false;
        loop {
            // Here a value is due.
            let closed_at_once = match self.peek() {
                Some(b'{') => {
                    self.at += 1;
                    nesting.open(true);
                    !self.first_key(&mut lone_surrogate)?
                }
                Some(b'[') => {
                    self.at += 1;
                    nesting.open(false);
                    self.peek() == Some(b']')
                }
                Some(b'"') => {
                    lone_surrogate |= self.string()?.lone_surrogate;
                    true
                }
                _ => {
                    self.scalar()?;
                    true
                }
            };
            if closed_at_once && self.close(nesting, &mut lone_surrogate)? {
                return Ok(lone_surrogate);
            }
        }
    }

    /// The first key behind `{`; `false` when the object is empty (its bracket is left).
    fn first_key(&mut self, lone_surrogate: &mut bool) -> Result<bool, Syntax> {
        if self.peek() == Some(b'}') {
            return Ok(false);
        }
        *lone_surrogate |= self.key()?.lone_surrogate;
        Ok(true)
    }

    /// Behind a value: closes brackets up to the next comma. Answers whether the outermost is closed.
    fn close(&mut self, nesting: &mut Nesting, lone_surrogate: &mut bool) -> Result<bool, Syntax> {
        loop {
            let in_object = nesting.in_object();
            match (self.peek(), in_object) {
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    if nesting.close() {
                        return Ok(true);
                    }
                }
                (Some(b','), true) => {
                    self.at += 1;
                    *lone_surrogate |= self.key()?.lone_surrogate;
                    return Ok(false);
                }
                (Some(b','), false) => {
                    self.at += 1;
                    return Ok(false);
                }
                (_, true) => return Err(self.wrong("a comma or a closing brace is missing")),
                (_, false) => return Err(self.wrong("a comma or a closing bracket is missing")),
            }
        }
    }

    fn scalar(&mut self) -> Result<Kind, Syntax> {
        let (word, kind) = match self.text.as_bytes().get(self.at) {
            Some(b'-' | b'0'..=b'9') => return self.number(),
            Some(b't') => ("true", Kind::Boolean),
            Some(b'f') => ("false", Kind::Boolean),
            Some(b'n') => ("null", Kind::Null),
            _ => return Err(self.wrong("a JSON value is missing")),
        };
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.wrong("a JSON value is missing"));
        }
        self.at += word.len();
        Ok(kind)
    }

    fn number(&mut self) -> Result<Kind, Syntax> {
        let bytes = self.text.as_bytes();
        self.at += usize::from(bytes.get(self.at) == Some(&b'-'));
        if bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Kind::Number)
    }

    fn digits(&mut self) -> Result<(), Syntax> {
        let rest = &self.text.as_bytes()[self.at.min(self.text.len())..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return Err(self.wrong("a digit is missing in a number"));
        }
        self.at += count;
        Ok(())
    }

    /// A string; the next byte is its opening quote.
    #[inline]
    fn string(&mut self) -> Result<StringRead, Syntax> {
        self.at += 1;
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let plain = plain_bytes(rest);
        self.at += plain;
        if rest.get(plain) == Some(&b'"') {
            self.at += 1;
            return Ok(StringRead::default());
        }
        self.rest_of_string()
    }

    /// The rest of a string from its first byte on that is neither its end nor stands for itself.
    #[cold]
    fn rest_of_string(&mut self) -> Result<StringRead, Syntax> {
        let bytes = self.text.as_bytes();
        let mut read = StringRead::default();
        loop {
            self.at += plain_bytes(&bytes[self.at..]);
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(read);
                }
                Some(b'\\') => {
                    read.escaped = true;
                    read.lone_surrogate |= self.escape()?;
                }
                _ => return Err(self.wrong("a control character stands unescaped in a string")),
            }
        }
    }

    /// An escape; the next byte is its backslash. Answers whether it is a surrogate without its other half.
    fn escape(&mut self) -> Result<bool, Syntax> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        match bytes.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(false)
            }
            Some(b'u') => {
                self.at += 1;
                let unit = self.hex()?;
                if !(0xD800..0xE000).contains(&unit) {
                    return Ok(false);
                }
                let second = bytes[self.at..].starts_with(b"\\u");
                if unit >= 0xDC00 || !second {
                    return Ok(true);
                }
                let behind_first = self.at;
                self.at += 2;
                let paired = (0xDC00..0xE000).contains(&self.hex()?);
                if !paired {
                    // The second may itself begin a pair: it is read again as an escape of its own.
                    self.at = behind_first;
                }
                Ok(!paired)
            }
            _ => Err(self.wrong("an escape in a string is unknown")),
        }
    }

    fn hex(&mut self) -> Result<u32, Syntax> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let unit = digits.and_then(|digits| {
            digits.iter().try_fold(0, |unit, digit| {
                Some(unit * 16 + char::from(*digit).to_digit(16)?)
            })
        });
        match unit {
            Some(unit) => {
                self.at += 4;
                Ok(unit)
            }
            None => Err(self.wrong("four hexadecimal digits are missing in an escape")),
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct StringRead {
    escaped: bool,
    lone_surrogate: bool,
}

/// Which brackets are open: one bit a level, set for an object.
#[derive(Debug, Default)]
struct Nesting {
    bits: u64,
    depth: usize,
    deepest: usize,
    /// Full words of the outer levels, beyond 64.
    outer: Vec<u64>,
}

impl Nesting {
    fn open(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(object);
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
    }

    const fn in_object(&self) -> bool {
        self.bits & 1 == 1
    }

    /// Closes the innermost; answers whether it was the last.
    fn close(&mut self) -> bool {
        self.bits >>= 1;
        self.depth = self.depth.saturating_sub(1);
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().unwrap_or_default();
        }
        self.depth == 0
    }
}

const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);

/// How many bytes come before the first quote, backslash or control character: eight are looked at together.
#[inline]
fn plain_bytes(bytes: &[u8]) -> usize {
    let mut at = 0;
    let (words, _) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        // A borrow can mark a byte wrongly only above a rightly marked one, and the lowest mark is what counts.
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let marks = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let marks = marks & TOPS;
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = &bytes[at..];
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1F);
    at + rest.iter().position(special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests;
