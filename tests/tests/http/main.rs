//! The listener and what all routes share, against rude clients.

mod answers;
mod calls;
mod connections;
mod document;
mod framing;
mod repeats;
mod shapes;

use turnpike_tests::app::{App, AppOptions};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");

/// A server with settings from its environment.
async fn app(directory: &tempfile::TempDir, environment: &[(&str, &str)]) -> App {
    let mut options = AppOptions::new(BINARY, directory.path());
    for (name, value) in environment {
        options.set(name, value);
    }
    App::start_with(options).await
}
