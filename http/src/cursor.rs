use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of the check before the place.
const CHECK_BYTES: usize = 6;

/// A place in a list. Callers see it as a text that means nothing to them and hand it back; a text that was not written
/// here is refused, so that a wrong cursor never looks like a page.
#[derive(Debug, Clone, Default, PartialEq, Eq, utoipa::ToSchema)]
#[schema(value_type = String)]
pub struct Cursor(String);

impl Cursor {
    /// The cursor of what lies behind `place`, which only the list itself understands.
    pub fn new(place: impl Into<String>) -> Self {
        Self(place.into())
    }

    /// The place; `None` for the beginning, which an empty cursor means.
    pub fn place(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|place| !place.is_empty())
    }

    /// As callers see it.
    pub fn encode(&self) -> String {
        let place = self.0.as_bytes();
        let bytes: Vec<u8> = check(place).into_iter().chain(place.iter().copied()).collect();
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What [`Cursor::encode`] wrote, or an empty text; `None` for anything else.
    pub fn decode(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (said, place) = bytes.split_first_chunk()?;
        let place = (*said == check(place)).then(|| place.to_vec())?;
        String::from_utf8(place).ok().map(Self)
    }
}

/// Tells a cursor of ours from other texts. It is no secret: a cursor opens nothing that its caller may not see.
fn check(place: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = blake3::Hasher::new()
        .update(b"turnpike cursor\0")
        .update(place)
        .finalize();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hash.as_bytes()[..CHECK_BYTES]);
    check
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.encode())
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::decode(&text).ok_or_else(|| D::Error::custom("is not a next_cursor of this list"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_here_comes_back() {
        for place in ["a", "plan-1", "ключ/\u{1}", "17.0.3"] {
            let written = Cursor::new(place).encode();
            assert_eq!(Cursor::decode(&written).unwrap().place(), Some(place));
            assert!(Cursor::decode(place).is_none(), "{place}");
            let mut changed = written.clone();
            changed.push('A');
            assert!(Cursor::decode(&changed).is_none(), "{changed}");
        }
        assert_eq!(Cursor::decode("").unwrap().place(), None);
        for wrong in ["x", "0", "null", "AAAAAAAA", "AAAAAAAAAAAA", "%00"] {
            assert!(Cursor::decode(wrong).is_none(), "{wrong}");
        }
    }
}
