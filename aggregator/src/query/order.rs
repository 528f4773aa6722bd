//! The order of groups: one in which a short text tells every place, however long the groups are.

use std::cmp::Ordering;

/// Bytes of a group's texts that decide its place as they are. A cursor holds them: with the rest of it, and in base64, it
/// stays below 4 KiB, which every server and proxy takes in a request's target.
pub(crate) const TEXT_BYTES_MAX: usize = 2_500;

/// The place of a group, whether or not there is one: groups ascend by their texts, as far as [`TEXT_BYTES_MAX`] of all of
/// them reach, and those that are longer and begin alike by a digest of all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupPlace {
    pub beginning: Vec<String>,
    /// Of the whole group, where `beginning` is not all of it.
    pub digest: Option<String>,
}

impl GroupPlace {
    pub(crate) fn of(group: &[String]) -> Self {
        Self {
            beginning: beginning(group).map(str::to_owned).collect(),
            digest: digest(group),
        }
    }

    /// The first of its group's texts, which is whole where it is a subject or a customer.
    pub(crate) fn first(&self) -> Option<&str> {
        self.beginning.first().map(String::as_str)
    }

    /// Whether a group stands before it, at it, or behind it.
    pub(crate) fn order_of(&self, group: &[String]) -> Ordering {
        let texts = self.beginning.iter().map(String::as_str);
        let order = beginning(group).cmp(texts);
        order.then_with(|| digest(group).cmp(&self.digest))
    }
}

/// The order of the places of two groups.
pub(crate) fn order(one: &[String], other: &[String]) -> Ordering {
    let order = beginning(one).cmp(beginning(other));
    order.then_with(|| digest(one).cmp(&digest(other)))
}

/// The texts of a group, up to [`TEXT_BYTES_MAX`] of all of them.
fn beginning(group: &[String]) -> impl Iterator<Item = &str> {
    let cut = |left: &mut Option<usize>, text: &'_ String| {
        let bytes = (*left)?;
        let end = text.floor_char_boundary(bytes);
        *left = (end == text.len()).then(|| bytes - end);
        Some(end)
    };
    let ends = group.iter().scan(Some(TEXT_BYTES_MAX), cut);
    group.iter().zip(ends).map(|(text, end)| &text[..end])
}

/// Of a group that is longer than its beginning.
fn digest(group: &[String]) -> Option<String> {
    if group.iter().map(String::len).sum::<usize>() <= TEXT_BYTES_MAX {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    for text in group {
        hasher
            .update(&(text.len() as u64).to_le_bytes())
            .update(text.as_bytes());
    }
    Some(hasher.finalize().to_hex()[..32].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups() -> Vec<Vec<String>> {
        let x = |bytes: usize| "x".repeat(bytes);
        let long = |last: &str| vec![x(2_048), "y".repeat(2_048), last.to_owned()];
        vec![
            vec![],
            vec![String::new()],
            vec![String::new(), "a".to_owned()],
            vec!["a".to_owned(), "b".to_owned()],
            vec!["ab".to_owned()],
            vec![x(TEXT_BYTES_MAX)],
            vec![x(TEXT_BYTES_MAX), String::new()],
            vec![x(TEXT_BYTES_MAX), "z".to_owned()],
            vec![x(TEXT_BYTES_MAX + 1)],
            // The bound lies within a character.
            vec![x(TEXT_BYTES_MAX - 1), "ü".to_owned()],
            vec!["ü".repeat(2_000), "y".to_owned()],
            long("a"),
            long("b"),
            long("c"),
        ]
    }

    #[test]
    fn a_place_stands_where_its_group_does() {
        for one in groups() {
            for other in groups() {
                let (here, there) = (GroupPlace::of(&one), GroupPlace::of(&other));
                let expected = here.cmp(&there);
                assert_eq!(order(&one, &other), expected);
                assert_eq!(there.order_of(&one), expected);
                assert_eq!(expected == Ordering::Equal, one == other);
            }
        }
    }

    #[test]
    fn short_groups_ascend_by_their_texts() {
        for one in groups() {
            for other in groups() {
                let is_short = |group: &[String]| GroupPlace::of(group).digest.is_none();
                if is_short(&one) && is_short(&other) {
                    assert_eq!(order(&one, &other), one.cmp(&other));
                }
            }
        }
    }
}
