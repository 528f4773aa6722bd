//! The way in of events, over its own routes: what it takes is what serde_json reads of the same bytes.
//!
//! Input: a line with the path, lines `name: value` with headers, an empty line, and the body. The header `x-chunk` is not
//! sent: it says in how many bytes at once the body comes.

mod gateway;
mod model;

use axum::http::StatusCode;
use serde_json::Value;

use gateway::{Answer, Kept, Sent};

/// What is longer is not looked at: the bounds of bodies have tests of their own.
const BODY_MAX: usize = 64 * 1024;

/// See [`super::Target`].
///
/// # Panics
/// Where an answer is a defect of the server or not as the API has it, or an event was taken that is no event, was not
/// taken as it was sent, or was refused although nothing is wrong with it.
pub fn enter(input: &[u8]) -> bool {
    let Some(sent) = Sent::read(input).filter(|sent| sent.body.len() <= BODY_MAX) else {
        return false;
    };
    let (answer, kept) = gateway::send(&sent);
    answer.assert_is_one();
    kept.iter().for_each(model::assert_is_an_event);
    if answer.status.is_success() && !sent.is_amendment() {
        let taken = if answer.status == StatusCode::NO_CONTENT {
            kept.len() as u64
        } else {
            answer.count("accepted")
        };
        assert_eq!(taken, kept.len() as u64, "{answer:?}");
    } else if !sent.is_stream() {
        assert!(kept.is_empty(), "refused, and kept all the same: {answer:?}");
    }
    if sent.is_plain() {
        if sent.is_stream() {
            lines(&sent, &answer, &kept);
        } else {
            whole(&sent, &answer, &kept);
        }
    }
    !kept.is_empty() || (sent.is_amendment() && answer.status == StatusCode::NOT_FOUND)
}

/// One event, or an array of them.
fn whole(sent: &Sent, answer: &Answer, kept: &[Kept]) {
    let json = std::str::from_utf8(&sent.body)
        .ok()
        .filter(|text| model::is_json(text));
    let Some(text) = json else {
        assert!(!answer.status.is_success(), "no JSON, and taken: {answer:?}");
        return;
    };
    assert_ne!(
        answer.json["code"], "invalid_json",
        "JSON, and refused as none: {answer:?}"
    );
    let events = model::events(text);
    match answer.status.as_u16() {
        200 => compare(&events, answer, kept),
        204 => {
            assert_eq!(events.len(), kept.len());
            events
                .iter()
                .zip(kept)
                .for_each(|(event, kept)| model::assert_same(event, kept));
        }
        422 => assert!(
            !events.iter().all(|event| model::is_plain(event)),
            "good, and refused: {answer:?}"
        ),
        status => panic!("{status}: {answer:?}"),
    }
}

/// One event a line, each for itself.
fn lines(sent: &Sent, answer: &Answer, kept: &[Kept]) {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let space = |line: &&[u8]| !line.iter().all(|byte| b" \t\r\n".contains(byte));
    let events: Vec<&str> = sent
        .body
        .split(|byte| *byte == b'\n')
        .filter(space)
        .map(|line| std::str::from_utf8(line).unwrap_or("not text"))
        .collect();
    compare(&events, answer, kept);
}

/// Each event is kept as it was sent, or told among the errors, with the code that is right.
fn compare(events: &[&str], answer: &Answer, kept: &[Kept]) {
    let (accepted, rejected) = (answer.count("accepted"), answer.count("rejected"));
    assert_eq!(accepted + rejected, events.len() as u64, "{answer:?}");
    if answer.json.get("errors_omitted").is_some() {
        return;
    }
    let mut errors = answer.json["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .peekable();
    let mut kept = kept.iter();
    for (index, event) in events.iter().enumerate() {
        let told = errors.next_if(|error| error["index"] == index as u64);
        match told {
            None => model::assert_same(event, kept.next().expect("an event that was accepted")),
            Some(error) => assert_rightly_refused(event, error),
        }
    }
    assert!(errors.next().is_none() && kept.next().is_none(), "{answer:?}");
}

fn assert_rightly_refused(event: &str, error: &Value) {
    let broken = error["code"] == "invalid_json";
    assert_eq!(broken, !model::is_json(event), "{event}: {error}");
    assert!(!model::is_plain(event), "good, and refused: {event}: {error}");
}
