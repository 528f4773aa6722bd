use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

/// The line, from 1, of every key of a TOML text that holds no table, or an empty one: the path's parts are joined by dots. Nothing for a
/// text that is no TOML.
pub(super) fn lines(text: &str) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    if let Ok(table) = DeTable::parse(text) {
        add(&mut all, text, "", table.get_ref());
    }
    all
}

fn add(all: &mut BTreeMap<String, usize>, text: &str, above: &str, table: &DeTable<'_>) {
    for (key, value) in table {
        let path = format!("{above}{}", key.get_ref());
        if let DeValue::Table(inner) = value.get_ref()
            && !inner.is_empty()
        {
            add(all, text, &format!("{path}."), inner);
        } else {
            let before = text.as_bytes().iter().take(key.span().start);
            all.insert(path, before.filter(|byte| **byte == b'\n').count() + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_line_that_they_stand_in() {
        let text = "# ü\nlisten = \"x\"\r\n\n[http]\ndrain_s = 1\ncors_origins = [\n\"a\",\n]\n\n[a]\nb.c = { d = 1 }\n[e]\n";
        let found: Vec<(String, usize)> = lines(text).into_iter().collect();
        let expected = [
            ("a.b.c.d", 11),
            ("e", 12),
            ("http.cors_origins", 6),
            ("http.drain_s", 5),
            ("listen", 2),
        ];
        assert_eq!(found, expected.map(|(key, line)| (key.to_owned(), line)));
        assert!(lines("= 1").is_empty());
    }
}
