use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use serde_json::Value;

use super::catalog_files::CatalogFiles;
use super::client::ClientArgs;
use super::{CommandError, output};

/// Make the server's catalog what files declare, after showing the difference.
///
/// A catalog is meters, features, plans and add-ons.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike apply config/sample-catalog.toml
  turnpike apply catalog/ --dry-run
  turnpike apply catalog/ --yes --json")]
pub(crate) struct Apply {
    /// TOML files, or directories of them; together they are the whole catalog: what they do not name is taken away.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Apply without asking.
    #[arg(long, short)]
    yes: bool,
    /// Show the difference and change nothing.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    client: ClientArgs,
}

impl Apply {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        if self.client.json && !self.yes && !self.dry_run {
            return Err(CommandError::usage(
                "--json asks nobody: give --yes to apply, or --dry-run to see the difference alone",
            ));
        }
        let files = CatalogFiles::read(&self.files)?;
        let client = self.client.client()?;
        let mut catalog = files.catalog.clone();
        let diff = client.post("/v1/catalog/diff", catalog.clone()).await;
        let diff = diff.map_err(|error| files.explained(error))?;
        let changes = count(&diff);
        if self.client.json && (self.dry_run || changes == 0) {
            return output::json(&diff);
        }
        if !self.client.json {
            output::line(describe(&diff).trim_end())?;
        }
        if changes == 0 || self.dry_run {
            return Ok(());
        }
        if !self.yes && !confirmed(changes)? {
            return Err(CommandError::failed("nothing was changed"));
        }
        // The difference that was shown is the one that is applied: another change in between refuses this one.
        catalog["expected_version"] = diff["version"].clone();
        let applied = client.post_once("/v1/catalog/apply", catalog).await;
        let applied = applied.map_err(|error| files.explained(error))?;
        if self.client.json {
            return output::json(&applied);
        }
        output::line(&format!(
            "\nApplied. The catalog is at version {}.",
            applied["version"]
        ))
    }
}

fn count(diff: &Value) -> usize {
    ["created", "changed", "removed"]
        .iter()
        .map(|part| diff[part].as_array().map_or(0, Vec::len))
        .sum()
}

/// A difference in words: `+` is new, `~` changes, `-` goes.
fn describe(diff: &Value) -> String {
    let mut text = String::new();
    let items = |part: &str| diff[part].as_array().cloned().unwrap_or_default();
    let name = |item: &Value| {
        format!(
            "{} {}",
            item["kind"].as_str().unwrap_or("?"),
            item["key"].as_str().unwrap_or("?")
        )
    };
    for item in items("created") {
        let _ = writeln!(text, "+ {}", name(&item));
    }
    for item in items("changed") {
        let version = item["version"]
            .as_u64()
            .map_or_else(String::new, |version| format!("  (new version {version})"));
        let _ = writeln!(text, "~ {}{version}", name(&item));
        for change in item["changes"].as_array().into_iter().flatten() {
            let pointer = change["pointer"].as_str().unwrap_or("");
            let _ = writeln!(text, "    {pointer}: {} → {}", change["from"], change["to"]);
        }
    }
    for item in items("removed") {
        let _ = writeln!(text, "- {}", name(&item));
    }
    match count(diff) {
        0 => "Nothing to do: the catalog is as the files say.".to_owned(),
        _ => text,
    }
}

fn confirmed(changes: usize) -> Result<bool, CommandError> {
    if !std::io::stdin().is_terminal() {
        return Err(CommandError::usage(
            "not a terminal to ask on: look at the difference, then run again with --yes",
        ));
    }
    let mut out = std::io::stdout().lock();
    let s = if changes == 1 { "" } else { "s" };
    write!(out, "\nApply {changes} change{s}? [y/N] ")
        .and_then(|()| out.flush())
        .map_err(|error| CommandError::failed(format!("cannot ask: {error}")))?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| CommandError::failed(format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_told() {
        let diff = json!({"version": 1, "created": [{"kind": "meter", "key": "a"}], "removed": [{"kind": "plan", "key": "old"}],
            "changed": [{"kind": "plan", "key": "p", "version": 2, "changes": [{"pointer": "/name", "from": "A", "to": "B"}]}]});
        insta::assert_snapshot!(describe(&diff), @r#"
        + meter a
        ~ plan p  (new version 2)
            /name: "A" → "B"
        - plan old
        "#);
    }
}
