//! A dictionary of texts as Python writes it: what its clients send where a query parameter is a `dict`.

use std::iter::Peekable;
use std::str::Chars;

/// Keys and values of `{'model': "o'brien"}`; `None` for anything else than a dictionary of string literals.
/// Source: The Python Language Reference, section 2.5.1 "Escape sequences".
pub(super) fn dict(text: &str) -> Option<Vec<(String, String)>> {
    let mut rest = text.chars().peekable();
    let mut pairs = Vec::new();
    expect(&mut rest, '{')?;
    while !take(&mut rest, '}') {
        if !pairs.is_empty() {
            expect(&mut rest, ',')?;
            if take(&mut rest, '}') {
                break;
            }
        }
        let key = literal(&mut rest)?;
        expect(&mut rest, ':')?;
        pairs.push((key, literal(&mut rest)?));
    }
    skip_space(&mut rest);
    rest.next().is_none().then_some(pairs)
}

fn skip_space(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(char::is_ascii_whitespace).is_some() {}
}

fn take(rest: &mut Peekable<Chars<'_>>, wanted: char) -> bool {
    skip_space(rest);
    rest.next_if_eq(&wanted).is_some()
}

fn expect(rest: &mut Peekable<Chars<'_>>, wanted: char) -> Option<()> {
    take(rest, wanted).then_some(())
}

fn literal(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    skip_space(rest);
    let quote = rest.next_if(|c| matches!(c, '\'' | '"'))?;
    let mut text = String::new();
    loop {
        match rest.next()? {
            c if c == quote => return Some(text),
            '\\' => text.push(escaped(rest)?),
            c => text.push(c),
        }
    }
}

fn escaped(rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    match rest.next()? {
        c @ ('\\' | '\'' | '"') => Some(c),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'x' => code(rest, 2),
        'u' => code(rest, 4),
        'U' => code(rest, 8),
        _ => None,
    }
}

fn code(rest: &mut Peekable<Chars<'_>>, digits: usize) -> Option<char> {
    let mut code = 0_u32;
    for _ in 0..digits {
        code = code.checked_mul(16)? + rest.next()?.to_digit(16)?;
    }
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_writes_is_read() {
        for (text, expected) in [
            ("{}", &[][..]),
            ("{'model': 'gpt-4'}", &[("model", "gpt-4")]),
            (
                r#"{'model': "o'brien", 'b': 'x'}"#,
                &[("model", "o'brien"), ("b", "x")],
            ),
            (r#"{'m': 'both \' and "', }"#, &[("m", "both ' and \"")]),
            (
                r"{'m': 'a\\b\n\t\r\x1b\xe9\u20ac\U0001f600'}",
                &[("m", "a\\b\n\t\r\u{1b}é€😀")],
            ),
            ("{'m': 'ключ'}", &[("m", "ключ")]),
        ] {
            let read = dict(text).unwrap_or_else(|| panic!("{text}"));
            let read: Vec<_> = read
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect();
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn anything_else_is_not() {
        for text in [
            "",
            "{",
            "x",
            "{'a'}",
            "{'a': 1}",
            "{'a': None}",
            "{'a': ['b']}",
            "{'a': 'b'} x",
            "{'a': 'b' 'c': 'd'}",
            "{, }",
            "{'a': 'b}",
            r"{'a': '\q'}",
            r"{'a': '\ud800'}",
            r"{'a': '\x1'}",
            "{'a': \"b'}",
        ] {
            assert_eq!(dict(text), None, "{text}");
        }
    }
}
