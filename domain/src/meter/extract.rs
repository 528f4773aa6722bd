//! Reading the values of several meters from the `data` of an event in one pass.

use std::borrow::Cow;

use super::path::{Path, Step};
use crate::json::{Scanner, Syntax, Value};

/// The paths that some meters need, as one tree; each path has a slot.
#[derive(Debug, Default)]
pub(super) struct Paths {
    root: Node,
    known: Vec<Path>,
}

#[derive(Debug, Default)]
struct Node {
    slot: Option<usize>,
    members: Vec<(String, Node)>,
    elements: Vec<(u32, Node)>,
}

/// Where the values of an event's paths stand in its `data`. Kept by the caller from event to event.
#[derive(Debug, Default)]
pub struct Fields {
    places: Vec<(u32, u32)>,
}

impl Fields {
    /// The JSON text in `slot`; `None` where the path leads nowhere.
    pub fn get<'a>(&self, data: &'a str, slot: usize) -> Option<&'a str> {
        let (start, end) = *self.places.get(slot)?;
        data.get(start as usize..end as usize)
            .filter(|raw| !raw.is_empty())
    }
}

impl Paths {
    /// The slot of `path`, added if it is new.
    pub(super) fn slot(&mut self, path: &Path) -> usize {
        if let Some(at) = self.known.iter().position(|known| known == path) {
            return at;
        }
        let mut node = &mut self.root;
        for step in path.steps() {
            node = match step {
                Step::Member(name) => child(&mut node.members, name),
                Step::Index(at) => child(&mut node.elements, at),
            };
        }
        node.slot = Some(self.known.len());
        self.known.push(path.clone());
        self.known.len() - 1
    }

    /// Finds all paths in `data`. Among equal keys of one object the last counts. An error when `data` is no JSON object.
    pub(super) fn find(&self, data: &str, fields: &mut Fields) -> Result<(), Syntax> {
        fields.places.clear();
        fields.places.resize(self.known.len(), (0, 0));
        if self.known.is_empty() {
            return Ok(());
        }
        let mut walk = Walk {
            scanner: Scanner::new(data),
            places: &mut fields.places,
        };
        if !walk.scanner.take(b'{') {
            return Err(walk.scanner.wrong("an object is missing"));
        }
        walk.object(&self.root)?;
        walk.scanner.end()
    }
}

fn child<'a, K: PartialEq<Q>, Q: ?Sized + ToOwned<Owned = K>>(
    children: &'a mut Vec<(K, Node)>,
    key: &Q,
) -> &'a mut Node {
    let at = children.iter().position(|(k, _)| *k == *key);
    let at = at.unwrap_or_else(|| {
        children.push((key.to_owned(), Node::default()));
        children.len() - 1
    });
    &mut children[at].1
}

impl Node {
    /// The child that a key names.
    fn member(&self, key: &Value<'_>) -> Option<&Self> {
        let name = key.text()?;
        let found = self.members.iter().find(|(member, _)| **member == *name);
        found.map(|(_, node)| node)
    }

    /// The child that stands for the element at `place`.
    fn element(&self, place: u32) -> Option<&Self> {
        let found = self.elements.iter().find(|(wanted, _)| *wanted == place);
        found.map(|(_, node)| node)
    }
}

/// Walks `data` once, taking what nodes name. Goes into what a path leads into and no deeper.
struct Walk<'d, 'f> {
    scanner: Scanner<'d>,
    places: &'f mut Vec<(u32, u32)>,
}

