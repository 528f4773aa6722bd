//! A hard limit, and more callers than it has room for.

use serde_json::{Value, json};

use super::Stage;
use crate::cli::{CommandError, output};

/// Callers at once.
const CALLERS: usize = 64;
/// Batch jobs a day of plan "team" in the sample catalog.
const LIMIT: u64 = 25;

impl Stage {
    pub(super) async fn race_a_limit(&mut self) -> Result<(), CommandError> {
        self.story
            .step("Hit a hard quota: plan \"team\" has 25 batch jobs a day, and 64 callers ask at once");
        let client = self.client()?;
        let mut callers = tokio::task::JoinSet::new();
        for number in 0..CALLERS {
            let client = client.clone();
            callers.spawn(async move {
                let body = json!({"id": format!("job-{number}"), "customer": "acme", "feature": "batch_jobs", "amount": "1"});
                client.post("/v1/quota/consume", body).await
            });
        }
        let (mut granted, mut refusal) = (0, Value::Null);
        while let Some(answer) = callers.join_next().await {
            let answer = answer.map_err(|error| CommandError::failed(error.to_string()))??;
            if answer["allowed"] == true {
                granted += 1;
            } else {
                refusal = answer;
            }
        }
        self.story.tell(&format!(
            "granted: {granted}; refused: {}",
            CALLERS as u64 - granted
        ));
        let now = self.ask().await?;
        let get = |name: &str| output::cell(&now[name]);
        self.story.tell(&format!(
            "a refusal says why: {}; limit {}, used {}, free again at {}",
            output::cell(&refusal["reason"]),
            get("limit"),
            get("used"),
            get("resets_at")
        ));
        self.expect(granted == LIMIT, "exactly the limit was granted, not one more")?;
        self.found["granted"] = granted.into();
        self.kill_and_ask_again().await
    }

    /// What was granted stays granted, and what was used stays used, through another kill.
    async fn kill_and_ask_again(&mut self) -> Result<(), CommandError> {
        if let Some(server) = self.server.take() {
            server.kill();
        }
        self.start().await?;
        let answer = self.ask().await?;
        let still = answer["allowed"] == false
            && answer["used"].as_str().and_then(|used| used.parse().ok()) == Some(LIMIT);
        self.story.tell(&format!(
            "killed and started again: allowed {}, used {}",
            answer["allowed"],
            output::cell(&answer["used"])
        ));
        self.expect(still, "the limit holds through a kill")
    }

    /// Whether one more would be granted.
    async fn ask(&self) -> Result<Value, CommandError> {
        let body = json!({"customer": "acme", "feature": "batch_jobs", "amount": "1"});
        self.client()?.post("/v1/quota/check", body).await
    }
}
