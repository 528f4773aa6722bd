use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Body, ClientArgs, encode};
use super::{CommandError, output};

/// Make, list, rotate and revoke API keys.
#[derive(Debug, clap::Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the tenant's keys.
    List,
    /// Make a key; it is shown once.
    Create {
        /// A name for people.
        name: String,
        /// What it may do; may repeat.
        #[arg(long = "scope", required = true, value_parser = ["ingest", "check", "read", "billing", "admin"])]
        scopes: Vec<String>,
        /// When it ends, such as 2027-01-01T00:00:00Z.
        #[arg(long)]
        expires: Option<String>,
        /// Calls per second at the most.
        #[arg(long)]
        calls_per_second: Option<u32>,
    },
    /// Make a new key in place of one, which goes on for a while.
    Rotate {
        /// The id of the old one.
        id: String,
    },
    /// End a key at once.
    Revoke {
        /// Its id.
        id: String,
    },
}

impl Keys {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        let client = self.client.client()?;
        let answer = match &self.what {
            What::List => Value::Array(client.list("/v1/keys").await?),
            What::Create {
                name,
                scopes,
                expires,
                calls_per_second,
            } => {
                let mut body = json!({"name": name, "scopes": scopes});
                if let Some(at) = expires {
                    body["expires"] = at.as_str().into();
                }
                if let Some(limit) = calls_per_second {
                    body["calls_per_second"] = (*limit).into();
                }
                client.post("/v1/keys", body).await?
            }
            What::Rotate { id } => {
                client
                    .post(&format!("/v1/keys/{}/rotate", encode(id)), json!({}))
                    .await?
            }
            What::Revoke { id } => {
                client
                    .json(Method::DELETE, &format!("/v1/keys/{}", encode(id)), Body::None)
                    .await?
            }
        };
        if self.client.json {
            return output::json(&answer);
        }
        match (&self.what, &answer) {
            (What::List, Value::Array(rows)) => output::line(&show(rows)),
            (What::Revoke { id }, _) => output::line(&format!("The key {id} is revoked.")),
            _ => output::line(&format!(
                "{}\n\nThe key, shown only now:\n\n    {}",
                show(std::slice::from_ref(&answer)),
                output::cell(&answer["key"])
            )),
        }
    }
}

fn show(rows: &[Value]) -> String {
    let names = ["id", "name", "scopes", "created", "expires", "revoked"];
    output::table(
        &names,
        rows.iter()
            .map(|row| names.iter().map(|name| output::cell(&row[*name])).collect()),
    )
}
