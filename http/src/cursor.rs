use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use turnpike_domain::problem::Problem;

/// Bytes of the check before the place.
const CHECK_BYTES: usize = 6;

/// A place in a list. Callers see it as a text that means nothing to them and hand it back; a text that was not written
/// here is refused, so that a wrong cursor never looks like a page.
#[derive(Debug, Clone, Default, PartialEq, Eq, utoipa::ToSchema)]
#[schema(value_type = String)]
pub struct Cursor(At);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct At {
    /// The list that the place belongs to, with the query where that shapes its places; empty for a list in the order of
    /// its keys.
    list: String,
    place: String,
}

impl Cursor {
    /// The cursor of what lies behind `place`, which only the list itself understands.
    pub fn new(place: impl Into<String>) -> Self {
        Self::of("", place)
    }

    /// The same, of `list` alone: no other list takes it.
    pub fn of(list: impl Into<String>, place: impl Into<String>) -> Self {
        Self(At {
            list: list.into(),
            place: place.into(),
        })
    }

    /// The place; `None` for the beginning, which an empty cursor means.
    pub fn place(&self) -> Option<&str> {
        Some(self.0.place.as_str()).filter(|place| !place.is_empty())
    }

    /// As callers see it.
    pub fn encode(&self) -> String {
        let place = self.0.place.as_bytes();
        let bytes: Vec<u8> = check(&self.0.list, place)
            .into_iter()
            .chain(place.iter().copied())
            .collect();
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What [`Cursor::encode`] wrote for `list`, or an empty text; `None` for anything else.
    pub fn decode(list: &str, text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::of(list, ""));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (said, place) = bytes.split_first_chunk()?;
        let place = (*said == check(list, place)).then(|| place.to_vec())?;
        String::from_utf8(place).ok().map(|place| Self::of(list, place))
    }

    /// The place in `list` behind which a page begins that is asked for with `cursor=text`; `None` for the first.
    pub fn after(list: &str, text: Option<&str>) -> Result<Option<String>, Problem> {
        let Some(text) = text else {
            return Ok(None);
        };
        let cursor = Self::decode(list, text).ok_or_else(|| Problem::invalid("/cursor", NOT_OURS))?;
        Ok(cursor.place().map(str::to_owned))
    }
}

const NOT_OURS: &str = "is not a next_cursor of this list";

/// Tells a cursor of ours from other texts. It is no secret: a cursor opens nothing that its caller may not see.
fn check(list: &str, place: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = blake3::Hasher::new()
        .update(b"turnpike cursor\0")
        .update(list.as_bytes())
        .update(b"\0")
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
        Self::decode("", &text).ok_or_else(|| D::Error::custom(NOT_OURS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_here_comes_back() {
        for place in ["a", "plan-1", "ключ/\u{1}", "17.0.3"] {
            let written = Cursor::new(place).encode();
            assert_eq!(Cursor::decode("", &written).unwrap().place(), Some(place));
            assert!(Cursor::decode("", place).is_none(), "{place}");
            let mut changed = written.clone();
            changed.push('A');
            assert!(Cursor::decode("", &changed).is_none(), "{changed}");
        }
        assert_eq!(Cursor::decode("", "").unwrap().place(), None);
        for wrong in ["x", "0", "null", "AAAAAAAA", "AAAAAAAAAAAA", "%00"] {
            assert!(Cursor::decode("", wrong).is_none(), "{wrong}");
        }
    }
    #[test]
    fn another_lists_cursor_is_none() {
        let written = Cursor::of("events", "17").encode();
        assert_eq!(Cursor::after("events", Some(&written)), Ok(Some("17".to_owned())));
        for other in ["", "dead letters", "event", "events 17"] {
            assert!(Cursor::after(other, Some(&written)).is_err(), "{other}");
        }
        assert!(Cursor::after("events", Some(&Cursor::new("17").encode())).is_err());
        assert_eq!(Cursor::after("events", Some("")), Ok(None));
        assert_eq!(Cursor::after("events", None), Ok(None));
    }
}
