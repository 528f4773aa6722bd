//! Calls with an API key.

use reqwest::Method;
use serde_json::Value;

/// Somebody with an API key.
#[derive(Clone)]
pub struct Caller {
    pub(super) base: String,
    pub(super) api_key: String,
    pub(super) client: reqwest::Client,
}

/// Status and JSON body; `None` when no answer came.
pub type Answer = Option<(u16, Value)>;

impl Caller {
    /// The key.
    pub fn api_key(&self) -> String {
        self.api_key.clone()
    }

    /// Sends a request with a JSON body, if any.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.api_key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let text = answer.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Sends NDJSON lines. A refusal that waiting heals must say for how long.
    pub async fn send_lines(&self, lines: Vec<u8>) -> Answer {
        let request = self
            .client
            .post(format!("{}/v1/events", self.base))
            .bearer_auth(&self.api_key);
        let answer = request
            .header("content-type", "application/x-ndjson")
            .body(lines)
            .send()
            .await
            .ok()?;
        let status = answer.status().as_u16();
        let is_told = answer.headers().contains_key("retry-after");
        assert!(
            is_told || !matches!(status, 429 | 503),
            "{status} without Retry-After"
        );
        let text = answer.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// GET, which must answer.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send(Method::GET, path, None)
            .await
            .unwrap_or_else(|| panic!("GET {path}: no answer"))
    }

    /// POST, which must answer.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send(Method::POST, path, Some(body))
            .await
            .unwrap_or_else(|| panic!("POST {path}: no answer"))
    }

    /// PUT, which must succeed.
    pub async fn put(&self, path: &str, body: &Value) -> Value {
        let answer = self.send(Method::PUT, path, Some(body)).await;
        let (status, body) = answer.unwrap_or_else(|| panic!("PUT {path}: no answer"));
        assert!((200..300).contains(&status), "PUT {path}: {status} {body}");
        body
    }

    /// POST, which must succeed.
    pub async fn created(&self, path: &str, body: &Value) -> Value {
        let (status, body) = self.post(path, body).await;
        assert!((200..300).contains(&status), "POST {path}: {status} {body}");
        body
    }

    /// The one value of a meter over a range; `None` where it is null or there is no row.
    pub async fn total(&self, meter: &str, query: &str) -> Option<String> {
        let path = format!("/v1/meters/{meter}/usage?{query}");
        let (status, body) = self.get(&path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body["data"][0]["value"].as_str().map(str::to_owned)
    }
}
