use clap::Subcommand;
use serde_json::{Value, json};
use turnpike_client::transport::encode;

use super::client::ClientArgs;
use super::{CommandError, output};

/// Make, list, rotate and revoke API keys.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike keys list
  turnpike keys create gateway --scope ingest --scope check
  turnpike keys create report --scope read --expires 2027-01-01T00:00:00Z
  turnpike keys rotate ID --grace-s 3600
  turnpike keys revoke ID")]
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
        /// Seconds for which the old one goes on; a day unless said.
        #[arg(long, value_name = "SECONDS")]
        grace_s: Option<u32>,
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
                client.post_once("/v1/keys", body).await?
            }
            What::Rotate { id, grace_s } => {
                let body = grace_s.map_or(json!({}), |grace_s| json!({ "grace_s": grace_s }));
                let path = format!("/v1/keys/{}/rotate", encode(id));
                client.post_once(&path, body).await?
            }
            What::Revoke { id } => {
                client.delete_once(&format!("/v1/keys/{}", encode(id))).await?;
                json!({"id": id, "revoked": true})
            }
        };
        if self.client.json {
            return output::json(&answer);
        }
        match (&self.what, &answer) {
            (What::List, Value::Array(rows)) => output::line(&show(rows)),
            (What::Revoke { id }, _) => output::line(&format!("The key {id} is revoked.")),
            _ => output::line(&show_made(&answer)),
        }
    }
}

/// A new key. Its text is there unless the first answer was lost on the way: a repeat is answered without it.
fn show_made(made: &Value) -> String {
    let shown = show(std::slice::from_ref(made));
    let Some(key) = made["key"].as_str() else {
        let id = output::cell(&made["id"]);
        return format!(
            "{shown}\n\nThe key was made, but its text was lost on the way: turnpike keys rotate {id}"
        );
    };
    let mut text = format!("{shown}\n\nThe key, shown only now:\n\n    {key}");
    if !made["replaced_until"].is_null() {
        let until = output::cell(&made["replaced_until"]);
        text = format!("{text}\n\nThe old one goes on until {until}.");
    }
    text
}

fn show(rows: &[Value]) -> String {
    let names = ["id", "name", "scopes", "created", "expires", "revoked"];
    output::table(
        &names,
        rows.iter()
            .map(|row| names.iter().map(|name| output::instant(&row[*name])).collect()),
    )
}
