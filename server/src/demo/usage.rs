//! Real usage, sent three times and through a crash, and what it adds up to.

use reqwest::Method;
use serde_json::{Value, json};

use super::story::words;
use super::trace::{self, Request, Sums};
use super::{MONTH, Stage};
use crate::cli::{Body, Client, CommandError, output};

/// Events of one request.
const BATCH: usize = 500;

/// The counts of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    accepted: u64,
    duplicates: u64,
    other: u64,
}

impl Counts {
    fn add(&mut self, answer: &Value) {
        let get = |name: &str| answer[name].as_u64().unwrap_or(0);
        self.accepted += get("accepted");
        self.duplicates += get("duplicates");
        self.other += get("conflicts") + get("rejected");
    }
}

fn body(requests: &[Request]) -> Body {
    Body::Bytes("application/x-ndjson", trace::ndjson(requests).into())
}

async fn send_all(client: &Client, requests: &[Request]) -> Result<Counts, CommandError> {
    let bar = output::progress(Some(requests.len() as u64), "events");
    let mut counts = Counts::default();
    for batch in requests.chunks(BATCH) {
        counts.add(&client.json(Method::POST, "/v1/events", body(batch)).await?);
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    Ok(counts)
}

impl Stage {
    /// Half of the trace, then SIGKILL while more is on its way.
    pub(super) async fn send_with_a_crash(&mut self) -> Result<(), CommandError> {
        self.story
            .step("Send real usage, and pull the plug in the middle");
        let all = self.trace.len();
        self.story.tell(&format!(
            "{} requests to a production LLM service (Azure LLM inference trace, CC-BY 4.0), over HTTP",
            output::thousands(all as u64)
        ));
        let client = self.client()?;
        let half = all / 2;
        let first = send_all(&client, &self.trace[..half]).await?;
        let (flying, lost) = (client.clone(), body(&self.trace[half..]));
        let unanswered = tokio::spawn(async move { flying.send(Method::POST, "/v1/events", lost).await });
        // Long enough for the server to have begun with it, short enough for it not to be done.
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        if let Some(server) = self.server.take() {
            server.kill();
        }
        let answered = unanswered.await.is_ok_and(|sent| sent.is_ok());
        let told = if answered {
            "had just been answered"
        } else {
            "was on its way, without an answer"
        };
        self.story.tell(&format!(
            "{} events were acknowledged; then kill -9, while a request with {} more {told}",
            output::thousands(first.accepted),
            output::thousands((all - half) as u64)
        ));
        let took = self.start().await?;
        let counted = self.total("requests", "").await?;
        self.story.tell(&format!(
            "ready again after {}; events counted: {}",
            words(took),
            output::grouped(&counted)
        ));
        let held = counted
            .parse::<u64>()
            .is_ok_and(|counted| counted >= first.accepted);
        self.expect(
            held && first.accepted == half as u64,
            "every acknowledged event survives kill -9",
        )?;
        self.found["acknowledged_before_kill"] = first.accepted.into();
        Ok(())
    }

    /// All of it, as a client does that does not know what arrived; and all of it once more.
    pub(super) async fn send_again(&mut self) -> Result<(), CommandError> {
        self.story
            .step("Send everything again, for the sender cannot know what arrived; and then once more");
        let all = self.trace.len() as u64;
        let before = self.clock.monotonic_us();
        let second = send_all(&self.client()?, &self.trace).await?;
        let rate = all * 1_000_000 / (self.clock.monotonic_us() - before).max(1);
        let third = send_all(&self.client()?, &self.trace).await?;
        for (name, counts) in [("second", second), ("third", third)] {
            self.story.tell(&format!(
                "{name} time: {} new, {} duplicates, {} refused",
                output::thousands(counts.accepted),
                output::thousands(counts.duplicates),
                output::thousands(counts.other)
            ));
        }
        self.story.tell(&format!(
            "({} events a second, each durable before its answer, by one sender)",
            output::thousands(rate)
        ));
        self.expect(
            second.accepted + second.duplicates == all,
            "each event is new or a duplicate",
        )?;
        self.expect(
            third
                == Counts {
                    accepted: 0,
                    duplicates: all,
                    other: 0,
                },
            "the last time everything is a duplicate",
        )?;
        self.found["duplicates_the_last_time"] = third.duplicates.into();
        Ok(())
    }

    /// The engine's sums beside sums of the file that were added up without it.
    pub(super) async fn compare(&mut self) -> Result<(), CommandError> {
        self.story
            .step("What it adds up to, beside the file added up without the engine");
        let mut rows = Vec::new();
        let mut equal = true;
        for (customer, expected) in trace::sums(&self.trace) {
            let found = self.sums_of(customer).await?;
            equal &= found == expected;
            let show = |number: u64| output::thousands(number);
            rows.push(vec![
                customer.to_owned(),
                show(found.requests),
                show(found.context_tokens),
                show(found.generated_tokens),
                if found == expected {
                    "equal".to_owned()
                } else {
                    format!("expected {expected:?}")
                },
            ]);
            self.found["usage"][customer] = json!({
                "requests": found.requests, "context_tokens": found.context_tokens, "generated_tokens": found.generated_tokens,
            });
        }
        self.story.tell(&output::table(
            &[
                "customer",
                "#requests",
                "#context tokens",
                "#generated tokens",
                "the file",
            ],
            rows,
        ));
        self.expect(equal, "usage is equal to the file's")?;
        let path = "/v1/meters/generated_tokens/usage?from=2023-11-16T18:00:00Z&to=2023-11-16T20:00:00Z&window=hour&group_by=customer";
        let rows = self.client()?.list(path).await?;
        self.story.tell("");
        self.story.tell(&crate::cli::usage::show(&rows));
        Ok(())
    }

    async fn sums_of(&self, customer: &str) -> Result<Sums, CommandError> {
        let read = async |meter: &str| -> Result<u64, CommandError> {
            let total = self.total(meter, &format!("&customer={customer}")).await?;
            total
                .parse()
                .map_err(|_| CommandError::failed(format!("{meter} of {customer} is \"{total}\"")))
        };
        Ok(Sums {
            requests: read("requests").await?,
            context_tokens: read("context_tokens").await?,
            generated_tokens: read("generated_tokens").await?,
        })
    }

    /// A meter's total of the month; `more` are further parameters.
    async fn total(&self, meter: &str, more: &str) -> Result<String, CommandError> {
        let answer = self
            .client()?
            .get(&format!("/v1/meters/{meter}/usage?{MONTH}{more}"))
            .await?;
        Ok(answer["data"][0]["value"].as_str().unwrap_or("0").to_owned())
    }

    /// What must hold; said when it does, the end of the demo when it does not.
    pub(super) fn expect(&self, holds: bool, what: &str) -> Result<(), CommandError> {
        if !holds {
            return Err(CommandError::negative(format!(
                "this does not hold: {what}; the server's log is {}",
                self.setting.log.display()
            )));
        }
        self.story.tell(&format!("✓ {what}"));
        Ok(())
    }
}
