use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use turnpike_domain::problem::Problem;

/// Bytes of the check before the place.
const CHECK_BYTES: usize = 6;

/// A place in a list, as callers see it: a text that means nothing to them and that they hand back. A text that was not
/// written here for the same list is refused, so that a wrong cursor never looks like a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    /// The cursor of what lies behind `place` in `list`. Only the list itself understands its places, and no other list
    /// takes the cursor.
    pub fn of(list: &str, place: &str) -> Self {
        let place = place.as_bytes();
        let bytes = [&check(list, place)[..], place].concat();
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The place in `list` behind which a page begins that is asked for with `cursor=text`; `None` for the first, which an
    /// empty text means too.
    pub fn after(list: &str, text: Option<&str>) -> Result<Option<String>, Problem> {
        match text {
            None | Some("") => Ok(None),
            Some(text) => match place_in(list, text) {
                Some(place) => Ok(Some(place)),
                None => Err(Problem::invalid("/cursor", "is not a next_cursor of this list")),
            },
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What [`Cursor::of`] wrote for `list`; `None` for anything else.
fn place_in(list: &str, text: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (said, place) = bytes.split_first_chunk()?;
    let place = (*said == check(list, place)).then(|| place.to_vec())?;
    String::from_utf8(place).ok()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_here_comes_back() {
        for place in ["a", "plan-1", "ключ/\u{1}", "17.0.3"] {
            let written = Cursor::of("list", place).to_string();
            assert_eq!(place_in("list", &written).as_deref(), Some(place));
            assert_eq!(place_in("list", place), None);
            let mut changed = written.clone();
            changed.push('A');
            assert_eq!(place_in("list", &changed), None);
        }
        for wrong in ["x", "0", "null", "AAAAAAAA", "AAAAAAAAAAAA", "%00"] {
            assert!(Cursor::after("list", Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn another_lists_cursor_is_refused() {
        let written = Cursor::of("events", "17").to_string();
        assert_eq!(Cursor::after("events", Some(&written)), Ok(Some("17".to_owned())));
        for other in ["", "dead letters", "event", "events 17"] {
            assert!(Cursor::after(other, Some(&written)).is_err(), "{other}");
        }
        assert_eq!(Cursor::after("events", Some("")), Ok(None));
        assert_eq!(Cursor::after("events", None), Ok(None));
    }
}
