/// The candidate nearest to `given`, where one is near enough to be what was meant.
pub(crate) fn did_you_mean<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Of a short word few letters may differ, or it would be another word.
    let bound = ((given.chars().count() + 1) / 3).max(1);
    candidates
        .map(|candidate| (distance(given, candidate), candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements between two texts (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("listen", "listen", 0),
            ("lisen", "listen", 1),
            ("kitten", "sitting", 3),
            ("", "abc", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn only_what_is_near_is_proposed() {
        let keys = ["listen", "data_dir", "http.drain_s"];
        assert_eq!(did_you_mean("data_dri", keys.into_iter()), Some("data_dir"));
        assert_eq!(
            did_you_mean("http.drains", keys.into_iter()),
            Some("http.drain_s")
        );
        assert_eq!(did_you_mean("colour", keys.into_iter()), None);
        assert_eq!(did_you_mean("when", ["who", "n"].into_iter()), None);
    }
}
