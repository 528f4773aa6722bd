//! The `turnpike` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnpike_server::cli::main()
}
