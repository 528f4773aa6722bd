//! Reading the values of several meters from the `data` of an event in one pass.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::path::{Path, Step};

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
    pub(super) fn find(&self, data: &str, fields: &mut Fields) -> Result<(), serde_json::Error> {
        fields.places.clear();
        fields.places.resize(self.known.len(), (0, 0));
        if self.known.is_empty() {
            return Ok(());
        }
        let found = Found {
            base: data.as_ptr() as usize,
            places: &mut fields.places,
        };
        let mut reader = serde_json::Deserializer::from_str(data);
        reader.deserialize_map(Walk {
            node: &self.root,
            found,
        })?;
        reader.end()
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

struct Found<'f> {
    base: usize,
    places: &'f mut Vec<(u32, u32)>,
}

impl Found<'_> {
    fn reborrow(&mut self) -> Found<'_> {
        Found {
            base: self.base,
            places: self.places,
        }
    }

    /// Takes `raw` as the value at `node`, replacing what an earlier, equal key had left there.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an event is shorter than 2 MiB (limits::EVENT_BYTES_MAX), so places in it fit 32 bits"
    )]
    fn take(&mut self, node: &Node, raw: &str) -> Result<(), serde_json::Error> {
        let start = raw.as_ptr() as usize - self.base;
        if let Some(slot) = node.slot {
            self.places[slot] = (start as u32, (start + raw.len()) as u32);
        }
        if node.members.is_empty() && node.elements.is_empty() {
            return Ok(());
        }
        self.clear_below(node);
        match raw.as_bytes().first() {
            Some(b'{' | b'[') => descend(node, raw, self.reborrow()),
            _ => Ok(()),
        }
    }

    fn clear_below(&mut self, node: &Node) {
        let below = node
            .members
            .iter()
            .map(|(_, n)| n)
            .chain(node.elements.iter().map(|(_, n)| n));
        for inner in below {
            if let Some(slot) = inner.slot {
                self.places[slot] = (0, 0);
            }
            self.clear_below(inner);
        }
    }
}

fn descend(node: &Node, raw: &str, found: Found<'_>) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(raw);
    let walk = Walk { node, found };
    if raw.as_bytes().first() == Some(&b'[') {
        reader.deserialize_seq(walk)?;
    } else {
        reader.deserialize_map(walk)?;
    }
    reader.end()
}

/// Walks one object or array, taking what the node's children name.
struct Walk<'n, 'f> {
    node: &'n Node,
    found: Found<'f>,
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(Key(self.node))? {
            match child {
                Some(node) => {
                    let raw: &RawValue = map.next_value()?;
                    self.found.take(node, raw.get()).map_err(A::Error::custom)?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut at = 0u32;
        loop {
            match self.node.elements.iter().find(|(wanted, _)| *wanted == at) {
                Some((_, node)) => match seq.next_element::<&RawValue>()? {
                    Some(raw) => self.found.take(node, raw.get()).map_err(A::Error::custom)?,
                    None => return Ok(()),
                },
                None if seq.next_element::<IgnoredAny>()?.is_none() => return Ok(()),
                None => {}
            }
            at = at.saturating_add(1);
        }
    }
}

/// Reads a key and finds the child that it names, without keeping the key.
struct Key<'n>(&'n Node);

impl<'de, 'n> DeserializeSeed<'de> for Key<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Key<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self
            .0
            .members
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, node)| node))
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
