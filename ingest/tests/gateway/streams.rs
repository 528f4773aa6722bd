//! Streams of lines: cut anywhere, of any length, and interrupted.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::Ordering;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use turnpike_domain::limits::{STREAM_PIECE_BYTES, STREAM_PIECES_MAX};
use turnpike_domain::problem::{Code, Problem};
use turnpike_ingest::IngestOptions;

use crate::memory::MemoryIntake;
use crate::rig::{Gateway, event_with, lines_of};

#[tokio::test]
async fn chunks_of_any_size_read_the_same() {
    let mut text = lines_of(0..4);
    text.insert_str(0, "\n\r\n");
    text += "broken\r\n";
    text += event_with("last").to_string().as_str();
    for size in 1..=text.len() {
        let chunks: Vec<_> = text
            .as_bytes()
            .chunks(size)
            .map(|part| Ok::<_, Infallible>(part.to_vec()))
            .collect();
        let gateway = Gateway::new();
        let answer = gateway.lines(Body::from_stream(stream::iter(chunks))).await;
        assert_eq!(answer.counts(), (5, 0, 0, 1), "{size}");
        assert_eq!(
            (
                &answer.json["errors"][0]["index"],
                &answer.json["errors"][0]["code"]
            ),
            (&json!(4), &json!("invalid_json"))
        );
    }
}

/// The client goes away behind any byte: what was not told is sent again, and counts once.
#[tokio::test]
async fn cut_at_every_byte_then_sent_again() {
    let text = lines_of(0..3);
    for end in 0..text.len() {
        let gateway = Gateway::new();
        let part = Ok(Bytes::copy_from_slice(&text.as_bytes()[..end]));
        let cut = stream::iter([part, Err(io::Error::from(io::ErrorKind::ConnectionReset))]);
        let answer = gateway.lines(Body::from_stream(cut)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (400, "incomplete_body"),
            "{end}"
        );
        assert!(
            answer.json["detail"]
                .as_str()
                .unwrap()
                .contains("0 were accepted"),
            "{answer:?}"
        );
        assert_eq!(gateway.letters().len(), 0, "half a line is no event");
        let counts = gateway.lines(text.clone()).await.counts();
        assert_eq!((counts.0 + counts.1, counts.2, counts.3), (3, 0, 0));
        assert_eq!(gateway.events(), 3);
    }
    for end in 0..text.len() {
        let array = format!("[{}]", text.trim_end().replace('\n', ","));
        let gateway = Gateway::new();
        let cut = stream::iter([
            Ok(array[..end].to_owned()),
            Err(io::Error::from(io::ErrorKind::ConnectionReset)),
        ]);
        assert_eq!(
            gateway.json(Body::from_stream(cut)).await.code(),
            "incomplete_body"
        );
        assert_eq!((gateway.events(), gateway.letters().len()), (0, 0));
    }
}

#[tokio::test]
async fn an_interruption_says_what_had_been_counted() {
    for problem in [
        Problem::new(Code::StorageFull, "the disk is full"),
        Problem::new(Code::Overloaded, "busy"),
    ] {
        let gateway = Gateway::new();
        *gateway.intake.fail_after.lock().unwrap() = Some((3, problem.clone()));
        let answer = gateway.lines(lines_of(0..10_500)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (503, problem.code.slug())
        );
        let detail = answer.json["detail"].as_str().unwrap();
        assert!(
            detail.starts_with(&problem.detail) && detail.contains(", 3000 were accepted"),
            "{detail}"
        );
        assert_eq!(gateway.events(), 3_000);
        *gateway.intake.fail_after.lock().unwrap() = None;
        assert_eq!(
            gateway.lines(lines_of(0..10_500)).await.counts(),
            (7_500, 3_000, 0, 0)
        );
    }
    let gateway = Gateway::new();
    *gateway.intake.fail_after.lock().unwrap() = Some((0, Problem::new(Code::StorageFull, "full")));
    let body = Value::from((0..3).map(|id| event_with(&id.to_string())).collect::<Vec<_>>()).to_string();
    assert_eq!(gateway.json(body).await.code(), "storage_full");
    assert_eq!(
        gateway.json(event_with("a").to_string()).await.code(),
        "storage_full"
    );
    assert_eq!(gateway.events(), 0);
}

#[tokio::test]
async fn errors_keep_their_places_over_all_pieces() {
    let mut text = String::new();
    for at in 0..5_000 {
        text += &match at % 1_250 {
            7 => "{}\n\n".to_owned(),
            8 => event_with("same").to_string() + "\n",
            9 => json!({"id": "same", "source": "test", "type": "t", "subject": "s"}).to_string() + "\n",
            _ => event_with(&at.to_string()).to_string() + "\n",
        };
    }
    let answer = Gateway::new().lines(text).await;
    assert_eq!(answer.counts(), (4_989, 3, 4, 4));
    let places: Vec<_> = answer.json["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["index"].as_u64().unwrap(), error["code"].as_str().unwrap()))
        .collect();
    let expected: Vec<_> = (0..4)
        .flat_map(|round| {
            [
                (round * 1_250 + 7, "invalid_id"),
                (round * 1_250 + 9, "event_conflict"),
            ]
        })
        .collect();
    assert_eq!(places, expected);
}

/// A stream far longer than the memory that it may take, made as it is read.
#[tokio::test]
async fn a_long_stream_takes_little_memory() {
    let event = event_with("a").to_string() + "\n";
    let chunk = Bytes::from(event.repeat(64 * 1024 / event.len()));
    let chunks = 500 * 1024 * 1024 / chunk.len() / if cfg!(debug_assertions) { 5 } else { 1 };
    let events = chunks * chunk.len() / event.len();
    let body = Body::from_stream(stream::repeat(chunk).take(chunks).map(Ok::<_, Infallible>));
    let options = IngestOptions {
        in_flight_bytes_max: 16 * STREAM_PIECE_BYTES,
        ..IngestOptions::default()
    };
    let intake = MemoryIntake {
        forget: true,
        ..MemoryIntake::default()
    };
    let gateway = Gateway::with(options, intake);
    assert_eq!(gateway.lines(body).await.counts(), (events as u64, 0, 0, 0));
    let intake = &gateway.intake;
    assert_eq!(intake.seen.load(Ordering::SeqCst), events);
    let together = intake.running_most.load(Ordering::SeqCst);
    assert!(
        (2..=STREAM_PIECES_MAX).contains(&together),
        "{together} pieces at once"
    );
    assert!(intake.bytes_most.load(Ordering::SeqCst) <= STREAM_PIECES_MAX * 2 * STREAM_PIECE_BYTES);
}
