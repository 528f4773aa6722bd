//! Tables as CSV, which people open with a spreadsheet.

use std::borrow::Cow;

use turnpike_domain::problem::{Code, Problem};

/// The media type of what [`csv`] writes.
pub(crate) const CSV: &str = "text/csv; charset=utf-8";

/// Rows as lines of CSV, in which no text is a formula: see [`inert`].
pub fn csv<T: AsRef<str>>(
    rows: impl IntoIterator<Item = impl IntoIterator<Item = T>>,
) -> Result<Vec<u8>, Problem> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    for row in rows {
        for text in row {
            writer
                .write_field(inert(text.as_ref()).as_bytes())
                .map_err(|error| unwritable(&error))?;
        }
        writer
            .write_record(None::<&[u8]>)
            .map_err(|error| unwritable(&error))?;
    }
    writer.into_inner().map_err(|error| unwritable(&error))
}

/// A text that a spreadsheet would take for a formula gets a quote before it: one that begins with `=`, `@`, a tab or a
/// carriage return, or with a sign and has more in it than letters, digits, `_`, `.`, `-` and spaces. All others (`-12.5`,
/// `+900`, `-m0`) stay as they are, so that keys are the same here as everywhere.
fn inert(text: &str) -> Cow<'_, str> {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_.- ".contains(&byte);
    let formula = match text.as_bytes() {
        [b'=' | b'@' | b'\t' | b'\r', ..] => true,
        [b'+' | b'-', rest @ ..] => !rest.iter().copied().all(harmless),
        _ => false,
    };
    if formula {
        return format!("'{text}").into();
    }
    text.into()
}

fn unwritable(error: &impl std::fmt::Display) -> Problem {
    Problem::new(Code::Internal, format!("rows cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_no_formulas() {
        let rows = [["a", "=1+1"], ["b,c", "-5"], ["", "d\"e"]];
        let text = String::from_utf8(csv(rows).unwrap()).unwrap();
        assert_eq!(text, "a,'=1+1\n\"b,c\",-5\n,\"d\"\"e\"\n");
    }

    #[test]
    fn formulas_are_made_inert() {
        for formula in [
            "=1+1",
            "@x",
            "\tx",
            "\r=x",
            "+SUM(A1)",
            "-cmd|' /C calc'!A0",
            "-1+1",
            "+é",
            "--x=y",
        ] {
            assert_eq!(inert(formula), format!("'{formula}"));
        }
        for text in [
            "", "-12.5", "+900", "-m0", "-a b", "-", "+", "a=b", "'x", "\n=x", "12",
        ] {
            assert_eq!(inert(text), text);
        }
    }
}
