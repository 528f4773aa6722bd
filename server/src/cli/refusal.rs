//! What the server refused, in words that say what to do next.

use std::fmt::Write as _;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use turnpike_client::transport;

use super::CommandError;
use super::client::{Body, Client};
use crate::config::did_you_mean;

/// Keys that are listed where none is near to what was meant.
const LISTED_MAX: usize = 10;
/// Where the keys of each kind are listed, and how the first one comes to be.
const COLLECTIONS: [(&str, &str, &str); 6] = [
    ("meter", "/v1/meters", DECLARED),
    ("feature", "/v1/features", DECLARED),
    ("plan", "/v1/plans", DECLARED),
    ("customer", "/v1/customers", "PUT /v1/customers/KEY makes one."),
    (
        "invoice",
        "/v1/invoices",
        "turnpike invoice run bills what has ended.",
    ),
    ("key", "/v1/keys", "turnpike keys create makes one."),
];
const DECLARED: &str = "turnpike apply declares them.";

/// An answer that is no success.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// After which time it asks to be called again.
    pub(super) retry_after: Option<Duration>,
    text: String,
}

impl Refusal {
    /// The whole of it.
    pub(super) async fn read(response: Response) -> Result<Self, reqwest::Error> {
        Ok(Self {
            status: response.status(),
            retry_after: transport::retry_after(response.headers()),
            text: response.text().await?,
        })
    }
}

/// The refusal of a call that was tried so many times, with a hint where one can be found.
pub(super) async fn refused(
    client: &Client,
    (method, path): (&Method, &str),
    refusal: &Refusal,
    tries: u32,
) -> CommandError {
    let problem: Value = serde_json::from_str(&refusal.text).unwrap_or_default();
    let mut words = words(refusal, &problem, tries);
    if problem["code"] == "not_found"
        && let Some((kind, key)) = problem["detail"].as_str().and_then(missing)
        && let Some(hint) = near(client, kind, key).await
    {
        let _ = write!(words, "\n{hint}");
    }
    let place = path.split('?').next().unwrap_or(path);
    CommandError::refused(format!("{method} {place}: {words}"), problem)
}

/// What the server said, and what to do about it.
fn words(Refusal { status, text, .. }: &Refusal, problem: &Value, tries: u32) -> String {
    let mut words = match problem["detail"].as_str() {
        Some(detail) => format!(
            "{detail} ({}, HTTP {})",
            problem["code"].as_str().unwrap_or("?"),
            status.as_u16()
        ),
        None => format!(
            "HTTP {status} {}\nThat is not how Turnpike answers: is --server (TURNPIKE_SERVER) right?",
            text.chars().take(300).collect::<String>()
        ),
    };
    for field in problem["errors"].as_array().into_iter().flatten() {
        let text = |name: &str| field[name].as_str().unwrap_or("");
        // A single one is often the detail itself.
        if !words.starts_with(&format!("{} {}", text("pointer"), text("detail"))) {
            let _ = write!(words, "\n  {}: {}", text("pointer"), text("detail"));
        }
    }
    match problem["code"].as_str() {
        Some("unauthorized") => words.push_str("\nCheck --api-key or TURNPIKE_API_KEY."),
        Some("forbidden") => words.push_str(
            "\nUse a key with that scope; an admin key makes one: turnpike keys create NAME --scope SCOPE",
        ),
        Some("rate_limited" | "overloaded") => words.push_str("\nTry again later."),
        _ => {}
    }
    if tries > 1 {
        let _ = write!(words, "\nIt was tried {tries} times.");
    }
    if let Some(id) = problem["request_id"]
        .as_str()
        .filter(|_| status.is_server_error())
    {
        let _ = write!(words, "\nThe server's log has more under request_id {id}.");
    }
    words
}

/// Kind and key of what `there is no meter "x"` says.
fn missing(detail: &str) -> Option<(&str, &str)> {
    let (kind, rest) = detail.strip_prefix("there is no ")?.split_once(" \"")?;
    Some((kind, rest.strip_suffix('"')?))
}

/// What was perhaps meant; nothing where that cannot be seen.
async fn near(client: &Client, kind: &str, key: &str) -> Option<String> {
    let (_, path, first) = COLLECTIONS.iter().find(|(one, ..)| *one == kind)?;
    let path = format!("{path}?limit=1000");
    let listed = client.send(Method::GET, &path, Body::None).await.ok()?;
    let page: Value = listed.json().await.ok()?;
    let name = if matches!(kind, "invoice" | "key") {
        "id"
    } else {
        "key"
    };
    let keys: Vec<&str> = page["data"]
        .as_array()?
        .iter()
        .filter_map(|row| row[name].as_str())
        .collect();
    if let Some(near) = did_you_mean(key, keys.iter().copied()) {
        return Some(format!("Did you mean \"{near}\"?"));
    }
    Some(match keys.len() {
        0 => format!("There is no {kind} at all yet: {first}"),
        1..=LISTED_MAX => format!("There are: {}.", keys.join(", ")),
        many => format!(
            "There are {many}; GET {} lists them.",
            path.split('?').next().unwrap_or("")
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_is_read_from_the_words() {
        assert_eq!(missing("there is no meter \"a b\""), Some(("meter", "a b")));
        assert_eq!(missing("there is nothing at this path"), None);
    }

    /// The words about an answer with this status that is `problem`, after so many tries.
    fn told(status: StatusCode, problem: &Value, tries: u32) -> String {
        let refusal = Refusal {
            status,
            retry_after: None,
            text: problem.to_string(),
        };
        words(&refusal, problem, tries)
    }

    #[test]
    fn refusals_say_what_to_do() {
        let problem = json!({"code": "forbidden", "detail": "this key lacks the scope \"read\""});
        assert!(told(StatusCode::FORBIDDEN, &problem, 1).contains("keys create"));
        let problem = json!({"code": "internal", "detail": "it failed", "request_id": "r1"});
        assert!(told(StatusCode::INTERNAL_SERVER_ERROR, &problem, 1).contains("request_id r1"));
        assert!(told(StatusCode::NOT_FOUND, &Value::Null, 1).contains("--server"));
        let problem = json!({"code": "invalid", "detail": "2 fields", "errors": [{"pointer": "/a", "detail": "is wrong"}]});
        assert!(told(StatusCode::UNPROCESSABLE_ENTITY, &problem, 1).ends_with("\n  /a: is wrong"));
        let problem = json!({"code": "invalid", "detail": "/a is wrong", "errors": [{"pointer": "/a", "detail": "is wrong"}]});
        assert_eq!(
            told(StatusCode::UNPROCESSABLE_ENTITY, &problem, 1),
            "/a is wrong (invalid, HTTP 422)"
        );
        let problem = json!({"code": "overloaded", "detail": "it is full"});
        let once = "it is full (overloaded, HTTP 503)\nTry again later.";
        assert_eq!(told(StatusCode::SERVICE_UNAVAILABLE, &problem, 1), once);
        let often = format!("{once}\nIt was tried 9 times.");
        assert_eq!(told(StatusCode::SERVICE_UNAVAILABLE, &problem, 9), often);
    }
}
