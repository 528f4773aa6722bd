//! Rows as JSON on a line each.

use serde::Serialize;
use turnpike_domain::problem::{Code, Problem};

/// The media type of what [`ndjson`] writes.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// Rows as lines of JSON.
pub fn ndjson<T: Serialize>(rows: impl IntoIterator<Item = T>) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut out, &row)
            .map_err(|error| Problem::new(Code::Internal, format!("rows cannot be written: {error}")))?;
        out.push(b'\n');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_a_line_of_its_own() {
        let lines = ndjson(["a\nb", ""]).unwrap();
        assert_eq!(String::from_utf8(lines).unwrap(), "\"a\\nb\"\n\"\"\n");
        assert_eq!(ndjson::<&str>([]).unwrap(), b"");
    }
}
