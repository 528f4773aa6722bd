use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, CommandError, output};

/// Print a script that completes this program's commands in a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  turnpike completions bash > ~/.local/share/bash-completion/completions/turnpike
  turnpike completions zsh > \"${fpath[1]}/_turnpike\"
  turnpike completions fish > ~/.config/fish/completions/turnpike.fish")]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> Result<(), CommandError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "turnpike", &mut script);
        output::line(String::from_utf8_lossy(&script).trim_end())
    }
}
