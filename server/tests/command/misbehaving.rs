//! Commands before a server that answers badly, slowly or not at all.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::rig::{Ended, alone};

/// A server that answers each call in its turn with these bytes, all further ones with the last, and closes.
struct Misbehaving {
    address: String,
    calls: Arc<AtomicUsize>,
}

impl Misbehaving {
    /// `delay` lies before each answer.
    fn start(answers: Vec<String>, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let call = counted.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(delay);
                answer(
                    stream.expect("a connection"),
                    &answers[call.min(answers.len() - 1)],
                );
            }
        });
        Self { address, calls }
    }

    /// Runs a command against it, in a directory with a file to import.
    fn call(&self, arguments: &[&str]) -> Ended {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("a.csv"), "who,n\na,1\n").expect("written");
        let server = ["--server", &self.address, "--api-key", "k"];
        alone(directory.path(), &[arguments, &server].concat())
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, bytes: &str) {
    let _ = stream.read(&mut [0; 8_192]);
    let _ = stream.write_all(bytes.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    // What the client still sends is read, for else closing could take the answer away from it.
    while matches!(stream.read(&mut [0; 8_192]), Ok(read) if read > 0) {}
}

/// An answer with this status and these headers, of which `missing` bytes of the body are cut off.
fn cut(status: &str, headers: &str, body: &str, missing: usize) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{}",
        body.len(),
        &body[..body.len() - missing]
    )
}

fn whole(status: &str, headers: &str, body: &str) -> String {
    cut(status, headers, body, 0)
}

const IMPORT: [&str; 8] = [
    "import",
    "a.csv",
    "--type",
    "call",
    "--subject-column",
    "who",
    "--now",
    "--json",
];
const BUSY: &str = r#"{"code":"overloaded","detail":"busy"}"#;
const EMPTY: &str = r#"{"data":[],"next_cursor":null}"#;

#[test]
fn an_answer_that_is_cut_anywhere_is_asked_for_again() {
    let invalid = r#"{"code":"invalid","detail":"it is wrong"}"#;
    let keys = &["keys", "list", "--json"][..];
    let html = &["invoice", "html", "i"];
    for (arguments, broken, then, code) in [
        (
            keys,
            "HTTP/1.1 200 OK\r\ncontent-".to_owned(),
            whole("200 OK", "", EMPTY),
            0,
        ),
        (keys, cut("200 OK", "", EMPTY, 9), whole("200 OK", "", EMPTY), 0),
        (
            keys,
            cut("422 No", "", invalid, 9),
            whole("422 No", "", invalid),
            4,
        ),
        (
            html,
            cut("200 OK", "", "<p>page</p>", 4),
            whole("200 OK", "", "<p>page</p>"),
            0,
        ),
    ] {
        let server = Misbehaving::start(vec![broken.clone(), then], Duration::ZERO);
        let ended = server.call(arguments);
        assert_eq!(ended.code, Some(code), "{broken}: {ended:?}");
        assert_eq!(server.calls(), 2, "{broken}");
        let words = if code == 0 { &ended.out } else { &ended.error };
        assert!(
            ["{", "[", "it is wrong", "<p>page</p>"]
                .iter()
                .any(|said| words.contains(said)),
            "{broken}: {ended:?}"
        );
    }
}

#[test]
fn a_body_that_came_too_slowly_is_sent_again() {
    let slow = r#"{"code":"request_timeout","detail":"the body came too slowly"}"#;
    let taken = r#"{"accepted":1,"duplicates":0,"conflicts":0,"rejected":0,"errors":[]}"#;
    let answers = vec![whole("408 Slow", "", slow), whole("200 OK", "", taken)];
    let server = Misbehaving::start(answers, Duration::ZERO);
    assert_eq!(server.call(&IMPORT).json()["accepted"], 1);
    assert_eq!(server.calls(), 2);
}

/// A server that asks for no pause at all is given one, and not called without end; how often it was called is told.
#[test]
fn a_server_that_refuses_without_a_pause_is_given_up() {
    let server = Misbehaving::start(
        vec![whole("503 Busy", "retry-after: 0\r\n", BUSY)],
        Duration::ZERO,
    );
    let error = server
        .call(&[&IMPORT[..], &["--retry-s", "1"]].concat())
        .failed(4);
    let calls = server.calls();
    assert!((2..20).contains(&calls), "{calls} calls");
    assert!(error.contains(&format!("It was tried {calls} times")), "{error}");
}

#[test]
fn what_was_tried_once_is_not_said_to_be_tried_often() {
    let server = Misbehaving::start(vec![whole("503 Busy", "", BUSY)], Duration::ZERO);
    let error = server
        .call(&[&IMPORT[..], &["--retry-s", "0"]].concat())
        .failed(4);
    assert_eq!(server.calls(), 1);
    assert!(
        error.contains("ry again later") && !error.contains("tried"),
        "{error}"
    );
}

/// Each call takes a second of the two: whoever counted the pauses alone would call five times.
#[test]
fn the_time_of_calls_is_a_part_of_the_patience() {
    let busy = vec![whole("503 Busy", "retry-after: 0\r\n", BUSY)];
    let server = Misbehaving::start(busy, Duration::from_secs(1));
    let ended = server.call(&[&IMPORT[..], &["--retry-s", "2"]].concat());
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let calls = server.calls();
    assert!((2..=3).contains(&calls), "{calls} calls");
}

/// Who asks for a longer pause than there is patience is not called again.
#[test]
fn a_pause_beyond_the_patience_is_not_waited_for() {
    let busy = vec![whole("503 Busy", "retry-after: 20\r\n", BUSY)];
    let server = Misbehaving::start(busy, Duration::ZERO);
    let ended = server.call(&[&IMPORT[..], &["--retry-s", "10"]].concat());
    assert_eq!((ended.code, server.calls()), (Some(4), 1), "{ended:?}");
}

/// An import that loses its connections again and again, without a connection refused, gives up as well.
#[test]
fn a_server_that_answers_nothing_is_given_up() {
    let server = Misbehaving::start(vec![String::new()], Duration::ZERO);
    let ended = server.call(&[&IMPORT[..], &["--retry-s", "1"]].concat());
    let error = ended.failed(3);
    assert!(error.contains("cannot reach the server"), "{error}");
    let calls = server.calls();
    assert!((2..9).contains(&calls), "{calls} calls");
}
