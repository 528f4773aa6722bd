//! Compressed bodies: whole, cut, broken, followed by something, and far larger inside than outside.

use std::io::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use turnpike_ingest::IngestOptions;

use crate::memory::MemoryIntake;
use crate::rig::{Answer, Gateway, event_with, lines_of};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn send(gateway: &Gateway, content_type: &str, encoding: &str, body: Vec<u8>) -> Answer {
    let request = Request::post("/v1/events")
        .header("content-type", content_type)
        .header("content-encoding", encoding);
    gateway.call(request.body(Body::from(body)).unwrap()).await
}

#[tokio::test]
async fn both_encodings_in_both_forms() {
    for (encoding, compress) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let gateway = Gateway::new();
        let one = compress(event_with("a").to_string().as_bytes());
        assert_eq!(
            send(&gateway, "application/json", encoding, one.clone())
                .await
                .counts(),
            (1, 0, 0, 0)
        );
        assert_eq!(
            send(&gateway, "application/x-ndjson", encoding, one)
                .await
                .counts(),
            (0, 1, 0, 0)
        );
        let many = compress(lines_of(0..5_000).as_bytes());
        assert_eq!(
            send(&gateway, "application/x-ndjson", encoding, many)
                .await
                .counts(),
            (5_000, 0, 0, 0)
        );
        let empty = compress(b"");
        assert_eq!(
            send(&gateway, "application/x-ndjson", encoding, empty)
                .await
                .counts(),
            (0, 0, 0, 0)
        );
    }
}

#[tokio::test]
async fn members_and_frames_may_follow_each_other_and_nothing_else() {
    for (encoding, compress) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let text = lines_of(0..10);
        let (first, second) = text.split_at(text.len() / 2);
        let two = [compress(first.as_bytes()), compress(second.as_bytes())].concat();
        assert_eq!(
            send(&Gateway::new(), "application/x-ndjson", encoding, two)
                .await
                .counts(),
            (10, 0, 0, 0),
            "{encoding}"
        );
        for garbage in [&b"x"[..], b"{}", b"\n", b"\0\0\0\0\0\0\0\0\0\0\0\0"] {
            let gateway = Gateway::new();
            let body = [compress(event_with("a").to_string().as_bytes()), garbage.to_vec()].concat();
            let answer = send(&gateway, "application/json", encoding, body).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code()),
                (400, "invalid_request"),
                "{encoding} {garbage:?}"
            );
            assert_eq!(gateway.events(), 0);
        }
    }
}

#[tokio::test]
async fn cut_at_every_byte_nothing_whole_is_made_of_a_part() {
    for (encoding, compress) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let body = compress(format!("[{},{}]", event_with("a"), event_with("b")).as_bytes());
        for end in 0..body.len() {
            let gateway = Gateway::new();
            let answer = send(&gateway, "application/json", encoding, body[..end].to_vec()).await;
            assert_eq!(
                answer.status.as_u16(),
                400,
                "{encoding} cut at {end} of {}",
                body.len()
            );
            assert_eq!(gateway.events(), 0);
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_is_never_taken_for_good() {
    for (encoding, compress) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let body = compress(event_with("a").to_string().as_bytes());
        for at in 0..body.len() {
            let mut broken = body.clone();
            broken[at] ^= 0x10;
            let gateway = Gateway::new();
            let answer = send(&gateway, "application/json", encoding, broken).await;
            // Bits of the header that say nothing about the text (a time, a system) may change.
            if answer.status.as_u16() == 200 {
                assert_eq!(
                    gateway.get("/v1/events").await.json["data"][0]["data"],
                    event_with("a")["data"]
                );
            } else {
                assert_eq!(
                    (answer.status.as_u16(), gateway.events()),
                    (400, 0),
                    "{encoding} {at}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_bomb_is_stopped_at_the_bound() {
    for (encoding, compress) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let options = IngestOptions {
            body_bytes_max: 1 << 20,
            ..IngestOptions::default()
        };
        let gateway = Gateway::with(options, MemoryIntake::default());
        let bomb = compress(&vec![b' '; 200 << 20]);
        assert!(bomb.len() < 1 << 20);
        let answer = send(&gateway, "application/json", encoding, bomb.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (413, "too_large"),
            "{encoding}"
        );
        let answer = send(&gateway, "application/x-ndjson", encoding, bomb).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (413, "too_large"),
            "{encoding}"
        );
        let detail = answer.json["detail"].as_str().unwrap();
        assert!(detail.contains("1000 times"), "{detail}");
    }
}

/// What is let pass: 64 MiB of anything, and more where it was sent with a thousandth of it.
#[tokio::test]
async fn a_stream_may_grow_as_events_do() {
    for (encoding, compress) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let mut blank = vec![b'\n'; 64 << 20];
        let answer = send(
            &Gateway::new(),
            "application/x-ndjson",
            encoding,
            compress(&blank),
        )
        .await;
        assert_eq!(answer.counts(), (0, 0, 0, 0), "{encoding}");
        blank.push(b'\n');
        let answer = send(
            &Gateway::new(),
            "application/x-ndjson",
            encoding,
            compress(&blank),
        )
        .await;
        assert_eq!(answer.code(), "too_large", "{encoding}");
    }
    let mut seed = 1_u32;
    let noise = (0..200_000).map(|_| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8 | 1
    });
    let text = [noise.collect(), vec![b'\n'; 100 << 20]].concat();
    let answer = send(&Gateway::new(), "application/x-ndjson", "zstd", zstd(&text)).await;
    assert_eq!(answer.status.as_u16(), 200);
}

/// Two requests on one thread: the one that is short is answered while the long one is still being read.
#[tokio::test(flavor = "current_thread")]
async fn a_bomb_leaves_the_thread_to_others() {
    for line in [" \n", "\n", "{}\n"] {
        let gateway = Arc::new(Gateway::new());
        let bomb = zstd(line.repeat((4 << 20) / line.len()).as_bytes());
        let chunks = (4 << 20) / (64 * 1024);
        let long = tokio::spawn({
            let gateway = Arc::clone(&gateway);
            async move { send(&gateway, "application/x-ndjson", "zstd", bomb).await }
        });
        let mut meanwhile = 0;
        while !long.is_finished() {
            assert_eq!(gateway.get("/v1/events").await.status.as_u16(), 200);
            meanwhile += 1;
            tokio::task::yield_now().await;
        }
        assert_eq!(long.await.unwrap().status.as_u16(), 200);
        assert!(
            meanwhile >= chunks,
            "{meanwhile} requests beside {chunks} chunks of {line:?}"
        );
    }
}

#[tokio::test]
async fn a_window_beyond_eight_mebibytes_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&vec![b' '; 40 << 20]).unwrap();
    let answer = send(
        &Gateway::new(),
        "application/json",
        "zstd",
        encoder.finish().unwrap(),
    )
    .await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_request"));
}

#[tokio::test]
async fn what_is_not_compressed_as_said_is_refused() {
    for encoding in ["gzip", "zstd"] {
        let plain = event_with("a").to_string().into_bytes();
        let answer = send(&Gateway::new(), "application/json", encoding, plain).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_request"));
    }
    let answer = send(&Gateway::new(), "application/json", "identity", gzip(b"{}")).await;
    assert_eq!(answer.code(), "invalid_json");
}