impl Walk<'_, '_> {
    /// The members of an object; its brace has been taken.
    fn object(&mut self, node: &Node) -> Result<(), Syntax> {
        if self.scanner.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.scanner.key()?;
            self.value(node.member(&key))?;
            if self.scanner.take(b'}') {
                return Ok(());
            }
            if !self.scanner.take(b',') {
                return Err(self.scanner.wrong("a comma or a closing brace is missing"));
            }
        }
    }

    /// The elements of an array; its bracket has been taken.
    fn array(&mut self, node: &Node) -> Result<(), Syntax> {
        if self.scanner.take(b']') {
            return Ok(());
        }
        for place in 0.. {
            self.value(node.element(place))?;
            if self.scanner.take(b']') {
                break;
            }
            if !self.scanner.take(b',') {
                return Err(self.scanner.wrong("a comma or a closing bracket is missing"));
            }
        }
        Ok(())
    }

    /// The next value, which `node` stands for. It replaces what an earlier, equal key had left there.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an event is shorter than 2 MiB (limits::EVENT_BYTES_MAX), so places in it fit 32 bits"
    )]
    fn value(&mut self, node: Option<&Node>) -> Result<(), Syntax> {
        let Some(node) = node else {
            return self.scanner.value().map(|_| ());
        };
        self.clear_below(node);
        let first = self.scanner.peek();
        let start = self.scanner.at();
        match first {
            Some(b'{') if !node.members.is_empty() => {
                self.scanner.take(b'{');
                self.object(node)?;
            }
            Some(b'[') if !node.elements.is_empty() => {
                self.scanner.take(b'[');
                self.array(node)?;
            }
            _ => {
                self.scanner.value()?;
            }
        }
        if let Some(slot) = node.slot {
            self.places[slot] = (start as u32, self.scanner.at() as u32);
        }
        Ok(())
    }

    fn clear_below(&mut self, node: &Node) {
        let members = node.members.iter().map(|(_, inner)| inner);
        for inner in members.chain(node.elements.iter().map(|(_, inner)| inner)) {
            if let Some(slot) = inner.slot {
                self.places[slot] = (0, 0);
            }
            self.clear_below(inner);
        }
    }
}

/// The text of a dimension at `slot`; empty where the event has none.
pub(super) fn dimension<'a>(fields: &Fields, data: &'a str, slot: usize) -> Cow<'a, str> {
    fields.get(data, slot).map_or(Cow::Borrowed(""), |raw| {
        super::scalar::Scalar::of(raw).dimension()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(paths: &[&str], data: &'a str) -> Vec<Option<&'a str>> {
        let mut tree = Paths::default();
        let slots: Vec<usize> = paths
            .iter()
            .map(|p| tree.slot(&Path::parse(p).unwrap()))
            .collect();
        let mut fields = Fields::default();
        tree.find(data, &mut fields).unwrap();
        slots.into_iter().map(|slot| fields.get(data, slot)).collect()
    }

    #[test]
    fn finds_values_as_they_are_spelled() {
        let data = r#" {"a": 1.50e1, "b": {"c": "x\n", "d": [10, {"e": 1e999}]}, "skip": [1e999, {"a": 2}], "k y": null} "#;
        let paths = [
            "$.a",
            "$.b.c",
            "$.b.d[0]",
            "$.b.d[1].e",
            "$['k y']",
            "$.b.x",
            "$.a.b",
            "$.b.d[7]",
            "$.b",
        ];
        assert_eq!(
            found(&paths, data),
            [
                Some("1.50e1"),
                Some(r#""x\n""#),
                Some("10"),
                Some("1e999"),
                Some("null"),
                None,
                None,
                None,
                Some(r#"{"c": "x\n", "d": [10, {"e": 1e999}]}"#),
            ]
        );
    }

    #[test]
    fn reads_escaped_keys_and_lets_the_last_of_equal_ones_count() {
        assert_eq!(found(&["$.ab"], r#"{"\u0061b": 1, "ab": 2}"#), [Some("2")]);
        assert_eq!(
            found(&["$.a.b", "$.a.c"], r#"{"a": {"b": 1}, "a": {"c": 2}}"#),
            [None, Some("2")]
        );
        assert_eq!(found(&["$.a.b"], r#"{"a": {"b": 1}, "a": 3}"#), [None]);
    }

    #[test]
    fn a_member_is_no_element() {
        assert_eq!(
            found(&["$.a[0]", "$.a['0']"], r#"{"a": {"0": 1}}"#),
            [None, Some("1")]
        );
        assert_eq!(found(&["$.a[0]", "$.a['0']"], r#"{"a": [1]}"#), [Some("1"), None]);
    }

    #[test]
    fn refuses_what_is_no_object() {
        let mut tree = Paths::default();
        tree.slot(&Path::parse("$.a").unwrap());
        for data in ["", "1", r#"{"a": }"#, r#"{"a": 1} x"#, r#"{"a": 1"#] {
            assert!(tree.find(data, &mut Fields::default()).is_err(), "{data}");
        }
    }
}
