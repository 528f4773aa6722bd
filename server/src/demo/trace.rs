use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Real usage, compiled in; `data/README.md` names its source and licence.
const CSV: &str = include_str!("data/llm_inference_code.csv");

/// The customers, and how many of ten rows are theirs.
pub(crate) const CUSTOMERS: [(&str, &str, usize); 3] = [
    ("acme", "Acme Corporation", 5),
    ("globex", "Globex", 3),
    ("initech", "Initech", 2),
];

/// A request of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) number: usize,
    /// RFC 3339.
    date: &'static str,
    time: &'static str,
    pub(crate) context_tokens: u64,
    pub(crate) generated_tokens: u64,
}

impl Request {
    /// Whose it is, by the rule of `data/README.md`.
    pub(crate) fn customer(&self) -> &'static str {
        let mut share = self.number % 10;
        for (key, _, of_ten) in CUSTOMERS {
            if share < of_ten {
                return key;
            }
            share -= of_ten;
        }
        CUSTOMERS[0].0
    }
}

/// Requests, tokens in and tokens out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) requests: u64,
    pub(crate) context_tokens: u64,
    pub(crate) generated_tokens: u64,
}

/// The whole trace; lines that are no request are left out, of which there are none.
pub(crate) fn requests() -> Vec<Request> {
    CSV.lines()
        .skip(1)
        .filter(|line| !line.trim().is_empty())
        .enumerate()
        .filter_map(|(number, line)| read(number, line))
        .collect()
}

fn read(number: usize, line: &'static str) -> Option<Request> {
    let mut fields = line.trim().split(',');
    let (date, time) = fields.next()?.split_once(' ')?;
    Some(Request {
        number,
        date,
        time,
        context_tokens: fields.next()?.parse().ok()?,
        generated_tokens: fields.next()?.parse().ok()?,
    })
}

/// The sums of each customer, added up here, without the engine.
pub(crate) fn sums(requests: &[Request]) -> BTreeMap<&'static str, Sums> {
    let mut all: BTreeMap<&'static str, Sums> = BTreeMap::new();
    for request in requests {
        let sums = all.entry(request.customer()).or_default();
        sums.requests += 1;
        sums.context_tokens += request.context_tokens;
        sums.generated_tokens += request.generated_tokens;
    }
    all
}

/// Requests as NDJSON.
pub(crate) fn ndjson(requests: &[Request]) -> Vec<u8> {
    let mut lines = String::new();
    for request in requests {
        // Nothing in the trace needs escaping; writing to a text cannot fail.
        let _ = writeln!(
            lines,
            r#"{{"id":"code-{}","source":"azure-llm-trace","type":"llm.request","subject":"{}","time":"{}T{}Z","data":{{"context_tokens":{},"generated_tokens":{}}}}}"#,
            request.number,
            request.customer(),
            request.date,
            request.time,
            request.context_tokens,
            request.generated_tokens,
        );
    }
    lines.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_is_whole() {
        let all = requests();
        assert_eq!(all.len(), 8_819);
        let sums = sums(&all);
        let requests: u64 = sums.values().map(|sums| sums.requests).sum();
        assert_eq!(
            (requests, sums["acme"].requests, sums["initech"].requests),
            (8_819, 4_410, 1_763)
        );
        let context: u64 = sums.values().map(|sums| sums.context_tokens).sum();
        let generated: u64 = sums.values().map(|sums| sums.generated_tokens).sum();
        // Added up by awk over the file.
        assert_eq!((context, generated), (CONTEXT, GENERATED));
    }

    const CONTEXT: u64 = 18_059_974;
    const GENERATED: u64 = 245_896;

    #[test]
    fn lines_are_events() {
        let lines = String::from_utf8(ndjson(&requests()[..2])).unwrap();
        let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert_eq!(first["time"], "2023-11-16T18:17:03.9799600Z");
        assert_eq!(
            first["data"],
            serde_json::json!({"context_tokens": 4808, "generated_tokens": 10})
        );
        assert_eq!(first["subject"], "acme");
    }
}
