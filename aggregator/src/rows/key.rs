//! Keys of rows. All begin with a kind and the tenant. Numbers are big-endian, so that keys ascend with them; texts end
//! with `00 01`, a zero byte inside is `00 FF`, so that no text is a prefix of another. Specified in docs/views-format.md.
//!
//! | kind | key behind kind and tenant | value |
//! |---|---|---|
//! | 1 window | meter, level, subject, value of each dimension, bucket | a cell |
//! | 2 open reservation | 128-bit name | the `Reserved` record, counted |
//! | 3 dead letter of a meter | position of the event's first record, meter | the reason, counted |
//! | 4 dead letter of a refused event | position of the `Rejected` record | an empty note, counted |

use std::ops::Range;

use turnpike_domain::identity::{EventName, MeterId, TenantId};

const WINDOW: u8 = 1;
const RESERVATION: u8 = 2;
const UNREADABLE: u8 = 3;
const REFUSED: u8 = 4;

/// Bytes of kind, tenant, meter, level before the series of a window.
pub(crate) const WINDOW_HEAD: usize = 10;

/// How long a bucket of windows is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Minute = 0,
    Hour = 1,
    Day = 2,
}

impl Level {
    /// Minutes of a bucket.
    pub(crate) const fn minutes(self) -> u32 {
        match self {
            Self::Minute => 1,
            Self::Hour => 60,
            Self::Day => 24 * 60,
        }
    }
}

/// Appends `text` with its end.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    if text.as_bytes().contains(&0) {
        for byte in text.bytes() {
            out.push(byte);
            if byte == 0 {
                out.push(0xff);
            }
        }
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(&[0, 1]);
}

/// Reads the texts that [`put_text`] wrote one behind the other; `None` for other bytes.
pub(crate) fn texts(mut bytes: &[u8]) -> Option<Vec<String>> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let mut text = Vec::new();
        loop {
            match bytes {
                [0, 1, rest @ ..] => {
                    bytes = rest;
                    break;
                }
                [0, 0xff, rest @ ..] => {
                    text.push(0);
                    bytes = rest;
                }
                [0, ..] | [] => return None,
                [byte, rest @ ..] => {
                    text.push(*byte);
                    bytes = rest;
                }
            }
        }
        texts.push(String::from_utf8(text).ok()?);
    }
    Some(texts)
}

/// `bytes` in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The bytes of [`hex`]; `None` for other texts.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|c| u8::try_from(c.to_digit(16)?).ok());
    let digits = digits.collect::<Option<Vec<u8>>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn head(kind: u8, tenant: TenantId) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.push(kind);
    key.extend_from_slice(&tenant.0.to_be_bytes());
    key
}

/// All keys that begin with `prefix`.
pub(crate) fn all(prefix: Vec<u8>) -> Range<Vec<u8>> {
    let mut end = prefix.clone();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    prefix..end
}

pub(crate) fn is_window(key: &[u8]) -> bool {
    key.first() == Some(&WINDOW)
}

/// The beginning of all windows of a meter at a level.
pub(crate) fn windows(tenant: TenantId, meter: MeterId, level: Level) -> Vec<u8> {
    let mut key = head(WINDOW, tenant);
    key.extend_from_slice(&meter.0.to_be_bytes());
    key.push(level as u8);
    key
}

/// A window. `series` holds the texts of the subject and of each dimension.
pub(crate) fn window(tenant: TenantId, meter: MeterId, level: Level, series: &[u8], bucket: u32) -> Vec<u8> {
    let mut key = windows(tenant, meter, level);
    key.extend_from_slice(series);
    key.extend_from_slice(&bucket.to_be_bytes());
    key
}

/// Series and bucket of a window's key.
pub(crate) fn series_and_bucket(key: &[u8]) -> Option<(&[u8], u32)> {
    let (rest, bucket) = key.get(WINDOW_HEAD..)?.split_last_chunk()?;
    Some((rest, u32::from_be_bytes(*bucket)))
}

/// Tenant, meter and level of a window's key.
pub(crate) fn window_head(key: &[u8]) -> Option<(TenantId, MeterId, u8)> {
    let number = |at: usize| key.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    is_window(key).then_some(())?;
    Some((TenantId(number(1)?), MeterId(number(5)?), *key.get(9)?))
}

pub(crate) fn reservation(tenant: TenantId, name: EventName) -> Vec<u8> {
    let mut key = head(RESERVATION, tenant);
    key.extend_from_slice(&name.0.to_be_bytes());
    key
}

/// The keys of the open reservations of all tenants.
pub(crate) fn reservations() -> Range<Vec<u8>> {
    all(vec![RESERVATION])
}

