//! Places between the rows of a usage query, as its cursors hold them.

use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;

use crate::query::{GroupPlace, UsageRow};

/// The place of a row, whether or not it is still there: the start of its window, and that of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    start: Timestamp,
    group: GroupPlace,
}

impl Place {
    pub(super) fn of(row: &UsageRow) -> Self {
        Self {
            start: row.window.start,
            group: GroupPlace::of(&row.group),
        }
    }

    /// Its window's start, and its place among the groups of that.
    pub(super) fn parts(self) -> (Timestamp, GroupPlace) {
        (self.start, self.group)
    }

    /// As text, which [`Self::read`] reads. Texts stand behind their lengths.
    pub(super) fn text(&self) -> String {
        let GroupPlace { beginning, digest } = &self.group;
        let digest = digest.as_deref().unwrap_or_default();
        let head = format!("{}.{digest}.", self.start.micros());
        beginning
            .iter()
            .fold(head, |all, text| format!("{all}{}:{text}", text.len()))
    }

    pub(super) fn read(text: &str) -> Result<Self, Problem> {
        Self::parsed(text).ok_or_else(|| Problem::invalid("/cursor", "is not a next_cursor of this query"))
    }

    fn parsed(text: &str) -> Option<Self> {
        let (start, rest) = text.split_once('.')?;
        let (digest, mut rest) = rest.split_once('.')?;
        let mut beginning = Vec::new();
        while !rest.is_empty() {
            let (length, behind) = rest.split_once(':')?;
            let (text, behind) = behind.split_at_checked(length.parse().ok()?)?;
            beginning.push(text.to_owned());
            rest = behind;
        }
        let digest = (!digest.is_empty()).then(|| digest.to_owned());
        Some(Self {
            start: Timestamp::from_micros(start.parse().ok()?).ok()?,
            group: GroupPlace { beginning, digest },
        })
    }
}

#[cfg(test)]
mod tests {
    use turnpike_domain::time::TimeRange;
    use turnpike_http::Cursor;

    use super::*;
    use crate::query::TEXT_BYTES_MAX;

    fn place(group: &[String]) -> Place {
        let start = Timestamp::parse("2026-01-01T02:00:00Z").unwrap();
        Place::of(&UsageRow {
            window: TimeRange::new(start, Timestamp::MAX),
            group: group.to_vec(),
            value: Ok(None),
        })
    }

    #[test]
    fn places_come_back() {
        for group in [
            vec![],
            vec![String::new()],
            vec!["a\0b".to_owned(), String::new(), "1:2.3".to_owned()],
            vec!["x".repeat(TEXT_BYTES_MAX)],
            vec!["ü".repeat(2_000), "y".to_owned()],
        ] {
            let written = place(&group);
            assert_eq!(Place::read(&written.text()), Ok(written.clone()));
            assert!(written.group.order_of(&group).is_eq());
            let is_long = group.iter().map(String::len).sum::<usize>() > TEXT_BYTES_MAX;
            assert_eq!(written.group.digest.is_some(), is_long);
        }
        for wrong in ["", "x", "1", "1.", "-1.0", "1..x", "1..3:ab", "1..1:ü"] {
            assert!(Place::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_longest_group_gives_a_short_cursor() {
        let mut group = vec!["\0".repeat(512), "\0".repeat(512)];
        group.extend((0..6).map(|_| "\0".repeat(2_048)));
        let cursor = Cursor::of("list", &place(&group).text()).to_string();
        assert!(cursor.len() < 4_096, "{} characters", cursor.len());
    }
}
