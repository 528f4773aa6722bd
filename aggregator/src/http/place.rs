//! Places between the rows of a usage query, as its cursors hold them.

use std::sync::Arc;

use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::Meter;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;

use crate::Aggregator;
use crate::query::{UsageQuery, UsageRow};

/// Bytes of a group's texts that a cursor holds: with the rest of it, and in base64, it stays below 4 KiB, which every
/// server and proxy takes in a request's target.
const TEXT_BYTES_MAX: usize = 2_500;
/// Rows that are looked through at a time for the one that a cursor stands behind.
const LOOKED_THROUGH_ROWS: usize = 1_000;

/// The place of a row: the start of its window, and its group. A group of long texts is told by their beginning, below
/// which it does not lie, and a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    start: Timestamp,
    group: Vec<String>,
    /// Of the whole group, where `group` is its beginning.
    digest: Option<String>,
}

impl Place {
    pub(super) fn of(row: &UsageRow) -> Self {
        let start = row.window.start;
        let group = beginning(&row.group);
        let digest = (group != row.group).then(|| digest(&row.group));
        Self { start, group, digest }
    }

    /// As text, which [`Self::read`] reads. Texts stand behind their lengths.
    pub(super) fn text(&self) -> String {
        let digest = self.digest.as_deref().unwrap_or_default();
        let head = format!("{}.{digest}.", self.start.micros());
        self.group
            .iter()
            .fold(head, |all, text| format!("{all}{}:{text}", text.len()))
    }

    pub(super) fn read(text: &str) -> Result<Self, Problem> {
        Self::parsed(text).ok_or_else(|| Problem::invalid("/cursor", "is not a next_cursor of this query"))
    }

    fn parsed(text: &str) -> Option<Self> {
        let (start, rest) = text.split_once('.')?;
        let (digest, mut rest) = rest.split_once('.')?;
        let mut group = Vec::new();
        while !rest.is_empty() {
            let (length, behind) = rest.split_once(':')?;
            let (text, behind) = behind.split_at_checked(length.parse().ok()?)?;
            group.push(text.to_owned());
            rest = behind;
        }
        Some(Self {
            start: Timestamp::from_micros(start.parse().ok()?).ok()?,
            group,
            digest: (!digest.is_empty()).then(|| digest.to_owned()),
        })
    }

    /// The start and whole group of the row, which is looked for where it is told by a digest. An error when it is there
    /// no more: what lies behind it is then unknown.
    pub(super) async fn whole(
        self,
        aggregator: &Aggregator,
        of: &(TenantId, Arc<Meter>),
        query: &UsageQuery,
    ) -> Result<(Timestamp, Vec<String>), Problem> {
        let Some(sought) = self.digest else {
            return Ok((self.start, self.group));
        };
        let mut behind = self.group.clone();
        loop {
            let after = Some((self.start, behind));
            let page = aggregator.usage_page(of.clone(), query.clone(), after, LOOKED_THROUGH_ROWS);
            let (rows, _, more) = page.await?;
            let begins =
                |row: &&UsageRow| row.window.start == self.start && begins_with(&row.group, &self.group);
            let mut near = rows.iter().take_while(begins);
            if let Some(found) = near.find(|row| digest(&row.group) == sought) {
                return Ok((self.start, found.group.clone()));
            }
            let Some(last) = rows.last().filter(|row| more && begins(row)) else {
                let detail = "stands behind a row that is there no more: begin with the first page again";
                return Err(Problem::invalid("/cursor", detail));
            };
            behind = last.group.clone();
        }
    }
}

/// The texts of a group, up to [`TEXT_BYTES_MAX`] of all of them.
fn beginning(group: &[String]) -> Vec<String> {
    let mut left = TEXT_BYTES_MAX;
    let mut kept = Vec::new();
    for text in group {
        let cut = &text[..text.floor_char_boundary(left)];
        kept.push(cut.to_owned());
        left -= cut.len();
        if cut.len() < text.len() {
            break;
        }
    }
    kept
}

/// Whether `group` begins with what [`beginning`] left of one: the last of its texts is a beginning too.
fn begins_with(group: &[String], beginning: &[String]) -> bool {
    let Some((last, whole)) = beginning.split_last() else {
        return true;
    };
    group
        .strip_prefix(whole)
        .and_then(<[String]>::first)
        .is_some_and(|text| text.starts_with(last.as_str()))
}

fn digest(group: &[String]) -> String {
    let mut hasher = blake3::Hasher::new();
    for text in group {
        hasher
            .update(&(text.len() as u64).to_le_bytes())
            .update(text.as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use turnpike_domain::time::TimeRange;
    use turnpike_http::Cursor;

    use super::*;

    fn place(group: &[String]) -> Place {
        let start = Timestamp::parse("2026-01-01T02:00:00Z").unwrap();
        Place::of(&UsageRow {
            window: TimeRange::new(start, Timestamp::MAX),
            group: group.to_vec(),
            value: None,
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
            assert!(begins_with(&group, &written.group) && written.group <= group);
            let is_long = group.iter().map(String::len).sum::<usize>() > TEXT_BYTES_MAX;
            assert_eq!(
                (written.digest.is_some(), written.group == group),
                (is_long, !is_long)
            );
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

    #[test]
    fn groups_of_one_beginning_are_told_apart() {
        let group = |last: &str| vec!["x".repeat(2_048), "y".repeat(2_048), last.to_owned()];
        assert_eq!(place(&group("a")).group, place(&group("b")).group);
        assert_ne!(place(&group("a")), place(&group("b")));
        assert!(!begins_with(&["x".to_owned()], &place(&group("a")).group));
    }
}
