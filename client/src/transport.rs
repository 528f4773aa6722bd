//! What every caller of the API over HTTP needs, also for calls that this crate has no function for.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use rustls::crypto::CryptoProvider;

/// What RFC 3986 reserves or does not name.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// An HTTP client to be made for the server at `base`: through the environment's proxy, if there is one, except to what
/// listens on this machine alone. Where the process has not chosen its TLS yet, ring's is installed.
pub fn builder(base: &str) -> reqwest::ClientBuilder {
    if CryptoProvider::get_default().is_none() {
        // Another part may choose at the same time: the first choice stands.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let builder = reqwest::Client::builder();
    if on_this_machine(base) {
        return builder.no_proxy();
    }
    builder
}

fn on_this_machine(base: &str) -> bool {
    let url = Url::parse(base).ok();
    let host = url.as_ref().and_then(Url::host_str);
    host.is_some_and(|host| host == "localhost" || host == "[::1]" || host.starts_with("127."))
}

/// Whether the same call may be taken later: too much at once, a body that came too slowly, or (from a proxy before the
/// server) nobody there just now.
pub fn may_retry(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::BAD_GATEWAY
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// After which time an answer asks to be called again.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?;
    value.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// A text as one part of a path or query. A part that is dots alone would be taken for a step in the path.
pub fn encode(text: &str) -> String {
    if !text.is_empty() && text.bytes().all(|byte| byte == b'.') {
        return "%2E".repeat(text.len());
    }
    utf8_percent_encode(text, RESERVED).to_string()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the client is no part of the engine, which alone is replayed"
)]
pub(crate) fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_stands_before_this_machine() {
        for here in [
            "http://127.0.0.1:8080",
            "http://localhost:80/x",
            "http://[::1]:9",
            "http://127.9.9.9",
        ] {
            assert!(on_this_machine(here), "{here}");
        }
        for there in [
            "https://turnpike.example",
            "http://10.0.0.1",
            "http://localhost.example",
            "no address",
        ] {
            assert!(!on_this_machine(there), "{there}");
        }
    }

    #[test]
    fn parts_of_paths_are_encoded_where_they_must_be() {
        for (given, expected) in [
            ("context_tokens-1.2~", "context_tokens-1.2~"),
            ("a/b?c#d e%", "a%2Fb%3Fc%23d%20e%25"),
            ("..", "%2E%2E"),
            ("ü", "%C3%BC"),
            ("2026-01-01T00:00:00+01:00", "2026-01-01T00%3A00%3A00%2B01%3A00"),
        ] {
            assert_eq!(encode(given), expected);
        }
    }
}
