//! The `turnpike` binary, built with the tests so that they can start it.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnpike_server::cli::main()
}
