//! The way in: the same requests to a process over HTTP, or to the routers in this one.

use std::future::Future;

use serde_json::Value;

use crate::app::{Answer, Caller};

/// Where requests go: to a process over HTTP, or to routers in this one.
pub trait Door {
    /// Sends a request. `None` where no answer came, or one that says to try again.
    fn call(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&Value>,
    ) -> impl Future<Output = Answer> + Send;
}

impl Door for Caller {
    async fn call(&self, method: &'static str, path: &str, body: Option<&Value>) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let answer = self.send(method, path, body).await;
        answer.filter(|(status, _)| !matches!(status, 429 | 503))
    }
}

/// A call that must succeed; what it answered.
pub async fn must(door: &impl Door, method: &'static str, path: &str, body: &Value) -> Value {
    let answer = door.call(method, path, Some(body)).await;
    let (status, answer) = answer.unwrap_or_else(|| panic!("{method} {path}: no answer"));
    assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
    answer
}
