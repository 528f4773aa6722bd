/// What a line has.
pub(crate) const COLUMNS: [&str; 10] = [
    "host",
    "user",
    "time",
    "method",
    "path",
    "protocol",
    "status",
    "bytes",
    "referer",
    "user_agent",
];

/// Reads a line of the combined log format, or of the common one, which lacks the last two fields:
/// `host ident user [time] "request" status bytes "referer" "user agent"`. What is `-` is left out.
/// Source: Apache HTTP Server, mod_log_config.
pub(crate) fn columns(line: &str) -> Result<Vec<(String, String)>, String> {
    let mut rest = line.trim_end();
    let host = word(&mut rest).ok_or("the line is empty")?;
    let ident = word(&mut rest);
    let user = word(&mut rest);
    let (Some(_), Some(user)) = (ident, user) else {
        return Err("expected: host ident user [time] \"request\" status bytes".to_owned());
    };
    let time = between(&mut rest, '[', ']').ok_or("expected a time in brackets behind the user")?;
    let request = quoted(&mut rest).ok_or("expected the request in quotes behind the time")?;
    let status = word(&mut rest).ok_or("expected a status behind the request")?;
    let bytes = word(&mut rest).ok_or("expected the bytes behind the status")?;
    let referer = quoted(&mut rest);
    let agent = quoted(&mut rest);
    if status.len() != 3 || !status.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("\"{status}\" is not a status"));
    }
    let mut columns = vec![
        ("host", host.to_owned()),
        ("user", user.to_owned()),
        ("time", time.to_owned()),
    ];
    columns.extend(request_columns(&request));
    columns.extend([("status", status.to_owned()), ("bytes", bytes.to_owned())]);
    columns.extend(referer.map(|text| ("referer", text)));
    columns.extend(agent.map(|text| ("user_agent", text)));
    columns.retain(|(_, value)| value != "-");
    Ok(columns
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

/// `GET /path?query HTTP/1.1`. The query is left out: it often holds personal data. What is no request line is the path.
fn request_columns(request: &str) -> Vec<(&'static str, String)> {
    let parts: Vec<&str> = request.split(' ').collect();
    let [method, target, protocol] = parts[..] else {
        return vec![("path", request.to_owned())];
    };
    let path = target.split(['?', '#']).next().unwrap_or(target);
    vec![
        ("method", method.to_owned()),
        ("path", path.to_owned()),
        ("protocol", protocol.to_owned()),
    ]
}

fn word<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let text = rest.trim_start();
    let end = text.find(' ').unwrap_or(text.len());
    let (word, behind) = text.split_at(end);
    *rest = behind;
    (!word.is_empty()).then_some(word)
}

fn between<'a>(rest: &mut &'a str, open: char, close: char) -> Option<&'a str> {
    let inside = rest.trim_start().strip_prefix(open)?;
    let (inside, behind) = inside.split_once(close)?;
    *rest = behind;
    Some(inside)
}

/// A text in quotes, in which `\"` and `\\` stand for themselves.
fn quoted(rest: &mut &str) -> Option<String> {
    let inside = rest.trim_start().strip_prefix('"')?;
    let mut text = String::new();
    let mut letters = inside.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => {
                *rest = &inside[at + 1..];
                return Some(text);
            }
            '\\' => match letters.next() {
                Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                Some((_, other)) => text.extend(['\\', other]),
                None => return None,
            },
            other => text.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(line: &str, name: &str) -> Option<String> {
        columns(line)
            .unwrap()
            .into_iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    const LINE: &str = r#"83.149.9.216 - bob [17/May/2015:10:05:03 +0000] "GET /a/b.png?user=x HTTP/1.1" 200 203023 "http://a.example/" "Mozilla \"5\" (X)""#;

    #[test]
    fn the_combined_format_is_read() {
        for (name, expected) in [
            ("host", "83.149.9.216"),
            ("user", "bob"),
            ("time", "17/May/2015:10:05:03 +0000"),
            ("method", "GET"),
            ("path", "/a/b.png"),
            ("protocol", "HTTP/1.1"),
            ("status", "200"),
            ("bytes", "203023"),
            ("referer", "http://a.example/"),
            ("user_agent", "Mozilla \"5\" (X)"),
        ] {
            assert_eq!(get(LINE, name).as_deref(), Some(expected), "{name}");
        }
        let names: Vec<String> = columns(LINE).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, COLUMNS);
    }

    #[test]
    fn what_is_missing_is_left_out() {
        let common = r#"h - - [17/May/2015:10:05:03 +0000] "-" 408 -"#;
        assert_eq!(get(common, "bytes"), None);
        assert_eq!(get(common, "user"), None);
        assert_eq!(get(common, "path"), None);
        assert_eq!(get(common, "referer"), None);
        assert_eq!(get(common, "status").as_deref(), Some("408"));
    }

    #[test]
    fn what_is_no_log_line_is_refused() {
        for bad in [
            "",
            "a b c",
            "a - - [t] GET / 200 1",
            r#"a - - [t] "GET / HTTP/1.1" ok 1"#,
            r#"a - - [t] "GET / HTTP"#,
            r#"a - - [t "x" 200 1"#,
        ] {
            assert!(columns(bad).is_err(), "{bad}");
        }
    }
}