pub(crate) fn is_reservation(key: &[u8]) -> bool {
    key.first() == Some(&RESERVATION)
}

pub(crate) fn unreadable(tenant: TenantId, position: u64, meter: MeterId) -> Vec<u8> {
    let mut key = head(UNREADABLE, tenant);
    key.extend_from_slice(&position.to_be_bytes());
    key.extend_from_slice(&meter.0.to_be_bytes());
    key
}

/// The keys of a tenant's dead letters of meters before `position` (all of them: `u64::MAX`).
pub(crate) fn unreadables(tenant: TenantId, before: u64) -> Range<Vec<u8>> {
    let head = head(UNREADABLE, tenant);
    let mut end = head.clone();
    end.extend_from_slice(&before.to_be_bytes());
    head..end
}

pub(crate) fn refused(tenant: TenantId, position: u64) -> Vec<u8> {
    let mut key = head(REFUSED, tenant);
    key.extend_from_slice(&position.to_be_bytes());
    key
}

/// The keys of a tenant's refused events before `position`.
pub(crate) fn refusals(tenant: TenantId, before: u64) -> Range<Vec<u8>> {
    let head = head(REFUSED, tenant);
    let mut end = head.clone();
    end.extend_from_slice(&before.to_be_bytes());
    head..end
}

/// The position in the key of a dead letter.
pub(crate) fn letter_position(key: &[u8]) -> Option<u64> {
    key.get(5..13)?.try_into().ok().map(u64::from_be_bytes)
}

/// The meter in the key of a dead letter of a meter; `None` for other kinds.
pub(crate) fn letter_meter(key: &[u8]) -> Option<MeterId> {
    (key.first() == Some(&UNREADABLE)).then_some(())?;
    key.get(13..17)?
        .try_into()
        .ok()
        .map(|bytes| MeterId(u32::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(texts: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for text in texts {
            put_text(&mut out, text);
        }
        out
    }

    #[test]
    fn texts_come_back_and_never_run_into_each_other() {
        let all = [
            &["a", "b"][..],
            &["ab", ""],
            &["", "ab"],
            &["a\0", "b"],
            &["a", "\0b"],
            &["a\0\u{1}", "b"],
            &["a"],
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(texts(&series(one)).unwrap(), *one);
            for other in &all[at + 1..] {
                let (one, other) = (series(one), series(other));
                assert!(!one.starts_with(&other) || one.len() > other.len());
                assert_ne!(one, other);
            }
        }
        assert_eq!(texts(b"a"), None);
        assert_eq!(texts(b"a\0\x02"), None);
    }

    #[test]
    fn windows_of_a_subject_lie_together_in_the_order_of_time() {
        let key =
            |subject: &str, bucket| window(TenantId(1), MeterId(2), Level::Hour, &series(&[subject]), bucket);
        let mut prefix = windows(TenantId(1), MeterId(2), Level::Hour);
        put_text(&mut prefix, "a");
        let range = all(prefix);
        for (subject, inside) in [
            ("a", true),
            ("a\0", false),
            ("ab", false),
            ("", false),
            ("a\u{1}", false),
        ] {
            for bucket in [0, 255, 256, u32::MAX] {
                assert_eq!(range.contains(&key(subject, bucket)), inside, "{subject:?}");
            }
        }
        assert!(key("a", 255) < key("a", 256));
        let long = key("a\0b", 7);
        assert_eq!(series_and_bucket(&long), Some((series(&["a\0b"]).as_slice(), 7)));
        assert_eq!(window_head(&long), Some((TenantId(1), MeterId(2), 1)));
    }

    #[test]
    fn letters_are_found_by_position() {
        let range = unreadables(TenantId(1), 10);
        assert!(range.contains(&unreadable(TenantId(1), 9, MeterId(3))));
        assert!(!range.contains(&unreadable(TenantId(1), 10, MeterId(0))));
        assert!(!range.contains(&unreadable(TenantId(2), 9, MeterId(3))));
        assert_eq!(letter_position(&refused(TenantId(1), 77)), Some(77));
        assert_eq!(
            letter_meter(&unreadable(TenantId(1), 9, MeterId(3))),
            Some(MeterId(3))
        );
        assert_eq!(letter_meter(&refused(TenantId(1), 9)), None);
        assert!(refusals(TenantId(1), u64::MAX).contains(&refused(TenantId(1), 5)));
    }

    #[test]
    fn a_prefix_ends_before_the_next() {
        assert_eq!(all(vec![1, 0xff]), vec![1, 0xff]..vec![2]);
    }
}
