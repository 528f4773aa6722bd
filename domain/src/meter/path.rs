use std::fmt;

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The member of an object.
    Member(String),
    /// The element of an array, from 0.
    Index(u32),
}

/// A path into the `data` of an event: `$.a.b`, `$['a key']`, `$["a key"]`, `$.list[0].x`.
///
/// A subset of RFC 9535 that names exactly one value: no wildcards, slices, filters or descendants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Step>);

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `$`.
    #[error("must begin with $, as in $.tokens")]
    NoRoot,
    /// It is `$` alone.
    #[error("must name a field, as in $.tokens")]
    RootOnly,
    /// A step cannot be read.
    #[error("cannot be read from \"{0}\" on: write $.name, $['a name'] or $.list[0]")]
    Step(String),
    /// More than 16 steps.
    #[error("has more than {STEPS_MAX} steps")]
    TooDeep,
}

/// Steps of a path at the most.
const STEPS_MAX: usize = 16;

impl Path {
    /// Reads a path.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let mut rest = text.strip_prefix('$').ok_or(PathError::NoRoot)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, behind) = step(rest).ok_or_else(|| PathError::Step(rest.to_owned()))?;
            steps.push(step);
            rest = behind;
            if steps.len() > STEPS_MAX {
                return Err(PathError::TooDeep);
            }
        }
        if steps.is_empty() {
            return Err(PathError::RootOnly);
        }
        Ok(Self(steps))
    }

    /// Its steps from the root.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '$' | '@' | ':' | '/');
        return (!name.is_empty() && name.chars().all(plain)).then(|| (Step::Member(name.to_owned()), rest));
    }
    let rest = text.strip_prefix('[')?;
    if let Some(quote @ ('\'' | '"')) = rest.chars().next() {
        let (name, rest) = quoted(&rest[1..], quote)?;
        return Some((Step::Member(name), rest.strip_prefix(']')?));
    }
    let (digits, rest) = rest.split_once(']')?;
    let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    canonical.then_some(())?;
    Some((Step::Index(digits.parse().ok()?), rest))
}

/// The text until the closing quote; a backslash stands before a quote or a backslash.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next()?.1 {
                escaped @ ('\\' | '\'' | '"') => name.push(escaped),
                _ => return None,
            },
            c if c == quote => return (!name.is_empty()).then(|| (name, &text[at + 1..])),
            c => name.push(c),
        }
    }
    None
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        for step in &self.0 {
            match step {
                Step::Index(at) => write!(f, "[{at}]")?,
                Step::Member(name) => {
                    write!(f, "['{}']", name.replace('\\', "\\\\").replace('\'', "\\'"))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(name: &str) -> Step {
        Step::Member(name.to_owned())
    }

    #[test]
    fn reads_members_and_elements() {
        for (text, steps) in [
            ("$.tokens", vec![member("tokens")]),
            ("$.a.b-c", vec![member("a"), member("b-c")]),
            ("$['a key'].x", vec![member("a key"), member("x")]),
            (r#"$["it's"]"#, vec![member("it's")]),
            (r"$['it\'s \\']", vec![member(r"it's \")]),
            ("$.a[0][12]", vec![member("a"), Step::Index(0), Step::Index(12)]),
            ("$.größe", vec![member("größe")]),
        ] {
            assert_eq!(Path::parse(text).unwrap().steps(), steps, "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "tokens",
            "$",
            "$.",
            "$..a",
            "$.a.",
            "$a",
            "$[",
            "$[]",
            "$['a'",
            "$['']",
            "$[01]",
            "$[-1]",
            "$[*]",
            "$.*",
            "$.a b",
            "$['a'x]",
            "$[4294967296]",
            r"$['\n']",
            "$.a[?(@.b)]",
        ] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            Path::parse(&format!("${}", ".a".repeat(17))),
            Err(PathError::TooDeep)
        );
    }

    proptest! {
        #[test]
        fn display_then_parse_is_the_same(names in prop::collection::vec((".{1,8}", any::<Option<u32>>()), 1..5)) {
            let steps = names.into_iter().map(|(name, at)| at.map_or(Step::Member(name), Step::Index)).collect();
            let path = Path(steps);
            prop_assert_eq!(Path::parse(&path.to_string()), Ok(path));
        }
    }
}
